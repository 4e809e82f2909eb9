"""Puts together what scoring stands on: contracts, catalogue, shared entities, live releases.
Whatever is away is waited for, and said; nothing here reads an event.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from engines.turns import Turns
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.catalog import Catalogue
from streams.codecs import Names, make_codecs
from streams.compacted import Compacted
from streams.config import Settings
from streams.deadletters import carried_bytes
from streams.entities import EntityView
from streams.live import CatalogueFeed, LiveReleases, selections
from streams.metrics import Metrics
from streams.policies import PolicyFeed
from streams.privacy.ledger import Ledger
from streams.privacy.pseudonyms import ingesting
from streams.privacy.sealed_letters import closing
from streams.restore import until_it_works
from streams.scoring import Scorer
from streams.shadow import Shadows
from streams.state import UserState
from streams.store import UserStore
from streams.tasks.base import Task
from streams.telemetry.contract import make_traces

if TYPE_CHECKING:
    from streams.telemetry.spans import Traces

READ_TIMEOUT_S = 60.0
COLD_POLL_S = 0.2


@dataclass(slots=True)
class Assembly:
    """Grows as parts become ready. `waiting` says in words what is still missing; `scorer` is the last to come."""

    engines: Turns = field(default_factory=Turns)
    builds: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "builds"))
    catalog: Catalogue = field(default_factory=Catalogue)
    waiting: tuple[str, ...] = ("the schema registry has not answered yet",)
    feed: CatalogueFeed | None = None
    live: LiveReleases | None = None
    shadows: Shadows | None = None
    forgotten: Ledger | None = None
    scorer: Scorer | None = None
    traces: "Traces | None" = None
    _closers: list[Callable[[], None]] = field(default_factory=list)

    async def build(
        self,
        settings: Settings,
        registry: Registry,
        tasks: Sequence[Task],
        names: Names,
        store: UserStore,
        metrics: Metrics,
        *,
        on_failure: Callable[[BaseException], object],
        stagger: Callable[[], float],
    ) -> Scorer:
        """`on_failure` hears of a release that cannot be taken while its task has none; `stagger`: see Swaps."""
        if (traces := make_traces(settings)) is not None:
            self.traces = traces
            self._closers.append(traces.close)
        codecs = await until_it_works("the schema registry", make_codecs, registry, names, tasks)
        codecs = replace(codecs, inputs=tuple(ingesting(settings, decoder) for decoder in codecs.inputs))
        self.waiting = ("the catalogue is not read yet",)
        self.feed = CatalogueFeed(settings, registry, self.catalog)
        self._closers.append(self.feed.stop)
        entities = EntityView(Decoder(registry, "entity_state"))
        view = Compacted(settings, settings.topics.entity_state, entities.apply)
        self._closers.append(view.stop)
        policies = PolicyFeed(settings, registry, self.feed.block)
        self._closers.append(policies.stop)
        self.forgotten = Ledger(settings, registry)
        self._closers.append(self.forgotten.stop)
        parts = (("the catalogue", self.feed), ("shared entities", view), ("policies and lists", policies))
        for what, reader in (*parts, ("who was forgotten", self.forgotten)):
            await until_it_works(what, reader.wait_current, READ_TIMEOUT_S)
        self.feed.drain()
        self.shadows = Shadows(
            tasks, self.catalog, codecs.shadow, names.shadow, self.engines, metrics, policies.standing,
            selections=selections(settings),
        )  # fmt: skip
        self.live = LiveReleases(
            settings, registry, settings.tasks, self.catalog, engines=self.engines, builds=self.builds,
            shadows=self.shadows, metrics=metrics, on_failure=on_failure, stagger=stagger,
        )  # fmt: skip
        self._closers.append(self.live.stop)
        await until_it_works("releases", self.live.wait_current, READ_TIMEOUT_S)
        while cold := self.live.cold:
            await asyncio.to_thread(self.live.adopt_newest)
            self.live.swaps.tick(time.monotonic())  # what waits for the store is tried again
            self.waiting = tuple(map(self.live.lacks, cold))
            await asyncio.sleep(COLD_POLL_S)
        self.waiting = ()
        self.scorer = Scorer(
            tasks, self.live.slots, codecs, names,
            UserState(settings.state.slots, store=store, dedupe_per_user=settings.state.dedupe_per_user),
            self.catalog, entities,
            partitions=settings.partitions, max_message_bytes=settings.max_message_bytes,
            deadlines_ms={task.name: settings.deadline_ms(task.name) for task in tasks},
            carried_bytes=carried_bytes(settings), policies=policies.standing, selections=selections(settings),
        )  # fmt: skip
        self.scorer.kept = self.forgotten.kept
        self.scorer.outputs.by_event = settings.privacy.scores_by_event
        self.scorer.outputs.close = closing(settings)
        return self.scorer

    def close(self) -> None:
        """Stops the readers and the threads; engines are freed with them."""
        for close in reversed(self._closers):
            close()
        self.builds.shutdown(cancel_futures=True)  # what it has built by then, it hands to the engines
        self.engines.close()
