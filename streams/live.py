"""What the models stand on while events flow: the catalogue and the live releases, followed from their topics.
Changes are prepared beside the scoring loop and take effect between two micro-batches.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.releases import ReleaseStore
from engines.slot import Loaded, Slot, load
from engines.turns import Turns
from schemas.errors import ReleaseError
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.catalog import AD, ITEM, NOT_A_CANDIDATE, Catalogue, check_item, check_vector
from streams.compacted import Compacted
from streams.config import Settings
from streams.events import Record
from streams.lookups import Lookups
from streams.metrics import Metrics
from streams.priority import step_back
from streams.shadow import Shadows
from streams.swap import Swaps
from streams.tasks import make_task
from streams.tasks.base import Task
from streams.tasks.recommendation import WITHHELD, Recommendation
from streams.tasks.selection import PLAIN, Selection

log = logging.getLogger(__name__)

PRIOR = "prior.json"
TICK_S = 0.1
CHECKED: Mapping[str, Callable[[Record], None]] = {"catalog_item": check_item, "catalog_vector": check_vector}


class CatalogueFeed:
    """Reads catalog.items, catalog.ads and catalog.vectors; `drain` applies what came, on the caller's thread."""

    def __init__(
        self, settings: Settings, registry: Registry, catalog: Catalogue,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:  # fmt: skip
        self.catalog, self._now_ms = catalog, now_ms
        self._queue: deque[tuple[Callable[[Any], None], Any]] = deque()
        topics = settings.topics
        withdraw_item, withdraw_ad = partial(catalog.withdraw, ITEM), partial(catalog.withdraw, AD)
        items, vectors = (checked(Decoder(registry, name), check) for name, check in CHECKED.items())
        self._readers = [
            self._reader(settings, topics.items, items, catalog.apply_item, withdraw_item),
            self._reader(settings, topics.ads, Decoder(registry, "catalog_ad"), catalog.apply_ad, withdraw_ad),
            self._reader(settings, topics.vectors, vectors, catalog.apply_vector, _keep),
        ]

    def _reader(
        self,
        settings: Settings,
        topic: str,
        decode: Callable[[bytes], Any],
        apply: Callable[[Any], None],
        withdraw: Callable[[str], None],
    ) -> Compacted:
        def take(key: bytes, value: bytes | None) -> None:
            if value is None:
                self._queue.append((withdraw, key.decode(errors="replace")))
            else:
                self._queue.append((apply, decode(value)))

        return Compacted(settings, topic, take)

    def wait_current(self, timeout: float) -> None:
        for reader in self._readers:
            reader.wait_current(timeout)

    def drain(self) -> bool:
        """True if the catalogue changed."""
        before = self.catalog.version
        self.catalog.pass_time(self._now_ms())
        while self._queue:
            apply, record = self._queue.popleft()
            apply(record)
        return self.catalog.version != before

    def block(self, item: str, until: int | None) -> None:
        """An item that comes on the block list, or goes (None). From any thread."""
        self._queue.append((lambda end: self.catalog.block(item, end), until))

    def stop(self) -> None:
        for reader in self._readers:
            reader.stop()


def checked(decode: Decoder, check: Callable[[Record], None]) -> Callable[[bytes], Record]:
    """Decodes and checks: either raises BadRecord, for which a `Compacted` skips the record and shows why."""

    def read(value: bytes) -> Record:
        record = decode(value)
        check(record)
        return record

    return read


def _keep(key: str) -> None:
    """A vector's row is never taken back: what was served must stay readable."""


class LiveReleases:
    """Follows models.releases: the pointer of the highest epoch says which release serves a task."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        tasks: Sequence[str],
        catalog: Catalogue,
        *,
        engines: Turns,
        builds: Executor,
        shadows: Shadows,
        metrics: Metrics,
        on_failure: Callable[[BaseException], object],
        stagger: Callable[[], float],
    ) -> None:
        """`stagger`, `on_failure`: as of Swaps, which says what becomes of a pointer."""
        self._settings, self._catalog, self._tasks = settings, catalog, tuple(tasks)
        self._store = ReleaseStore(settings.release_store, cache=settings.data_dir / "release-cache")
        self.swaps = Swaps(
            settings.swap, catalog, self._load, self._table,
            engines=engines, builds=builds, shadows=shadows, metrics=metrics, on_failure=on_failure, stagger=stagger,
        )  # fmt: skip
        self.slots: Mapping[str, Slot] = self.swaps.slots
        self._decode = Decoder(registry, "model_release")
        self._reader = Compacted(settings, settings.topics.releases, self._apply)

    @property
    def cold(self) -> tuple[str, ...]:
        """Tasks that have no warm engine yet."""
        return tuple(task for task in self._tasks if task not in self.slots)

    def lacks(self, task: str) -> str:
        """Of a cold task: what it waits for, in words."""
        return self.swaps.waits.get(task) or f"there is no live release of {task} on {self._settings.topics.releases}"

    def wait_current(self, timeout: float) -> None:
        """Returns when the topic was read to its end; from then on releases are built."""
        self._reader.wait_current(timeout)
        self.swaps.start()

    def adopt_newest(self) -> None:
        """A task that no pointer was ever written for takes the store's newest release, if there is one."""
        for task in self._tasks:
            if task not in self.swaps.epochs and (versions := self._store.list(task)):
                log.warning("no release of %s is pointed to; taking the newest, %s", task, versions[-1])
                self.swaps.point(task, versions[-1], 0)

    async def run(self) -> None:
        """Swaps, until cancelled. Before it runs, a task's first release is taken and no other."""
        while True:
            self.swaps.tick(time.monotonic())
            await asyncio.sleep(TICK_S)

    def stop(self) -> None:
        self._reader.stop()

    def refresh(self) -> Future[None]:
        """Takes over a changed catalogue: new rows are encoded, candidates counted anew."""
        return self.swaps.refresh()

    def _apply(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        record = self._decode(value)
        if record["kind"] == "pointer" and record["task"] in self._tasks:
            self.swaps.point(record["task"], record["version"], record["epoch"])

    def _load(self, task: str, version: str) -> Loaded:
        """On the build thread; raises ReleaseError, EngineError."""
        engine = self._settings.engine
        beside = task in self.slots
        if engine.threads == 1 and beside:
            step_back()
        loaded = load(
            self._store.open(task, version),
            backend=engine.backend,
            precision=engine.precision,
            buckets=engine.buckets,
            threads=engine.threads,
            ahead=beside,
        )
        check_rows(make_task(task), loaded)
        check_encoder(loaded, self._catalog.encoder)
        check_pool(loaded, selections(self._settings).get(task, PLAIN))
        return loaded

    def _table(self, loaded: Loaded) -> None:
        catalog = self._catalog
        rows = len(catalog)
        bias = catalog.candidate_bias()[:rows] + prior_of(loaded, catalog.items, rows)
        loaded.refresh(
            catalog.text[:rows], catalog.scalars[:rows], catalog.kind[:rows], np.maximum(bias, NOT_A_CANDIDATE)
        )


def check_rows(task: Task, loaded: Loaded) -> None:
    """Raises ReleaseError where the release reads other features than this version of the task makes."""
    given = task.inputs(np.zeros(1, task.features), Lookups(loaded.table))
    for spec in loaded.engine.signature.inputs:
        if spec.batched and ((found := given.get(spec.name)) is None or not spec.fits(found)):
            made = "nothing" if found is None else f"{found.dtype} {found.shape[1:]}"
            raise ReleaseError(
                f"{task.name}/{loaded.release} is of another version of the task's features",
                where=f"input {spec.name}",
                expected=f"{spec.dtype} {spec.shape(1)[1:]}, and this version makes {made}",
                todo="train a release with this version (`headrace train`), or run the version that made it",
            )


def selections(settings: Settings) -> dict[str, Selection]:
    """What is chosen of a task's rankings, by task."""
    return {Recommendation.name: Selection(**settings.recommendations.model_dump())}


def check_pool(loaded: Loaded, selection: Selection) -> None:
    """Raises ReleaseError where the release cannot leave out what is to be left out."""
    if selection.chooses and not any(spec.name == WITHHELD for spec in loaded.engine.signature.inputs):
        raise ReleaseError(
            f"{loaded.source.task}/{loaded.release} is from before items could be left out",
            where=f"what is to be chosen: {selection.text}",
            expected=f"a release with the input {WITHHELD!r}",
            todo="train a release with this version (`headrace train`), or choose nothing",
        )


def check_encoder(loaded: Loaded, encoder: str) -> None:
    """Raises ReleaseError where the release has learned another encoder's vectors than the catalogue holds."""
    learned = loaded.source.manifest.trained.get("encoder")
    if learned and encoder and learned != encoder:
        raise ReleaseError(
            f"{loaded.source.task}/{loaded.release} has learned vectors of encoder {learned}",
            where=f"the catalogue's vectors, of encoder {encoder}",
            expected="vectors of the encoder that it learned",
            todo="name that encoder's topic in topics.vectors, or train a release on this one (`headrace train`)",
        )


def prior_of(loaded: Loaded, items: Mapping[str, int], rows: int) -> NDArray[np.float32]:
    """(rows,) the release's popularity prior by catalogue row; 0 for items that it has not seen."""
    prior = np.zeros(rows, np.float32)
    path: Path = loaded.source.folder / PRIOR
    if PRIOR in loaded.source.manifest.files:
        for ident, value in json.loads(path.read_text()).items():
            row = items.get(ident, 0)
            if 0 < row < rows:
                prior[row] = value
    return prior
