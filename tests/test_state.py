"""User state: what an event may know, and that batches, topics and restarts leave no trace.
The arrays are held against the plain-Python oracle of state_oracle, event by event.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import StateError
from streams.batch import IMPRESSIONS, LIMIT
from streams.state import Shape
from streams.state.memory import MemoryStore
from streams.store import UserStore
from tests.state_events import (
    DAY,
    Event,
    click,
    columns,
    cut_up,
    long_streams,
    make_event,
    order,
    permutation,
    random_events,
    sizes,
    steps,
    streams_of_events,
    with_offsets,
)
from tests.state_oracle import Oracle, read
from tests.state_runs import PARTITIONS, SHAPE, TINY, make_state, rows_of, take

shapes = st.sampled_from([TINY, SHAPE])


@settings(max_examples=150, deadline=None)
@given(streams_of_events | long_streams, sizes, shapes, st.integers(1, 12), st.data())
def test_the_arrays_say_what_the_oracle_says(
    stream: list[Event], lengths: list[int], shape: Shape, per_user: int, data: st.DataObject
) -> None:
    state, oracle = make_state(shape, per_user=per_user), Oracle(shape, per_user)
    for batch in cut_up(stream, lengths):
        forced = data.draw(st.none() | st.permutations(range(len(batch))), "order")
        assert take(state, batch, forced) == oracle.absorb(batch, forced)
    for key, packed in rows_of(state).items():
        assert read(packed, shape) == oracle.view(key.decode())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("users", [1, 40])
def test_large_batches_say_what_the_oracle_says(seed: int, users: int) -> None:
    """Hundreds of events of a user at once, a page and a queue of ids per user, tokens of many orders."""
    shape = Shape(page=48)
    state, oracle = make_state(shape, per_user=150), Oracle(shape, 150)
    stream = random_events(seed, 900, users, disorder=[0, 0.02, 0.3][seed % 3], span_ms=3 * DAY)
    for batch in cut_up(stream, np.random.default_rng(seed).integers(1, 400, 99).tolist()):
        assert take(state, batch) == oracle.absorb(batch)
    for key, packed in rows_of(state).items():
        assert read(packed, shape) == oracle.view(key.decode())


@settings(max_examples=80, deadline=None)
@given(streams_of_events, sizes, shapes)
def test_batch_boundaries_change_nothing_if_the_order_is_the_same(
    stream: list[Event], lengths: list[int], shape: Shape
) -> None:
    whole, parts = make_state(shape), make_state(shape)
    expected = take(whole, stream, range(len(stream)))
    found = [one for batch in cut_up(stream, lengths) for one in take(parts, batch, range(len(batch)))]
    assert found == expected
    assert rows_of(parts) == rows_of(whole)


@settings(max_examples=80, deadline=None)
@given(streams_of_events, sizes, shapes, st.integers(0, 2**32), st.integers(1, 12))
def test_state_is_the_same_for_every_interleaving_of_topics(
    stream: list[Event], lengths: list[int], shape: Shape, seed: int, per_user: int
) -> None:
    other = permutation(np.random.default_rng(seed), stream)
    one, two = make_state(shape, per_user=per_user), make_state(shape, per_user=per_user)
    for batch in cut_up(stream, lengths):
        one.absorb(columns(batch))
    for batch in cut_up(other, lengths[::-1]):
        two.absorb(columns(batch))
    assert rows_of(one) == rows_of(two)


@settings(max_examples=80, deadline=None)
@given(long_streams, sizes, shapes, steps)
def test_leaving_the_arrays_changes_nothing_whenever_rows_are_saved(
    stream: list[Event], lengths: list[int], shape: Shape, todo: list[str]
) -> None:
    """Three rows for four users; snapshots are taken and reach the store at any time."""
    store = MemoryStore()
    few, many = make_state(shape, slots=3, store=store), make_state(shape)
    flying = []
    for batch, step in zip(cut_up(stream, lengths, users=3), todo, strict=False):
        assert take(few, batch) == take(many, batch)
        if step == "snapshot":
            flying.append(few.snapshot(PARTITIONS))
        elif step == "saved" and flying:
            snapshot = flying.pop(0)
            for partition in PARTITIONS:
                store.write(partition, snapshot.records(partition), 0)
            few.saved(snapshot)
    for snapshot in [*flying, few.snapshot(PARTITIONS)]:
        for partition in PARTITIONS:
            store.write(partition, snapshot.records(partition), 0)
        few.saved(snapshot)
    expected = rows_of(many)
    found = [store.get_many(partition, list(expected)) for partition in PARTITIONS]
    assert [one or other for one, other in zip(*found, strict=True)] == list(expected.values())


@settings(max_examples=60, deadline=None)
@given(streams_of_events, streams_of_events, shapes)
def test_saving_loading_and_going_on_is_as_if_nothing_had_happened(
    before: list[Event], after: list[Event], shape: Shape
) -> None:
    state, loaded = make_state(shape), make_state(shape)
    after = [event._replace(offset=event.offset + 1_000) for event in after]
    state.absorb(columns(before))
    for key, packed in rows_of(state).items():
        loaded.load(key, packed)
    assert take(loaded, after) == take(state, after)
    assert rows_of(loaded) == rows_of(state)


def test_users_go_through_rocksdb_and_come_back_as_they_were(tmp_path: Path) -> None:
    store = UserStore(tmp_path)
    few, many = make_state(slots=16, store=store), make_state()
    stream = random_events(5, 600, 40)
    for number, batch in enumerate(cut_up(stream, [20] * 99, users=16)):
        assert take(few, batch) == take(many, batch)
        snapshot = few.snapshot(PARTITIONS)
        for partition in PARTITIONS:
            store.write(partition, snapshot.records(partition), number)
        few.saved(snapshot)
    assert few.loads > 100
    store.close()


def test_events_of_a_batch_see_the_ones_before_them_and_not_themselves() -> None:
    found = take(make_state(), with_offsets([click(time=n, number=n) for n in (1, 2, 3)]))
    assert [[entry[2] for entry in one.history] for one in found] == [[], [1], [1, 2]]
    assert [one.totals[0] for one in found] == [0, 1, 2]
    assert [one.first_time for one in found] == [0, 1, 1]


def test_topics_merge_by_time_while_each_keeps_its_offset_order() -> None:
    """The second click was stamped early; it still comes after the first, and so after the order."""
    batch = with_offsets([click(time=20, number=1), click(time=5, number=2), order(time=10, number=3)])
    found = take(make_state(), batch)
    assert [one.cut for one in found] == [(0, 0, -1), (1, 0, -1), (-1, 0, -1)]
    assert [one.late for one in found] == [False, True, False]
    assert [len(one.history) for one in found] == [3, 0, 0]


def test_a_late_event_sees_neither_entries_nor_totals_nor_a_first_time_that_come_after_it() -> None:
    state = make_state()
    take(state, with_offsets([click(time=100), order(time=200, number=2)]))
    found = take(state, [click(time=150, number=3)._replace(offset=1), click(time=50, number=4)._replace(offset=2)])
    assert [one.late for one in found] == [True, True]
    assert [one.totals for one in found] == [(1, 0, 0, 0, 0), (0, 0, 0, 0, 0)]
    assert [one.first_time for one in found] == [100, 0]
    assert [len(one.history) for one in found] == [1, 0]


def test_events_of_one_millisecond_are_ordered_by_their_ids() -> None:
    batch = with_offsets([click(time=7, number=number) for number in range(1, 6)])
    found = take(make_state(), batch)
    assert [len(one.history) for one in found] == [
        sum(earlier.key < event.key for earlier in batch[:number]) for number, event in enumerate(batch)
    ]


def test_an_order_of_sixteen_entries_is_seen_whole_by_the_next_event() -> None:
    found = take(make_state(), with_offsets([order(time=1, lines=16), click(time=2)]))
    assert len(found[1].history) == 16


def test_the_cut_names_the_newest_offset_of_each_topic_with_the_event_itself() -> None:
    batch = [
        click(time=1, number=1)._replace(offset=40),
        make_event(0, IMPRESSIONS, 2, 2, 1, ())._replace(offset=7),
        click(time=3, number=3)._replace(offset=41),
        click(user=1, time=3, number=4)._replace(offset=90),
    ]
    found = take(make_state(), batch)
    assert [one.cut for one in found] == [(40, -1, -1), (40, -1, 7), (41, -1, 7), (90, -1, -1)]


def test_a_forced_order_holds_within_each_user() -> None:
    batch = with_offsets([click(time=1, number=1), click(user=1, number=2), click(time=9, number=3)])
    found = take(make_state(), batch, [2, 1, 0])
    assert [one.late for one in found] == [True, False, False]
    assert found[2].history == ()


def test_histories_are_gathered_of_the_rows_asked_for_before_the_next_batch() -> None:
    state = make_state()
    absorbed = state.absorb(columns(with_offsets([click(time=n, number=n) for n in range(1, 5)])))
    assert state.gather(absorbed, np.array([3, 1])).time[:, -1].tolist() == [3, 1]
    assert state.gather(absorbed, np.array([], np.intp)).item.shape == (0, 64)
    state.absorb(columns([]))
    with pytest.raises(StateError, match="before the next batch"):
        state.gather(absorbed, np.array([0]))


def test_an_empty_batch_is_no_event() -> None:
    state = make_state()
    absorbed = state.absorb(columns([]))
    assert (len(absorbed.fresh), absorbed.cut.shape, len(state)) == (0, (0, 3), 0)


@pytest.mark.parametrize("time", [0, -1, LIMIT])
def test_a_time_that_would_upset_the_order_is_refused(time: int) -> None:
    with pytest.raises(StateError, match="event_time"):
        make_state().absorb(columns([click(time=time)]))
