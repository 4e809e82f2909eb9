"""A look at what would be said of an event: what absorbing it would say, and the state is as it was."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.state import Shape
from streams.state.memory import MemoryStore
from streams.state.peek import Peek
from tests.state_events import Event, click, columns, cut_up, long_streams, order, sizes
from tests.state_oracle import Seen, seen
from tests.state_runs import PARTITIONS, SHAPE, TINY, make_state, rows_of, take

shapes = st.sampled_from([TINY, SHAPE])
OWN = -2  # in place of the cut's own topic


def looked(peek: Peek, events: list[Event]) -> list[Seen]:
    absorbed = peek.look(columns(events))
    found = seen(absorbed, peek.gather(absorbed, np.arange(len(events))))
    return [blind(one, event) for one, event in zip(found, events, strict=True)]


def blind(one: Seen, event: Event) -> Seen:
    """Without the event's own topic in the cut: its offset is not known before it comes."""
    return one._replace(cut=tuple(OWN if topic == event.topic else at for topic, at in enumerate(one.cut)))


@settings(max_examples=100, deadline=None)
@given(long_streams, sizes, shapes, st.data())
def test_a_look_says_what_absorbing_would_say_and_leaves_the_state_as_it_was(
    stream: list[Event], lengths: list[int], shape: Shape, data: st.DataObject
) -> None:
    """Three rows for four users: some are in the arrays, some wait to be saved, some are in the store."""
    store = MemoryStore()
    state = make_state(shape, slots=3, store=store)
    before, last = stream[:-3], stream[-3:]
    for batch in cut_up(before, lengths, users=3):
        state.absorb(columns(batch))
        if data.draw(st.booleans(), "saved"):
            snapshot = state.snapshot(PARTITIONS)
            for partition in PARTITIONS:
                store.write(partition, snapshot.records(partition), 0)
            state.saved(snapshot)
    peek = Peek(state, most=4)
    dirty = [state.dirty(partition) for partition in PARTITIONS]
    first = looked(peek, last)
    assert looked(peek, last[::-1]) == first[::-1]
    assert [state.dirty(partition) for partition in PARTITIONS] == dirty
    for event, said in zip(last, first, strict=True):
        assert looked(peek, [event]) == [said]
    one = last[0]
    assert [blind(each, one) for each in take(state, [one])] == first[:1]


def test_two_events_of_one_user_do_not_see_each_other() -> None:
    state = make_state()
    take(state, [click(time=5, number=1)])
    peek = Peek(state)
    one, two = looked(peek, [click(time=7, number=2), click(time=9, number=3)])
    assert one.history == two.history
    assert one.totals == two.totals == (1, 0, 0, 0, 0)


def test_the_cut_of_a_look_is_what_is_absorbed_also_of_the_events_own_topic() -> None:
    state = make_state()
    take(state, [click(time=5, number=1)._replace(offset=41), order(time=6, number=2)._replace(offset=7)])
    absorbed = Peek(state).look(columns([click(time=8, number=3), order(user=1, time=8, number=4)]))
    assert absorbed.cut.tolist() == [[41, 7, -1], [-1, -1, -1]]


def test_an_id_that_has_come_is_no_news_to_a_look_and_looking_makes_it_none() -> None:
    state = make_state()
    peek, event = Peek(state), click(time=5, number=1)
    assert peek.look(columns([event])).fresh.tolist() == [True]
    assert peek.look(columns([event])).fresh.tolist() == [True]
    take(state, [event])
    assert peek.look(columns([event])).fresh.tolist() == [False]
    assert rows_of(state).keys() == {b"u0"}


def test_a_user_of_many_ids_in_a_day_is_looked_at_whole() -> None:
    state = make_state(TINY)
    for number in range(1, 40):
        take(state, [click(time=number, number=number)])
    peek = Peek(state)
    again = [peek.look(columns([click(time=50, number=number)])).fresh[0] for number in range(1, 40)]
    assert again == [bool(take(state, [click(time=50, number=number)])[0].fresh) for number in range(1, 40)]
