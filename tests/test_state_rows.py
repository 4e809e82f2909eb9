"""Rows of user state: copied, saved, evicted, dropped, and refused where they cannot be read."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import SettingsError, StateError
from streams.state import Shape
from streams.state.memory import MemoryStore
from tests.state_events import (
    Event,
    click,
    columns,
    order,
    streams_of_events,
    with_offsets,
)
from tests.state_runs import PARTITIONS, make_state, rows_of, take


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
    code = """
import psutil
from streams.state import UserState
from tests.state_events import click
from tests.state_runs import take
process = psutil.Process()
before = process.memory_info().rss
state = UserState(slots=1_000_000)
take(state, [click(user=n) for n in range(100)])
print(process.memory_info().rss - before)
"""
    # In a process of its own: where memory is used again that others gave back, zeros are written and not only mapped.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 << 20


@pytest.mark.parametrize("shape", [{"history": 0}, {"ring": 64}, {"ids": 6}, {"tokens": 4}, {"page": 8}])
def test_a_shape_that_cannot_hold_an_event_is_refused(shape: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        Shape(**shape)
