"""The flush: a copy of the changed rows, a commit of what they hold, and their way into the changelog and the store.
Saved state never passes the committed offset, or a crash would score an event on a history that holds its future.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from faust.types import TP

from streams.changelog import Changelog, Frontier
from streams.intake import Intake
from streams.metrics import Metrics
from streams.state import UserState
from streams.state.snapshot import Snapshot
from streams.store import UserStore

TURNS = 4
"""A flush of all partitions at once keeps both processors busy for a moment, and every event of that moment waits."""
ROWS_AT_ONCE, PAUSE_S = 16, 0.0005
IDLE_FLUSH_S = 6 * 3600.0  # a transactional id that writes nothing for a week is forgotten by the broker


class Commits(Protocol):
    """The transport's consumer: see streams.transport.Consumer."""

    async def commit_now(self) -> bool: ...

    def committed(self) -> Mapping[TP, int]: ...


class Flusher:
    """Writes the partitions in `owned`; one flush at a time, never beside a rebalance (`lock`).

    Scoring goes on: the copy is made between two micro-batches, and waits until all that it holds is acknowledged and
    committed. (Draining first, then copying, held every event up for 25 to 50 ms at each flush.)
    """

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
        self.absorbed: Mapping[TP, int] = {}  # of each input the next offset to absorb; the loop moves it on
        self._written: dict[int, float] = {}

    async def hold(self) -> None:
        """No flush begins until `held` is taken back. Returns when none runs; a restore may go on meanwhile."""
        self.held = True
        async with self._running:
            pass

    async def flush(
        self, commits: Commits, score_ends: Mapping[str, Mapping[int, int]], turn: int | None = None
    ) -> None:
        """Of every TURNS-th partition, each its turn; without `turn`, of all.

        Does nothing where nothing changed, and nothing while a rebalance is on: the older frontier still holds.
        Raises Fenced where another worker has taken a partition over, ProduceFailed, BrokerUnavailable.
        """
        async with self.lock, self._running:
            started = time.perf_counter()
            ours = sorted(self.owned) if turn is None else sorted(self.owned)[turn % TURNS :: TURNS]
            due = [partition for partition in ours if self._due(partition, started)]
            if not due or self.held:
                return
            # Without an await in between: the rows hold exactly what comes before the frontiers.
            frontiers = {partition: self._frontier(partition, score_ends) for partition in due}
            snapshot = self._state.snapshot(due)
            await self._intake.settled()
            await commits.commit_now()
            if self.held or not self._committed(frontiers, commits):
                self._state.abandoned(snapshot)
                return
            for partition, frontier in frontiers.items():
                await asyncio.to_thread(self._write, partition, snapshot, frontier)
                self._written[partition] = started
            self._state.saved(snapshot)
            self._metrics.flush_seconds.observe(time.perf_counter() - started)
            self._metrics.flushed_rows.inc(len(snapshot))

    def _due(self, partition: int, now: float) -> bool:
        return bool(self._state.dirty(partition)) or now - self._written.get(partition, 0.0) > IDLE_FLUSH_S

    def _write(self, partition: int, snapshot: Snapshot, frontier: Frontier) -> None:
        records = list(_paced(snapshot.records(partition)))
        position = self._changelog.flush(partition, records, frontier)
        self._store.write(partition, records, position)

    def _frontier(self, partition: int, score_ends: Mapping[str, Mapping[int, int]]) -> Frontier:
        scores = {task: ends.get(partition, 0) for task, ends in score_ends.items()}
        return Frontier(self.reached(partition), scores, time.time_ns() // 1_000_000)

    def reached(self, partition: int) -> tuple[int, int, int]:
        """Of each input the next offset to absorb."""
        places = [TP(topic, partition) for topic in self._topics]
        clicks, orders, impressions = (max(self.absorbed.get(tp, 0), self.resume.get(tp, 0)) for tp in places)
        return clicks, orders, impressions

    def _committed(self, frontiers: Mapping[int, Frontier], commits: Commits) -> bool:
        """Whether all that the frontiers include is committed, or was when recovery left it there."""
        committed = commits.committed()
        return all(
            max(committed.get(tp := TP(topic, partition), 0), self.resume.get(tp, 0)) >= offset
            for partition, frontier in frontiers.items()
            for topic, offset in zip(self._topics, frontier.inputs, strict=True)
        )


def _paced(rows: Iterable[tuple[bytes, bytes | None]]) -> Iterator[tuple[bytes, bytes | None]]:
    """Packing holds the interpreter: it lets go after every few rows, so that scoring need not wait."""
    for number, row in enumerate(rows, 1):
        yield row
        if not number % ROWS_AT_ONCE:
            time.sleep(PAUSE_S)
