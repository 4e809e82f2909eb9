"""The intake without a broker: whatever the order of arrivals, acknowledgements and parks."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from faust.types import TP
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.errors import ProduceFailed
from streams import intake as module
from streams.batches import Ledger, RecordBatch
from streams.intake import Intake, MicroBatch
from streams.raw import RawRecord

CLICKS, ORDERS = TP("clicks", 0), TP("orders", 0)


def batch(tp: TP, offsets: Iterable[int], at: Callable[[int], int] = lambda offset: 0, size: int = 1) -> RecordBatch:
    records = [RawRecord(*tp, offset, at(offset), None, bytes(size), ()) for offset in offsets]
    return RecordBatch(tp, records)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Setup:
    intake: Intake
    clock: Clock
    paused: set[TP]
    acknowledged: list[RecordBatch]

    def offer(self, batch: RecordBatch) -> RecordBatch:
        self.intake.offer(batch, lambda: self.acknowledged.append(batch))
        return batch

    def take(self) -> MicroBatch:
        taken = self.intake.take_now()
        assert taken is not None
        return taken


def make(max_events: int = 4, max_wait: float = 1.0) -> Setup:
    clock, paused = Clock(), set[TP]()
    intake = Intake(
        max_events=max_events,
        max_wait=max_wait,
        pause=paused.add,
        resume=paused.discard,
        clock=clock,
        wall=lambda: 1e9,
    )
    return Setup(intake, clock, paused, [])


def offsets(micro: MicroBatch, tp: TP) -> list[int]:
    return [record.offset for part in micro.parts if part.tp == tp for record in part.records]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


class Interleavings(RuleBasedStateMachine):
    """Two topics of two partitions; records are offered, taken, finished and parked in any order."""

    @initialize(max_events=st.integers(1, 9))
    def start(self, max_events: int) -> None:
        self.world = make(max_events)
        self.next = {TP(topic, number): 0 for topic in ("clicks", "orders") for number in (0, 1)}
        self.offered: list[RecordBatch] = []
        self.handed: dict[TP, list[int]] = {tp: [] for tp in self.next}
        self.finished: dict[TP, set[int]] = {tp: set() for tp in self.next}
        self.out: list[MicroBatch] = []
        self.counted: list[MicroBatch] = []
        """Handed out and not finished, in order: those that are done wait here for the older ones."""

    @rule(
        topic=st.sampled_from(["clicks", "orders"]),
        number=st.integers(0, 1),
        gaps=st.lists(st.integers(1, 3), min_size=1, max_size=12),
        times=st.integers(0, 5000),
    )
    def offer(self, topic: str, number: int, gaps: list[int], times: int) -> None:
        tp = TP(topic, number)
        found = []
        for gap in gaps:
            self.next[tp] += gap
            found.append(self.next[tp])
        self.offered.append(self.world.offer(batch(tp, found, lambda offset: offset * times)))

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.world.clock.now += seconds

    @rule()
    def take(self) -> None:
        micro = self.world.intake.take_now()
        if micro is None:
            return
        assert 0 < len(micro) <= self.world.intake.max_events
        for part in micro.parts:
            self.handed[part.tp] += [record.offset for record in part.records]
        self.out.append(micro)
        self.counted.append(micro)
        self.newest = micro

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        micro = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        micro.done()
        micro.done()
        while self.counted and self.counted[0] not in self.out:
            for part in self.counted.pop(0).parts:
                self.finished[part.tp] |= {record.offset for record in part.records}

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def computed(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.out)).computed()

    @precondition(lambda self: self.out and self.out[-1] is self.newest)
    @rule(data=st.data())
    def park(self, data: st.DataObject) -> None:
        """The newest micro-batch is decoded: some partition of it cannot go on from some record."""
        micro = self.out[-1]
        tp = data.draw(st.sampled_from(sorted({part.tp for part in micro.parts})))
        (part,) = [part for part in micro.parts if part.tp == tp]
        start = data.draw(st.integers(0, len(part)))
        returned = {record.offset for record in part.records[start:]}
        self.world.intake.park(part, start)
        assert len(part) == start
        self.handed[tp] = [offset for offset in self.handed[tp] if offset not in returned]

    @rule(topic=st.sampled_from(["clicks", "orders"]), number=st.integers(0, 1))
    def unpark(self, topic: str, number: int) -> None:
        self.world.intake.unpark(TP(topic, number))

    @invariant()
    def each_partition_is_handed_out_in_order_and_once(self) -> None:
        if hasattr(self, "world"):
            for tp, handed in self.handed.items():
                offered = [record.offset for b in self.offered if b.tp == tp for record in b.records]
                assert handed == offered[: len(handed)]

    @invariant()
    def a_batch_is_acknowledged_when_all_its_records_and_all_before_them_are_finished(self) -> None:
        if hasattr(self, "world"):
            for b in self.offered:
                finished = [record.offset in self.finished[b.tp] for record in b.records]
                assert b.done == (finished.index(False) if False in finished else len(b))
                assert self.world.acknowledged.count(b) == all(finished)

    @invariant()
    def only_parked_partitions_are_paused_as_long_as_little_is_queued(self) -> None:
        if hasattr(self, "world"):
            assert self.world.paused == self.world.intake.parked

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for tp in self.next:
            self.world.intake.unpark(tp)
        while self.world.intake.queued or self.out:
            for micro in self.out:
                micro.done()
            self.out = []
            if self.world.intake.queued:
                self.out.append(self.world.take())
        assert sorted(map(id, self.world.acknowledged)) == sorted(map(id, self.offered))
        assert self.world.paused == set()


Interleavings.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestInterleavings = Interleavings.TestCase


def test_an_idle_loop_gets_a_single_event_at_once() -> None:
    world = make()
    world.offer(batch(CLICKS, [0]))
    assert offsets(world.take(), CLICKS) == [0]


def test_a_busy_engine_lets_events_gather_until_the_oldest_has_waited_long_enough() -> None:
    world = make(max_wait=1.0)
    world.offer(batch(CLICKS, [0]))
    first = world.take()
    world.offer(batch(CLICKS, [1]))
    assert world.intake.take_now() is None
    world.clock.now = 0.9
    world.offer(batch(CLICKS, [2]))
    assert world.intake.take_now() is None
    world.clock.now = 1.0
    assert offsets(world.take(), CLICKS) == [1, 2]
    first.done()


def test_a_busy_engine_gets_a_full_micro_batch_at_once() -> None:
    world = make(max_events=4)
    world.offer(batch(CLICKS, [0]))
    world.take()
    world.offer(batch(CLICKS, [1, 2, 3, 4, 5]))
    assert offsets(world.take(), CLICKS) == [1, 2, 3, 4]
    assert world.intake.take_now() is None


def test_an_engine_that_has_computed_is_idle_although_its_outputs_are_not_acknowledged() -> None:
    world = make()
    world.offer(batch(CLICKS, [0]))
    world.take().computed()
    world.offer(batch(CLICKS, [1]))
    assert offsets(world.take(), CLICKS) == [1]


def test_partitions_share_a_micro_batch() -> None:
    world = make(max_events=4)
    world.offer(batch(TP("clicks", 0), range(100)))
    world.offer(batch(TP("clicks", 1), range(100)))
    micro = world.take()
    assert [len(offsets(micro, TP("clicks", number))) for number in (0, 1)] == [2, 2]


def test_a_micro_batch_is_filled_although_a_partition_has_less_than_its_share() -> None:
    world = make(max_events=10)
    world.offer(batch(TP("clicks", 0), range(100)))
    world.offer(batch(TP("clicks", 1), range(2)))
    assert len(world.take()) == 10


def test_an_order_does_not_overtake_the_clicks_before_it() -> None:
    world = make(max_events=10)
    minute = 60_000
    world.offer(batch(ORDERS, range(3), lambda offset: (offset + 1) * minute))
    world.offer(batch(CLICKS, range(30), lambda offset: offset * minute // 10))
    micro = world.take()
    assert offsets(micro, CLICKS) == list(range(10))
    assert offsets(micro, ORDERS) == []
    assert offsets(take_after(world, micro), ORDERS) == [0]


def take_after(world: Setup, micro: MicroBatch) -> MicroBatch:
    micro.done()
    return world.take()


def test_a_wrong_clock_of_one_client_holds_no_topic_back() -> None:
    world = make(max_events=10)
    world.offer(batch(ORDERS, range(2), lambda offset: 10**15))
    world.offer(batch(CLICKS, range(2), lambda offset: 10**12))
    micro = world.take()
    assert (offsets(micro, ORDERS), offsets(micro, CLICKS)) == ([0, 1], [0, 1])


def test_a_partition_is_paused_while_much_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUED_EVENTS", 8)
    world = make(max_events=3)
    world.offer(batch(CLICKS, range(8)))
    assert world.paused == {CLICKS}
    take_after(world, world.take())
    assert world.paused == set()


def test_a_partition_is_paused_while_its_queued_bytes_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUED_BYTES", 100)
    world = make(max_events=1)
    world.offer(batch(CLICKS, range(2), size=60))
    assert world.paused == {CLICKS}
    take_after(world, world.take())
    assert world.paused == set()


def test_a_parked_partition_holds_nobody_back_and_keeps_its_order() -> None:
    world = make(max_events=4)
    world.offer(batch(CLICKS, range(3)))
    micro = world.take()
    world.intake.park(micro.parts[0], 1)
    assert (world.paused, world.intake.parked) == ({CLICKS}, {CLICKS})
    world.offer(batch(CLICKS, range(3, 5)))
    world.offer(batch(ORDERS, range(2)))
    micro.done()
    second = world.take()
    assert (offsets(second, CLICKS), offsets(second, ORDERS)) == ([], [0, 1])
    second.done()
    world.intake.unpark(CLICKS)
    assert world.paused == set()
    assert offsets(world.take(), CLICKS) == [1, 2, 3, 4]


def test_take_waits_for_what_is_offered() -> None:
    async def story() -> None:
        world = make()
        taking = asyncio.ensure_future(world.intake.take())
        await asyncio.sleep(0)
        world.offer(batch(CLICKS, [7]))
        assert offsets(await taking, CLICKS) == [7]

    run(story())


def test_take_wakes_up_when_the_engine_becomes_idle() -> None:
    async def story() -> None:
        world = make(max_wait=1e6)
        world.offer(batch(CLICKS, [0]))
        first = await world.intake.take()
        world.offer(batch(CLICKS, [1]))
        taking = asyncio.ensure_future(world.intake.take())
        await asyncio.sleep(0)
        assert not taking.done()
        first.computed()
        assert offsets(await taking, CLICKS) == [1]

    run(story())


def test_what_was_handed_out_is_settled_when_it_is_done_whatever_is_handed_out_after() -> None:
    async def story() -> None:
        world, ledger = make(max_events=4), Ledger()
        big = batch(CLICKS, range(12))
        ledger.opened(big)
        world.offer(big)
        first, second = world.take(), None
        first.computed()
        second = world.take()
        second.computed()
        settling = asyncio.ensure_future(world.intake.settled())
        await asyncio.sleep(0)
        third = world.take()
        second.done()
        await asyncio.sleep(0)
        assert not settling.done()
        assert ledger.position(CLICKS) is None
        first.done()
        await settling
        assert ledger.position(CLICKS) == 8
        assert offsets(third, CLICKS) == [8, 9, 10, 11]

    run(story())


def test_what_is_committed_is_what_the_state_held_at_one_moment_whatever_is_done_first() -> None:
    world, ledger = make(), Ledger()
    taken = []
    for found in (batch(CLICKS, range(3)), batch(ORDERS, range(2)), batch(CLICKS, range(3, 5))):
        ledger.opened(world.offer(found))
        taken.append(world.take())
        taken[-1].computed()
    with_click, with_order, with_newest = taken
    with_order.done()
    assert (ledger.position(CLICKS), ledger.position(ORDERS)) == (None, None)
    with_click.done()
    assert (ledger.position(CLICKS), ledger.position(ORDERS)) == (3, 2)
    with_newest.done()
    assert (ledger.position(CLICKS), world.intake.unfinished) == (5, 0)


def test_revoked_partitions_are_dropped_once_what_was_handed_out_is_done() -> None:
    async def story() -> None:
        world, ledger = make(max_events=4), Ledger()
        first, second = batch(CLICKS, range(6)), batch(CLICKS, range(6, 9))
        for b in (first, second):
            ledger.opened(b)
            world.offer(b)
        micro = world.take()
        revoking = asyncio.ensure_future(world.intake.revoke())
        await asyncio.sleep(0)
        assert not revoking.done()
        micro.done()
        assert await revoking == [first, second]
        assert (world.intake.queued, world.acknowledged) == (0, [])
        assert ledger.position(CLICKS) == 4

    run(story())


def test_what_is_parked_while_its_partition_is_revoked_is_dropped_too() -> None:
    async def story() -> None:
        world = make(max_events=4)
        only = world.offer(batch(CLICKS, range(4)))
        micro = world.take()
        revoking = asyncio.ensure_future(world.intake.revoke())
        await asyncio.sleep(0)
        world.intake.park(micro.parts[0], 2)
        micro.done()
        assert await revoking == [only]
        assert (world.intake.queued, only.done, world.intake.parked) == (0, 2, set())

    run(story())


def test_a_failed_worker_lets_nobody_wait() -> None:
    async def story() -> None:
        world = make()
        world.offer(batch(CLICKS, range(3)))
        world.take()
        waiting = [asyncio.ensure_future(wait()) for wait in (world.intake.take, world.intake.settled)]
        revoking = asyncio.ensure_future(world.intake.revoke())
        await asyncio.sleep(0)
        world.intake.fail(ProduceFailed("refused"))
        assert await revoking == []
        for future in waiting:
            with pytest.raises(ProduceFailed, match="refused"):
                await future

    run(story())
