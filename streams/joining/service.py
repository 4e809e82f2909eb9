"""The label join as a process: derives, joins and says what became of the labels, for all partitions, until stopped.
There is one of it a shop: a second one shuts the first one out, which then ends and has lost nothing.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

from schemas.confluent import ConfluentRegistry
from schemas.errors import HeadraceError
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.compacted import Compacted
from streams.config import Settings
from streams.joining.deriver import Deriver
from streams.joining.forgetting import Forgetting
from streams.joining.joiner import Joiner, OnServed
from streams.labels import derive
from streams.labels.joined import Counts, added, less
from streams.labels.store import LabelStore
from streams.patience import RETRY_S, until_it_works
from streams.privacy.erasures import Erasures
from streams.privacy.ledger import Ledger
from streams.tasks import make_task
from streams.transactions import Sent

log = logging.getLogger(__name__)

T = TypeVar("T")

REPORT_S = 10.0
HEARTBEAT_S = 1.0
READ_TIMEOUT_S = 60.0


class Advertised(dict[str, str]):
    """Item ids by ad id, from catalog.ads."""

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self._decode = Decoder(registry, "catalog_ad")

    def apply(self, key: bytes, value: bytes | None) -> None:
        """A record of the topic. Raises BadRecord, RegistryUnavailable."""
        if value is not None and (item := (ad := self._decode(value))["item_id"]):
            self[ad["ad_id"]] = item


class LabelService:
    """Blocking; `stop` from any thread."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        on_served: OnServed = lambda record: None,
    ) -> None:
        """on_served hears of each served record, on this thread."""
        self._settings, self._clock, self._on_served = settings, clock, on_served
        self._stopping = threading.Event()
        self._heartbeat = (0, 0.0)  # the time that was said, and when
        self.counts: dict[str, Counts] = {}
        self.examples = self.derived = 0
        self.watermark: int | None = None
        """UTC ms: the event time that all partitions have reached; None before the first round."""
        self.join_s: float | None = None
        """How long the oldest label of the newest step that had one took, from the broker's clock when it arrived to
        this one's when what followed of it was committed; None before the first.
        """
        self._told: dict[str, Counts] = {}
        self._told_examples = 0

    def stop(self) -> None:
        self._stopping.set()

    def take_counts(self) -> dict[str, Counts]:
        """What was counted since the last call, by task. From one thread."""
        now = dict(self.counts)
        taken = {task: less(counts, self._told.get(task, Counts())) for task, counts in now.items()}
        self._told = now
        return taken

    def take_examples(self) -> int:
        """How many were made since the last call. From one thread."""
        before, self._told_examples = self._told_examples, self.examples
        return self._told_examples - before

    def run(self) -> None:
        """Until stopped. Raises Fenced where another one has taken over, SettingsError, SchemaError, StateError."""
        try:
            self._joined()
        except HeadraceError as error:
            if not (error.retriable and self._stopping.is_set()):  # what was waited for is not wanted any more
                raise

    def _joined(self) -> None:
        settings = self._settings
        folder = settings.data_dir / "labels" / settings.app_id
        with closing(ConfluentRegistry(settings.registry())) as registry:
            advertised = Advertised(registry)
            ads = Compacted(settings, settings.topics.ads, advertised.apply)
            forgotten = self._until_it_works("the registry", lambda: Ledger(settings, registry))
            derive_store, join_store = LabelStore(folder / "derive"), LabelStore(folder / "join")
            try:
                self._until_it_works("the catalogue", lambda: ads.wait_current(READ_TIMEOUT_S))
                self._until_it_works("who was forgotten", lambda: forgotten.wait_current(READ_TIMEOUT_S))
                parts = self._parts(registry, advertised, derive_store, join_store, lambda: forgotten.erasures)
                self._forgetting = Forgetting(settings, forgotten, *parts, derive_store, join_store)
                self._rounds(*parts)
            finally:
                ads.stop()
                forgotten.stop()
                derive_store.close()
                join_store.close()

    def _parts(
        self,
        registry: Registry,
        advertised: Advertised,
        derive_store: LabelStore,
        join_store: LabelStore,
        erasures: Callable[[], Erasures],
    ) -> tuple[list[Deriver], list[Joiner]]:
        settings = self._settings
        tasks = [make_task(name) for name in settings.tasks]
        partitions = range(settings.partitions)

        def derivers() -> list[Deriver]:
            return [
                Deriver(settings, registry, advertised, partition, derive_store, erasures) for partition in partitions
            ]

        def joiners() -> list[Joiner]:
            return [
                Joiner(settings, registry, tasks, partition, join_store, self._on_served, erasures)
                for partition in partitions
            ]

        return self._until_it_works("the registry", derivers), self._until_it_works("the registry", joiners)

    def _rounds(self, derivers: list[Deriver], joiners: list[Joiner]) -> None:
        parts: list[Deriver | Joiner] = [*derivers, *joiners]
        try:
            for part in parts:
                self._open(part)
            log.info("labels are joined over %d partitions", self._settings.partitions)
            reported = self._clock()
            while not self._stopping.is_set():
                self._round(derivers, joiners)
                if self._clock() - reported >= REPORT_S:
                    reported = self._clock()
                    self._report(joiners)
        finally:
            for part in parts:
                part.close()

    def _round(self, derivers: list[Deriver], joiners: list[Joiner]) -> None:
        """One step of each part. Where all is read, the reads' own waiting is the pace."""
        wait_s = 0.2 / (len(derivers) + len(joiners))
        for deriver in derivers:
            extra = self._alive(derivers) if deriver is derivers[0] else []
            self.derived += self._step(deriver, extra, wait_s)
        for joiner in joiners:
            self.examples += self._step(joiner, [], wait_s)
            for task, counts in joiner.counts().items():
                self.counts[task] = added(self.counts.get(task, Counts()), counts)
        self._tell(joiners)
        self._until_it_works("forgetting", lambda: self._forgetting.look(self._now()))
        self.watermark = min(joiner.watermark for joiner in joiners)

    def _step(self, part: Deriver | Joiner, extra: list[Sent], wait_s: float) -> int:
        try:
            if isinstance(part, Deriver):
                return part.step(self._now(), wait_s, extra)
            made = part.step(self._now(), wait_s)
            if part.oldest_label is not None:
                self.join_s = max(0.0, self._clock() - part.oldest_label / 1000)
            return made
        except HeadraceError as error:
            if not error.retriable:
                raise
            log.warning("labels of partition %d wait: %s", part.partition, error)
            self._stopping.wait(RETRY_S)
            self._open(part)
            return 0

    def _open(self, part: Deriver | Joiner) -> None:
        self._until_it_works(f"partition {part.partition}", lambda: part.open(self._now()))

    def _alive(self, derivers: list[Deriver]) -> list[Sent]:
        """Heartbeats, once a second at most: up to there all partitions' events have said their labels."""
        time_ms, (before, said) = min(deriver.watermark for deriver in derivers), self._heartbeat
        if time_ms <= before or self._clock() - said < HEARTBEAT_S:
            return []
        self._heartbeat = time_ms, self._clock()
        tasks = [name for name in self._settings.tasks if derive.SOURCE in make_task(name).labels.sources]
        return [sent for task in tasks for sent in derivers[0].heartbeats(task, time_ms)]

    def _tell(self, joiners: list[Joiner]) -> None:
        """A shop's heartbeat comes on any one partition, and speaks for all; our own come on each."""
        for source in {source for joiner in joiners for source in joiner.heard} - {derive.SOURCE}:
            newest = max(joiner.heard.get(source, 0) for joiner in joiners)
            for joiner in joiners:
                joiner.hear(source, newest, self._now())

    def _report(self, joiners: list[Joiner]) -> None:
        log.info(
            "%d labels derived, %d examples made; event time stands at %d",
            self.derived, self.examples, min(joiner.watermark for joiner in joiners),
            extra={"counts": {task: str(counts) for task, counts in self.counts.items()}},
        )  # fmt: skip

    def _until_it_works(self, what: str, attempt: Callable[[], T]) -> T:
        return until_it_works(what, attempt, self._stopping, log)

    def _now(self) -> int:
        return int(self._clock() * 1000)
