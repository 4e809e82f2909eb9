"""Synchronous scoring as a part of the worker: made before anything can be scored, in service when it can.
The worker says which partitions may be answered for; here that is handed on.
"""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, cast

from aiohttp import web
from faust.assignor.partition_assignor import PartitionAssignor
from yarl import URL

from engines.turns import Turns
from schemas.registry import Registry
from schemas.wire import Encoder
from streams.app import App
from streams.asking.answers import Answers
from streams.asking.asker import Asker
from streams.asking.door import Bearers, Door
from streams.asking.header import Seal
from streams.asking.outbox import Outbox
from streams.asking.pages import Pages
from streams.asking.peers import Peers, Shares, own_url
from streams.config import Settings
from streams.events import EVENT_TYPES
from streams.metrics import Metrics
from streams.privacy.pseudonyms import pseudonyms, publishing
from streams.producer import Producer
from streams.scoring import Scorer
from streams.security import reveal
from streams.tasks.base import Task
from streams.work import Work

if TYPE_CHECKING:
    from streams.telemetry.spans import Traces

DRAIN_S = 5.0


class Asking:
    """All on the app's event loop. Does nothing where `ask.enabled` is false, but that answers are still believed."""

    def __init__(self, settings: Settings, app: App, tasks: Sequence[Task], metrics: Metrics) -> None:
        self._settings, self._app, self._tasks, self._metrics = settings, app, tasks, metrics
        key, self._bearers = reveal(settings.ask.key) or "", Bearers(settings)
        self._seal = Seal(key.encode())
        door = Door(
            self._bearers.find, settings.web.host, key=key,
            without_token=settings.ask.enabled and settings.ask.without_token,
        )  # fmt: skip
        self._peers = Peers(settings.topics.orders, self._shares)
        self._pages = Pages(
            tasks, door, self._peers, metrics, partitions=settings.partitions, deadline_ms=settings.ask.deadline_ms
        )
        self._pages.publishing = publishing(settings)
        self._outbox: Outbox | None = None
        self._answers = Answers()

    def add_to(self, app: web.Application) -> None:
        if self._settings.ask.enabled:
            self._pages.add_to(app)

    def listening(self, port: int) -> None:
        """Before the app joins the group: with that the other workers learn the address."""
        self._peers.own = own_url(self._settings.ask.url, self._settings.web.host, port)
        self._app.conf.canonical_url = URL(self._peers.own)

    def encoders(self, registry: Registry) -> dict[int, Encoder]:
        """Registers the events' contracts, as any client that publishes. Raises RegistryUnavailable: retry."""
        inputs = self._settings.topics.inputs
        return {kind.topic: Encoder(registry, inputs[kind.topic], kind.schema) for kind in EVENT_TYPES}

    def begin(
        self,
        scorer: Scorer,
        engines: Turns,
        producer: Producer,
        encoders: dict[int, Encoder],
        failed: Callable[[Work], None],
        traces: "Traces | None" = None,
    ) -> Asker:
        """Before the first record is read. `failed`: see Asker, whose `run` the caller runs."""
        self._pages.traces = traces
        self._answers = scorer.answers = Answers(self._tasks, scorer.codecs.said, self._seal)
        self._outbox = outbox = Outbox(producer, self._answers, scorer.names.inputs, self._metrics)
        self._pages.asker = asker = Asker(
            scorer, self._answers, outbox, engines, self._app.lease, encoders, self._settings.ask.max_in_flight, failed
        )
        if (known := pseudonyms(self._settings)) is not None:
            asker.ingest = known.event
        return asker

    def own(self, partitions: Collection[int]) -> None:
        """From now on only these may be answered for. None: while partitions come and go."""
        if self._pages.asker is not None:
            self._pages.asker.own(partitions)
        if partitions:
            self._answers.keep(partitions)

    async def release(self) -> None:
        """Before partitions go: nothing more is answered, and what was answered is published."""
        self.own(())
        if self._outbox is not None:
            await self._outbox.drain(DRAIN_S)

    async def close(self) -> None:
        await self._peers.close()
        self._bearers.close()

    def _shares(self) -> Shares:
        return cast(PartitionAssignor, self._app.assignor).external_topics_metadata()
