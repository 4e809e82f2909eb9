"""For how long an assignment holds, and which partitions nobody else can have had since they were brought up."""

from functools import partial

import pytest
from faust.types import TP
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from streams.lease import Lease
from streams.tenure import Moved, Share, Tenure

PLACES = [TP("events.clicks", number) for number in range(4)]
SESSION_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lease() -> tuple[Lease, Clock]:
    clock = Clock()
    return Lease(SESSION_S, clock), clock


def test_a_tenure_is_over_when_it_is_taken_back_lost_or_the_process_stops() -> None:
    for end in ("taken", "lost", "stopped"):
        held, _ = lease()
        stopping: list[str] = []
        tenure = Tenure(held, partial(bool, stopping))
        tenure.check()
        if end == "taken":
            tenure.end()
        elif end == "lost":
            held.lose("unknown there")
        else:
            stopping.append(end)
        assert tenure.over
        with pytest.raises(Moved):
            tenure.check()


def test_nothing_goes_on_that_the_broker_has_not_confirmed_lately() -> None:
    held, clock = lease()
    tenure = Tenure(held, lambda: False)
    held.renew(clock.now)
    clock.now += SESSION_S + 1  # it was frozen, and does not know what became of its membership
    waited: list[float] = []

    def heartbeat(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            held.renew(clock.now)

    tenure.confirm(heartbeat)
    assert len(waited) == 3
    clock.now += SESSION_S + 1
    with pytest.raises(Moved):
        tenure.confirm(lambda _: held.lose("unknown there"))
    held.renew(clock.now)  # it has joined anew: that is another tenure
    with pytest.raises(Moved):
        tenure.confirm(lambda _: None)


class Shares(RuleBasedStateMachine):
    """Against a history of the group: who may have had what in each generation, whether we were told or not."""

    @initialize()
    def begin_anew(self) -> None:
        self.lease, self.clock = lease()
        self.share = Share(self.lease, lambda: False)
        self.generation = self.told = 7
        self.foreign: dict[TP, int] = dict.fromkeys(PLACES, self.generation)  # when another may have had it last
        self.up: dict[TP, int] = {}  # of what we brought up: in which generation that began
        self.restoring: tuple[set[TP], set[TP], int] | None = None

    @rule(mine=st.sets(st.sampled_from(PLACES)))
    def rebalance(self, mine: set[TP]) -> None:
        self.share.take()
        self.generation += 1
        for place in set(PLACES) - mine:
            self.foreign[place] = self.generation
        self.told = self.generation
        self.share.give(mine, self.generation)

    @rule()
    def rebalance_that_passes_without_us(self) -> None:
        self.generation += 1
        for place in PLACES:
            self.foreign[place] = self.generation

    @rule(mine=st.sets(st.sampled_from(PLACES)))
    def eviction(self, mine: set[TP]) -> None:
        self.lease.lose("unknown there")
        self.rebalance_that_passes_without_us()
        self.lease.renew(self.clock.now)
        self.rebalance(mine)

    @precondition(lambda self: self.restoring is None and not self.share.tenure.over)
    @rule()
    def begin(self) -> None:
        assigned, kept = self.share.begin()
        assert assigned == self.share.assigned
        if self.told == self.generation:  # else it will be told, and then what it does now counts for nothing
            assert all(self.up[place] > self.foreign[place] for place in kept), "another one had it meanwhile"
        self.restoring = assigned, kept, self.told

    @precondition(lambda self: self.restoring is not None)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        assert self.restoring is not None
        assigned, kept, began = self.restoring
        done = kept | data.draw(st.sets(st.sampled_from(sorted(assigned)))) if assigned else set()
        self.up |= dict.fromkeys(done - kept, began)
        self.share.done(done)
        self.restoring = None


TestShares = Shares.TestCase


def test_what_stays_through_an_assignment_that_nobody_restored_for_is_current_only_if_it_was_in_it() -> None:
    held, _ = lease()
    share = Share(held, lambda: False)
    share.give(set(PLACES), 1)
    share.begin()
    share.done(set(PLACES))
    for generation, mine in ((2, PLACES[:2]), (3, PLACES)):
        share.take()
        share.give(set(mine), generation)
    assert share.begin() == (set(PLACES), set(PLACES[:2]))
