"""What a worker does when partitions come and go: lets go of the ones, brings the state of the others up.
In order with whoever has them before and after: nothing is acquired, and nothing said, for an assignment that is over.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from faust.types import TP

from streams.app import App
from streams.asking.service import Asking
from streams.changelog import Changelog
from streams.config import Settings
from streams.entity_worker import EntityWorker
from streams.flush import Flusher
from streams.loop import Loop
from streams.offsets import bounds
from streams.reporting import Reporter
from streams.restore import Recovery, until_it_works
from streams.scoring import Scorer
from streams.sender import Sender
from streams.store import UserStore
from streams.tenure import Moved, Tenure

CATCH_UP_S = 0.02


class Handover:
    """Hears of rebalances from the app it is given, on its event loop; made before the app joins the group."""

    def __init__(
        self,
        settings: Settings,
        app: App,
        scorer: Scorer,
        flusher: Flusher,
        loop: Loop,
        sender: Sender,
        changelog: Changelog,
        store: UserStore,
        entities: EntityWorker,
        asking: Asking,
        reporter: Reporter,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """`spawn` runs something beside; what it raises ends the worker."""
        self._settings, self._app, self._inputs = settings, app, scorer.names.inputs
        self._state, self._flusher, self._loop, self._sender = scorer.state, flusher, loop, sender
        self._changelog, self._store, self._entities = changelog, store, entities
        self._asking, self._reporter, self._spawn = asking, reporter, spawn
        self._recovery = Recovery(settings, scorer, changelog, store, reporter.progress)
        self._step: asyncio.Future[None] | None = None
        self.revocations = 0
        app.on_assigned(self.restore)
        app.on_partitions_revoked.connect(self._hold, weak=False)
        app.on_release(self.settled)

    async def _hold(self, *_: Any, **__: Any) -> None:
        """Before partitions go: no flush begins, and one under way ends; else their next owner fences it, and us."""
        self.revocations += 1
        self._asking.own(())
        await self._flusher.hold()

    async def settled(self, seconds: float | None = None) -> None:
        """Returns when nothing is being restored: that ends soon when the assignment has, as a restore asks for it."""
        if self._step is not None:
            await asyncio.wait([self._step], timeout=seconds)

    async def restore(self, assigned: set[TP], kept: set[TP]) -> None:
        """Before records flow. Raises Moved at the next partition at the latest, with those that are up by then."""
        tenure, flusher = self._app.share.tenure, self._flusher
        self._reporter.assigned = True
        self._asking.own(())
        mine = {tp.partition for tp in assigned if tp.topic in self._inputs}
        current = {tp.partition for tp in kept if tp.topic in self._inputs} & flusher.owned
        try:
            async with flusher.lock:
                await self._bring_up(mine, current, tenure)
            await self._entities.restore(assigned, kept, tenure)
        except Moved as moved:
            up = {tp for tp in assigned if tp.topic in self._inputs and tp.partition in flusher.owned}
            raise Moved(kept | up) from moved
        if not flusher.held:
            self._asking.own(current)
            self._spawn(self._catch_up(mine - current))

    async def _bring_up(self, mine: set[int], current: set[int], tenure: Tenure) -> None:
        flusher = self._flusher
        self._let_go(flusher.owned - current)
        flusher.owned = set(current)
        try:
            for partition in sorted(mine - current):
                self._reporter.recovering = tuple(sorted(mine - flusher.owned))
                self._step = asyncio.ensure_future(self._recover(partition, tenure))
                self._step.add_done_callback(_heard)
                await asyncio.shield(self._step)
        except Moved:
            self._let_go(mine - flusher.owned)
            raise
        finally:
            self._reporter.recovering = ()
            flusher.held = tenure.over  # they go again

    def _let_go(self, partitions: set[int]) -> None:
        self._state.drop(partitions)
        for partition in partitions:
            self._changelog.release(partition)
            self._store.close(partition)

    async def _recover(self, partition: int, tenure: Tenure) -> None:
        now_ms = time.time_ns() // 1_000_000
        restored = await until_it_works(f"partition {partition}", self._recovery.run, partition, now_ms, tenure)
        resume = {TP(topic, partition): at for topic, at in zip(self._inputs, restored.resume, strict=True)}
        self._flusher.resume.update(resume)
        self._loop.position.update(resume)
        for task, offset in restored.scores.items():
            self._sender.ends[task][partition] = offset
        if restored.window is not None:
            tenure.check()
            await self._loop.say(restored.window, resume)
        self._flusher.owned.add(partition)

    async def _catch_up(self, partitions: set[int]) -> None:
        """Requests are answered for new partitions when what their topics hold by now is read: a predecessor's answer
        to the same event may be among it.
        """
        revocations = self.revocations
        places = [(topic, partition) for topic in self._inputs for partition in sorted(partitions)]
        found = await until_it_works("the ends of the input topics", bounds, self._settings, places)
        waiting = {TP(*place): end for place, (_, end) in found.items()}
        while self.revocations == revocations:
            waiting = {tp: end for tp, end in waiting.items() if not self._reporter.reached(tp, end)}
            if not waiting:
                self._asking.own(self._flusher.owned)
                return
            await asyncio.sleep(CATCH_UP_S)


def _heard(step: "asyncio.Future[None]") -> None:
    """Whoever waited for it may have been cancelled."""
    if not step.cancelled():
        step.exception()
