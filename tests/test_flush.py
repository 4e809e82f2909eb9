"""The flush beside a loop that goes on: whatever is written is the state at its frontier, and never past the commit."""

import asyncio
import random
from collections.abc import Iterable, Mapping
from typing import Any, cast

from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.batch import TOPICS
from streams.changelog import Changelog, Frontier
from streams.flush import TURNS, Flusher
from streams.intake import Intake
from streams.metrics import Metrics
from streams.state import UserState
from streams.store import UserStore
from tests.state_events import Event, columns, random_events

TASKS = {"fraud": {0: 7, 1: 9}}


class World:
    """A loop, a group and a changelog in memory. Batches are absorbed in order and finished in any."""

    def __init__(self, stream: list[Event]) -> None:
        self.stream, self.at = stream, 0
        self.state = UserState(slots=64)
        self.position: dict[TP, int] = {}
        self.open: dict[int, list[Event]] = {}
        self.turn, self.refusing = 0, False
        self.on_broker: dict[TP, int] = {}
        self.rows: dict[int, dict[bytes, bytes]] = {0: {}, 1: {}}
        self.frontiers: dict[int, Frontier] = {}
        self._changed = asyncio.Event()
        self.flusher = Flusher(
            cast(Intake, self), self.state, cast(Changelog, self), cast(UserStore, self), Metrics(), TOPICS
        )
        self.flusher.owned, self.flusher.absorbed = {0, 1}, self.position

    # -- the loop

    def absorb(self, count: int) -> None:
        events, self.at = self.stream[self.at : self.at + count], self.at + count
        if events:
            self.state.absorb(columns(events))
            self.turn += 1
            self.open[self.turn] = events
            for event in events:
                self.position[TP(TOPICS[event.topic], event.partition)] = event.offset + 1

    def finish(self, dice: random.Random) -> None:
        if self.open:
            del self.open[dice.choice(list(self.open))]
            self._changed.set()

    async def settled(self) -> None:
        turn = self.turn
        while any(number <= turn for number in self.open):
            self._changed.clear()
            await self._changed.wait()

    # -- the group

    def done(self) -> dict[TP, int]:
        """As far as every event is finished, of each input."""
        reached = dict(self.position)
        for event in (event for events in self.open.values() for event in events):
            tp = TP(TOPICS[event.topic], event.partition)
            reached[tp] = min(reached[tp], event.offset)
        return reached

    async def commit_now(self) -> bool:
        await asyncio.sleep(0)
        if not self.refusing:
            self.on_broker = self.done()
        return not self.refusing

    def committed(self) -> Mapping[TP, int]:
        return self.on_broker

    # -- the changelog and the store

    def flush(self, partition: int, records: Iterable[tuple[bytes, bytes]], frontier: Frontier) -> int:
        for topic, offset in zip(TOPICS, frontier.inputs, strict=True):
            assert offset <= self.on_broker.get(TP(topic, partition), 0)
        self.rows[partition].update(records)
        self.frontiers[partition] = frontier
        return 0

    def write(self, partition: int, records: Any, position: int) -> None: ...

    # -- what the property says

    def restored(self, partition: int) -> dict[bytes, bytes]:
        """The rows that a successor ends with: what is written, and what comes after its frontier."""
        state, frontier = UserState(slots=64), self.frontiers.get(partition)
        for key, packed in self.rows[partition].items():
            state.load(key, packed)
        starts = frontier.inputs if frontier else (0, 0, 0)
        rest = [
            event
            for event in self.stream[: self.at]
            if event.partition == partition and event.offset >= starts[event.topic]
        ]
        if rest:
            state.absorb(columns(rest))
        return self.rows[partition] | dict(state.snapshot([partition]).rows(partition))

    def undisturbed(self, partition: int) -> dict[bytes, bytes]:
        state = UserState(slots=64)
        if self.at:
            state.absorb(columns(self.stream[: self.at]))
        return dict(state.snapshot([partition]).rows(partition))


@given(st.integers(0, 2**32), st.lists(st.sampled_from("aaaaffFwwr"), min_size=30, max_size=80))
@settings(deadline=None, max_examples=60)
def test_what_is_written_and_what_follows_its_frontier_is_the_whole_state(seed: int, steps: list[str]) -> None:
    async def story() -> None:
        dice, world = random.Random(seed), World(random_events(seed, 120, 8))
        flush: asyncio.Future[None] | None = None
        for step in steps:
            if step == "a":
                world.absorb(dice.randrange(1, 6))
            elif step == "f":
                world.finish(dice)
            elif step == "F":
                while world.open:
                    world.finish(dice)
            elif step == "w" and (flush is None or flush.done()):
                turn = dice.choice([None, 0, 1])
                flush = asyncio.ensure_future(world.flusher.flush(world, TASKS, turn))
            elif step == "r":
                world.refusing = not world.refusing
            await asyncio.sleep(0.001 * dice.randrange(2))
            if flush is None or flush.done():
                for partition in (0, 1):
                    assert world.restored(partition) == world.undisturbed(partition)
        world.refusing = False
        while world.open:
            world.finish(dice)
        if flush is not None:
            await flush
        await world.flusher.flush(world, TASKS)
        for partition in (0, 1):
            assert world.rows[partition] == world.undisturbed(partition)

    asyncio.run(story())


def test_each_partition_is_written_in_its_turn_and_none_twice_in_a_round() -> None:
    async def story() -> None:
        world = World(random_events(5, 60, 6))
        world.absorb(60)
        while world.open:
            world.finish(random.Random(1))
        written = []
        for turn in range(TURNS, 2 * TURNS):
            world.frontiers.clear()
            await world.flusher.flush(world, TASKS, turn)
            written.append(list(world.frontiers))
        assert written == [[0], [1], [], []]
        for partition in (0, 1):
            assert world.rows[partition] == world.undisturbed(partition)

    asyncio.run(story())


def test_a_flush_that_a_rebalance_overtakes_writes_nothing_and_the_next_one_writes_it_all() -> None:
    async def story() -> None:
        world = World(random_events(3, 60, 6))
        world.absorb(60)
        flush = asyncio.ensure_future(world.flusher.flush(world, TASKS))
        await asyncio.sleep(0)
        holding = asyncio.ensure_future(world.flusher.hold())
        await asyncio.sleep(0)
        world.finish(random.Random(1))
        await asyncio.gather(flush, holding)
        assert world.frontiers == {}
        await world.flusher.flush(world, TASKS)
        assert world.frontiers == {}
        world.flusher.held = False
        await world.flusher.flush(world, TASKS)
        for partition in (0, 1):
            assert world.rows[partition] == world.undisturbed(partition)
            assert world.frontiers[partition].scores == {"fraud": TASKS["fraud"][partition]}

    asyncio.run(story())
