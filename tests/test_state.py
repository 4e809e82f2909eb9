"""User state: what an event may know, what counts once, and that batches, topics and restarts leave no trace.
The arrays are held against the plain-Python oracle of state_oracle, event by event.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import SettingsError, StateError
from streams.batch import CLICKS, IMPRESSIONS, LIMIT, ORDERS
from streams.state import Shape, UserState
from streams.state.memory import MemoryStore
from streams.store import UserStore
from tests.state_oracle import (
    Event,
    Oracle,
    Seen,
    columns,
    make_event,
    permutation,
    random_events,
    read,
    seen,
    with_offsets,
)

SHAPE = Shape()
TINY = Shape(history=4, ring=10, ids=4, tokens=5, page=3)
PARTITIONS = (0, 1)
HOUR = 3_600_000
DAY = 24 * HOUR

# Steps of a quarter of the day that ids are remembered for, so that its very end is met.
times = st.builds(lambda steps, ms: 1 + 6 * HOUR * steps + ms, st.integers(0, 14), st.integers(0, 2))
events = st.builds(
    make_event,
    user=st.integers(0, 3),
    topic=st.integers(0, 2),
    time=times,
    number=st.integers(0, 14),
    lines=st.integers(1, 16),
    tokens=st.tuples(*[st.integers(0, 2)] * 5),
)
streams_of_events = st.lists(events, max_size=50).map(with_offsets)
long_streams = st.lists(events, min_size=30, max_size=50).map(with_offsets)
sizes = st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).geometric(0.25, 60).tolist())
steps = st.integers(0, 2**32).map(
    lambda seed: np.random.default_rng(seed).choice(["", "snapshot", "saved"], 60, p=[0.4, 0.3, 0.3]).tolist()
)
shapes = st.sampled_from([TINY, SHAPE])


def make_state(shape: Shape = SHAPE, slots: int = 64, per_user: int = 20_000, **more: object) -> UserState:
    store = more.pop("store", None)
    assert store is None or isinstance(store, MemoryStore | UserStore)
    return UserState(
        slots,
        shape.history,
        shape.ring,
        shape.ids,
        shape.tokens,
        store=store,
        dedupe_per_user=per_user,
        page=shape.page,
    )


def take(state: UserState, batch: Sequence[Event], order: Sequence[int] | None = None) -> list[Seen]:
    forced = None if order is None else np.array(order, np.int64)
    absorbed = state.absorb(columns(batch), forced)
    return seen(absorbed, state.gather(absorbed, np.arange(len(batch))))


def cut_up(stream: Sequence[Event], lengths: Sequence[int], users: int = 99) -> Iterator[Sequence[Event]]:
    """Batches of these lengths or less: none has more than so many users."""
    start = 0
    for length in [*lengths, *[len(stream)] * len(stream)]:
        batch = stream[start : start + length]
        while len({event.user for event in batch}) > users:
            batch = batch[:-1]
        start += len(batch)
        if batch:
            yield batch


def rows_of(state: UserState) -> dict[bytes, bytes]:
    """Packed rows of all that changed since the last snapshot."""
    return dict(state.snapshot(PARTITIONS).records())


def click(user: int = 0, time: int = 1, number: int = 1) -> Event:
    return make_event(user, CLICKS, time, number, 1, ())


def order(user: int = 0, time: int = 1, number: int = 1, tokens: Sequence[int] = (0,) * 5, lines: int = 3) -> Event:
    return make_event(user, ORDERS, time, number, lines, tokens)


# -- against the oracle --------------------------------------------------------------------------------------


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


# -- no trace of batches, topics and restarts ----------------------------------------------------------------


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


# -- what an event may know ----------------------------------------------------------------------------------


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


# -- once by event_id ----------------------------------------------------------------------------------------


def test_a_repeat_moves_the_cut_and_nothing_else() -> None:
    state = make_state()
    take(state, with_offsets([click(time=1)]))
    repeat = take(state, [click(time=1)._replace(offset=1), click(time=1)._replace(offset=2)])
    assert [(one.fresh, one.cut[0], one.totals) for one in repeat] == [(False, n, (0,) * 5) for n in (1, 2)]
    assert read(rows_of(state)[b"u0"], SHAPE)["totals"] == [1, 0, 0, 0, 0]


def test_one_event_id_may_come_on_two_topics() -> None:
    twin = make_event(0, IMPRESSIONS, 1, 0, 1, ())._replace(id=click(time=1).id)
    found = take(make_state(), with_offsets([click(time=1), twin]))
    assert [one.fresh for one in found] == [True, True]


def test_an_event_that_was_forgotten_and_comes_again_does_not_see_itself() -> None:
    state = make_state(TINY, per_user=1)
    again = click(time=100, number=9)
    take(state, with_offsets([again, *[click(time=n, number=n) for n in range(1, 6)]]))
    found = take(state, [again._replace(offset=6)])
    assert (found[0].fresh, found[0].late, found[0].totals[0]) == (True, True, 5)
    assert 100 not in [entry[2] for entry in found[0].history]


def test_a_user_who_gets_the_place_of_another_does_not_get_the_others_ids() -> None:
    state = make_state(slots=1)
    for batch in cut_up(with_offsets([click(user=0, time=1 + n, number=n) for n in range(200)]), [50] * 4):
        take(state, batch)
    newer = [click(user=2, time=300 + n, number=1_000 + n) for n in range(40)]
    take(state, with_offsets(newer))
    found = take(state, [click(user=2, time=400, number=n)._replace(offset=50 + n) for n in range(100)])
    assert all(one.fresh for one in found)


def test_another_users_event_id_is_no_repeat() -> None:
    found = take(make_state(), with_offsets([click(user=0), click(user=1)]))
    assert [one.fresh for one in found] == [True, True]


@pytest.mark.parametrize(("later", "fresh"), [(DAY - HOUR, False), (DAY, False), (DAY + HOUR, True)])
def test_an_id_is_remembered_for_a_day_even_if_many_came_after_it(later: int, fresh: bool) -> None:
    state = make_state()
    stream = [click(time=HOUR + n, number=n) for n in range(1_000)]
    for batch in cut_up(with_offsets(stream), [100] * 10):
        take(state, batch)
    newer = [click(time=HOUR + later, number=5_000), click(time=HOUR, number=0)]
    found = take(state, [event._replace(offset=2_000 + n) for n, event in enumerate(newer)])
    assert found[1].fresh is fresh


def test_the_newest_ids_are_remembered_however_old_they_are() -> None:
    state = make_state()
    take(state, with_offsets([click(time=HOUR, number=1), click(time=400 * DAY, number=2)]))
    assert not take(state, [click(time=HOUR, number=1)._replace(offset=2)])[0].fresh


@pytest.mark.parametrize(("others", "fresh"), [(31, False), (32, True)])
@pytest.mark.parametrize("before", [0, 10, 31])
def test_as_many_of_the_newest_ids_are_remembered_as_there_is_room_for(others: int, fresh: bool, before: int) -> None:
    """32 clicks, be the others in an earlier batch or in the same."""
    state = make_state()
    stream = [click(time=HOUR, number=1)]
    stream += [click(time=HOUR + DAY * n, number=100 + n) for n in range(2, others + 2)]
    stream = with_offsets([*stream, click(time=HOUR, number=1)])
    take(state, stream[: before + 1])
    assert take(state, stream[before + 1 :])[-1].fresh is fresh


def test_what_is_remembered_of_one_user_is_bounded_and_what_is_lost_is_counted() -> None:
    state = make_state(Shape(page=32), per_user=100)
    take(state, with_offsets([click(time=1 + n, number=n) for n in range(150)]))
    assert state.dedupe_evictions == 50
    found = take(state, [click(time=150, number=n)._replace(offset=200 + n) for n in (50, 49)])
    assert [one.fresh for one in found] == [False, True]


def test_a_user_may_be_heavy_on_every_topic() -> None:
    shape = Shape(page=32)
    state, oracle = make_state(shape, slots=1, per_user=90), Oracle(shape, 90)
    stream = with_offsets([make_event(0, n % 3, 1 + n, n % 280, 2, (0,) * 5) for n in range(320)])
    for batch in cut_up(stream, [40] * 8):
        assert take(state, batch) == oracle.absorb(batch)
    assert read(rows_of(state)[b"u0"], shape) == oracle.view("u0")


# -- tokens --------------------------------------------------------------------------------------------------


def test_a_token_is_known_if_the_user_used_it_before_the_orders_time() -> None:
    stream = [
        order(time=10, number=1, tokens=(1, 1, 1, 0, 0)),
        order(time=10, number=2, tokens=(1, 1, 2, 0, 0)),
        order(time=20, number=3, tokens=(1, 3, 2, 1, 0)),
        order(user=1, time=30, number=4, tokens=(1, 1, 1, 1, 1)),
    ]
    found = take(make_state(), with_offsets(stream))
    assert [one.known for one in found[:3]] == [
        (False,) * 5,
        (False,) * 5,
        (True, False, True, False, False),
    ]
    assert found[3].known == (False,) * 5


def test_the_least_recently_used_token_gives_way() -> None:
    state = make_state()
    stream = [order(time=n, number=n, tokens=(n, 0, 0, 0, 0)) for n in range(1, 21)]
    stream += [
        order(time=30, number=30, tokens=(1, 0, 0, 0, 0)),
        order(time=31, number=31, tokens=(99, 0, 0, 0, 0)),
    ]
    stream += [order(time=40 + n, number=40 + n, tokens=(n, 0, 0, 0, 0)) for n in (1, 3, 2)]
    found = take(state, with_offsets(stream))
    assert [one.known[0] for one in found[-3:]] == [True, True, False]


# -- rows, partitions and saving -----------------------------------------------------------------------------


def test_only_what_changed_is_in_the_next_snapshot() -> None:
    state = make_state()
    take(state, with_offsets([click(user=0), click(user=1), click(user=2)]))
    assert (state.dirty(0), state.dirty(1)) == (2, 1)
    assert sorted(dict(state.snapshot([0]).records())) == [b"u0", b"u2"]
    assert (state.dirty(0), state.dirty(1)) == (0, 1)
    take(state, [click(user=2, number=9)._replace(offset=9)])
    assert list(rows_of(state)) == [b"u1", b"u2"]


def test_a_snapshot_does_not_move_with_the_state() -> None:
    state, undisturbed = make_state(), make_state()
    stream = with_offsets([order(time=n, number=n, tokens=(n, 0, 0, 0, 0)) for n in range(1, 80)])
    for one in (state, undisturbed):
        take(one, stream[:40])
    snapshot = state.snapshot(PARTITIONS)
    take(state, stream[40:])
    assert dict(snapshot.records()) == rows_of(undisturbed)


def test_a_row_that_leaves_after_a_snapshot_and_before_it_is_stored_is_not_lost() -> None:
    store = MemoryStore()
    state = make_state(slots=1, store=store)
    for number in (1, 2, 3):
        found = take(state, [click(user=0, time=number, number=number)._replace(offset=number)])
        assert found[0].totals[0] == number - 1
        snapshot = state.snapshot(PARTITIONS)
        take(state, [click(user=2, time=number, number=number)._replace(offset=number)])
        found = take(state, [click(user=0, time=number, number=number)._replace(offset=number)])
        assert not found[0].fresh
        store.write(0, snapshot.records(), number)
        state.saved(snapshot)


def test_the_records_of_a_snapshot_are_told_by_partition() -> None:
    state = make_state()
    take(state, with_offsets([click(user=0), click(user=1)]))
    snapshot = state.snapshot(PARTITIONS)
    assert [list(dict(snapshot.records(partition))) for partition in (0, 1, 2)] == [[b"u0"], [b"u1"], []]
    assert len(snapshot) == 2


def test_a_dropped_partition_is_forgotten_and_its_rows_are_used_again() -> None:
    state = make_state(slots=2)
    take(state, with_offsets([click(user=0), click(user=1)]))
    state.saved(state.snapshot(PARTITIONS))
    state.drop([0])
    assert len(state) == 1
    found = take(state, with_offsets([click(user=0, time=5, number=7)]))
    assert (found[0].totals, found[0].history, found[0].cut) == ((0,) * 5, (), (0, -1, -1))


def test_users_of_a_dropped_partition_are_forgotten_also_if_they_had_left_the_arrays() -> None:
    state = make_state(slots=1)
    for user in (0, 2):
        take(state, [click(user=user)])
    assert state.dirty(0) == 2
    state.drop([0])
    assert (state.dirty(0), len(state)) == (0, 0)
    assert take(state, [click(user=0, time=9, number=9)])[0].totals[0] == 0


def test_a_user_who_turns_up_in_another_partition_brings_the_state_along() -> None:
    state = make_state()
    take(state, [click(user=0)])
    found = take(state, [click(user=0, time=2, number=2)._replace(partition=1)])
    assert found[0].totals[0] == 1
    assert (state.dirty(0), state.dirty(1)) == (0, 1)


def test_a_batch_of_more_users_than_rows_names_the_setting() -> None:
    with pytest.raises(SettingsError, match="more than 2 users") as caught:
        make_state(slots=2).absorb(columns([click(user=n) for n in range(3)]))
    assert caught.value.where == "state.slots"


@settings(max_examples=60, deadline=None)
@given(streams_of_events.filter(bool), st.data())
def test_a_row_that_is_cut_short_or_of_another_shape_is_refused_and_changes_nothing(
    stream: list[Event], data: st.DataObject
) -> None:
    state, other = make_state(), make_state(Shape(history=4, ring=9, ids=8, tokens=5))
    state.absorb(columns(stream))
    rows = rows_of(state)
    key, packed = next(iter(rows.items()))
    short = packed[: data.draw(st.integers(0, len(packed) - 1), "length")]
    for target, broken in (
        (state, short),
        (state, packed + b"x"),
        (state, b"\x02" + packed[1:]),
        (other, packed),
    ):
        with pytest.raises(StateError, match="cannot be read"):
            target.load(key, broken)
    assert len(other) == 0
    state.absorb(columns(stream))
    assert set(rows_of(state)) == set(rows)


def test_a_small_run_takes_little_memory() -> None:
    """The arrays of a million rows, 7.7 GB of addresses, are pages that nobody touched."""
    process = psutil.Process()
    before = process.memory_info().rss
    state = UserState(slots=1_000_000)
    take(state, [click(user=n) for n in range(100)])
    assert process.memory_info().rss - before < 64 << 20


@pytest.mark.parametrize("shape", [{"history": 0}, {"ring": 64}, {"ids": 6}, {"tokens": 4}, {"page": 8}])
def test_a_shape_that_cannot_hold_an_event_is_refused(shape: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        Shape(**shape)
