"""The flush: a barrier, a commit, a copy of the changed rows, and their way into the changelog and the local store.
Saved state never passes the committed offset, or a crash would score an event on a history that holds its future.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

from faust.types import TP

from streams.changelog import Changelog, Frontier
from streams.intake import Intake
from streams.metrics import Metrics
from streams.state import UserState
from streams.state.snapshot import Snapshot
from streams.store import UserStore

IDLE_FLUSH_S = 6 * 3600.0  # a transactional id that writes nothing for a week is forgotten by the broker


class Commits(Protocol):
    """The transport's consumer: see streams.transport.Consumer."""

    async def commit_now(self) -> bool: ...

    def committed(self) -> Mapping[TP, int]: ...


class Flusher:
    """Writes the partitions in `owned`; one flush at a time, never beside a rebalance (`lock`)."""

    def __init__(
        self,
        intake: Intake,
        state: UserState,
        changelog: Changelog,
        store: UserStore,
        metrics: Metrics,
        topics: tuple[str, ...],
    ) -> None:
        self._intake, self._state, self._changelog, self._store = intake, state, changelog, store
        self._metrics, self._topics = metrics, topics
        self.lock, self._running = asyncio.Lock(), asyncio.Lock()
        self.owned: set[int] = set()
        self.held = False  # from when partitions are revoked until they are restored
        self.resume: dict[TP, int] = {}  # where recovery left each input: the floor of what is committed
        self._written: dict[int, float] = {}

    async def hold(self) -> None:
        """No flush begins until `held` is taken back. Returns when none runs; a restore may go on meanwhile."""
        self.held = True
        async with self._running:
            pass

    async def flush(self, commits: Commits, score_ends: Mapping[str, Mapping[int, int]]) -> None:
        """Does nothing where nothing changed, and nothing while a rebalance is on: the older frontier still holds.

        Raises Fenced where another worker has taken a partition over, ProduceFailed, BrokerUnavailable.
        """
        async with self.lock, self._running:
            started = time.perf_counter()
            due = [partition for partition in self.owned if self._due(partition, started)]
            if not due or self.held:
                return
            await self._intake.drain()
            try:
                if not await commits.commit_now():
                    return
                frontiers = {partition: self._frontier(partition, commits, score_ends) for partition in due}
                snapshot = self._state.snapshot(due)
            finally:
                self._intake.resume()
            for partition, frontier in frontiers.items():
                await asyncio.to_thread(self._write, partition, snapshot, frontier)
                self._written[partition] = started
            self._state.saved(snapshot)
            self._metrics.flush_seconds.observe(time.perf_counter() - started)
            self._metrics.flushed_rows.inc(len(snapshot))

    def _due(self, partition: int, now: float) -> bool:
        return bool(self._state.dirty(partition)) or now - self._written.get(partition, 0.0) > IDLE_FLUSH_S

    def _write(self, partition: int, snapshot: Snapshot, frontier: Frontier) -> None:
        records = list(snapshot.records(partition))
        position = self._changelog.flush(partition, records, frontier)
        self._store.write(partition, records, position)

    def _frontier(self, partition: int, commits: Commits, score_ends: Mapping[str, Mapping[int, int]]) -> Frontier:
        committed = commits.committed()
        places = [TP(topic, partition) for topic in self._topics]
        inputs = tuple(max(committed.get(tp, 0), self.resume.get(tp, 0)) for tp in places)
        scores = {task: ends.get(partition, 0) for task, ends in score_ends.items()}
        return Frontier(inputs, scores, time.time_ns() // 1_000_000)
