"""Rows of the join and where they are kept: packed, found by time, changed in steps; on disk and in memory alike."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import StateError
from streams.labels import rows
from streams.labels.rows import FORGET, MATURE, Entry, Outcome, Slot
from streams.labels.state import State
from streams.labels.store import LabelStore, MemoryLabelStore

LINE = rows.timeline(MATURE, "ctr")


@pytest.fixture(params=["rocksdb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made = LabelStore(tmp_path / "labels") if request.param == "rocksdb" else MemoryLabelStore()
    yield made
    made.close()


def row(due: int, offset: int = 0, state: int = rows.WAITING) -> bytes:
    return Entry(state, due, offset=offset, candidates=["a"]).pack()


def key(target: str) -> bytes:
    return rows.row_key("ctr", target)


def put(state: State, **dues: int) -> None:
    for target, due in dues.items():
        state.put(key(target), row(due))


def taken(state: State, until: int, limit: int = 100) -> list[str]:
    found, _ = state.due(LINE, until, limit)
    for where, _ in found:
        state.put(where, None)
    return [rows.target_of(where) for where, _ in found]


# -- rows ----------------------------------------------------------------------------------------------------

texts = st.text(max_size=20)
slots = st.builds(
    Slot, st.integers(0, 2**31 - 1), st.floats(0, 1), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1),
    texts, st.booleans(),
)  # fmt: skip
outcomes = st.builds(Outcome, st.lists(slots, min_size=1, max_size=4), st.integers(-1, 2**31 - 1))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    state = draw(st.sampled_from([rows.WAITING, rows.MATURED, rows.EARLY, rows.DEAD]))
    candidates = draw(st.lists(texts, min_size=1, max_size=20, unique=True))
    keys = st.tuples(st.sampled_from(candidates), st.sampled_from(["click", "purchase"]))
    entry = Entry(
        state, draw(st.integers(0, 2**63)), draw(st.integers(-(2**63), 2**63 - 1)), draw(st.integers(-1, 9_999)),
        draw(st.integers(-1, 2**63 - 2)), draw(st.floats(0.001, 1_000)), draw(st.booleans()), candidates,
        draw(st.integers(0, 2 ** len(candidates) - 1)), draw(st.integers(0, 2 ** len(candidates) - 1)),
    )  # fmt: skip
    if entry.served:
        entry.outcomes = draw(st.dictionaries(keys, outcomes, max_size=5))
    else:
        entry.early = draw(st.lists(st.tuples(keys, slots), max_size=5))
    return entry


@given(entries())
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    assert rows.unpack(entry.pack()) == entry


@pytest.mark.parametrize("cut", [0, 5, 25, 45])
def test_a_row_cut_short_is_named_so(cut: int) -> None:
    packed = Entry(rows.WAITING, 5, candidates=["a"], outcomes={("a", "click"): Outcome([Slot(0, 1.0, 5, 5)])}).pack()
    with pytest.raises(StateError, match=f"{cut} bytes that cannot be read"):
        rows.unpack(packed[:cut])


def test_a_row_of_the_format_before_is_read_as_what_one_source_said() -> None:
    head = struct.pack("<BBQq", 2, rows.MATURED, 9, 17) + struct.pack("<iqdBHB", 3, 5, 1.0, 1, 1, 1)
    candidate = b"\x01\x00" + struct.pack("<H", 1) + b"a"
    slot = struct.pack("<HBBiidqQ", 0, 5, 7, 4, 2, 1.0, 6, 99) + b"clickanalyst"
    entry = rows.unpack(head + candidate + slot)
    assert (entry.state, entry.due, entry.offset, entry.shown, entry.said) == (rows.MATURED, 9, 17, 1, 0)
    assert entry.outcomes == {("a", "click"): Outcome([Slot(4, 1.0, 6, 99, "analyst")], said=2)}
    assert rows.unpack(entry.pack()) == entry
    assert rows.noted(b"\x02" + rows.note(5, b"x")[1:]) == b"x"


def test_a_row_of_another_format_is_refused_with_what_to_do() -> None:
    with pytest.raises(StateError, match=r"format 9.*expected format 2 or 3.*changelog"):
        rows.unpack(b"\x09" + row(5)[1:])


@given(st.lists(st.tuples(st.integers(0, 2**62), st.integers(-1, 2**62), texts), min_size=2, unique=True))
def test_places_sort_by_time_then_by_offset_and_lead_back_to_their_rows(those: list[tuple[int, int, str]]) -> None:
    places = {}
    for due, offset, target in those:
        places[rows.due_key(key(target), row(due, offset))] = (due, offset, target.encode())
        assert rows.due_row(LINE, rows.due_key(key(target), row(due, offset))) == key(target)
    assert [places[place] for place in sorted(places)] == sorted(places.values())


@pytest.mark.parametrize(
    ("state", "kind"),
    [(rows.WAITING, MATURE), (rows.MATURED, FORGET), (rows.EARLY, FORGET), (rows.DEAD, FORGET), (rows.NOTE, FORGET)],
)
def test_a_row_stands_in_the_timeline_of_what_it_waits_for(state: int, kind: bytes) -> None:
    assert rows.due_key(key("t"), row(5, state=state)).startswith(rows.timeline(kind, "ctr"))


# -- steps ---------------------------------------------------------------------------------------------------


def test_a_step_sees_its_own_changes_and_the_store_none_before_they_are_stored(store: Any) -> None:
    state = State(store, 0)
    put(state, a=5)
    assert state.get(key("a")) == row(5)
    assert State(store, 0).get(key("a")) is None
    state.stored(7)
    assert State(store, 0).get(key("a")) == row(5)
    assert State(store, 0).position == 7
    assert state.changes == []


def test_what_is_due_comes_by_time_from_the_store_and_from_the_step_alike(store: Any) -> None:
    state = State(store, 0)
    put(state, a=5, c=7, e=20)
    state.stored(0)
    put(state, b=6, d=8, f=21)
    assert taken(state, 8) == ["a", "b", "c", "d"]
    assert taken(state, 8) == []
    assert taken(state, 30) == ["e", "f"]


def test_it_comes_in_bounded_steps_across_both(store: Any) -> None:
    state = State(store, 0)
    put(state, a=1, d=4, e=5)
    state.stored(0)
    put(state, b=2, c=3, f=6)
    assert [taken(state, 9, 2) for _ in range(4)] == [["a", "b"], ["c", "d"], ["e", "f"], []]


def test_timelines_of_tasks_and_kinds_are_apart(store: Any) -> None:
    state = State(store, 0)
    put(state, a=5)
    state.put(rows.row_key("ctr2", "b"), row(5))
    state.put(key("c"), row(5, state=rows.MATURED))
    state.stored(0)
    assert taken(state, 9) == ["a"]


def test_a_row_that_was_put_off_is_due_once_and_later(store: Any) -> None:
    state = State(store, 0)
    put(state, a=5, b=6)
    state.stored(0)
    put(state, a=50)
    state.stored(1)
    assert taken(state, 10) == ["b"]
    state.stored(2)
    assert taken(state, 60) == ["a"]


def test_a_row_earlier_than_all_that_was_walked_is_found(store: Any) -> None:
    state = State(store, 0)
    put(state, a=50)
    state.stored(0)
    assert taken(state, 50) == ["a"]
    state.stored(1)
    put(state, b=3)
    state.stored(2)
    assert taken(state, 50) == ["b"]


def test_a_discarded_step_leaves_rows_and_timelines_as_they_were(store: Any) -> None:
    state = State(store, 0)
    put(state, a=5)
    state.stored(0)
    assert taken(state, 9) == ["a"]
    put(state, b=6)
    state.discard()
    assert state.get(key("b")) is None
    assert taken(state, 9) == ["a"]


def test_a_step_after_a_discarded_one_takes_nothing_that_only_the_discarded_one_took(store: Any) -> None:
    state = State(store, 0)
    put(state, a=5)
    state.stored(0)
    assert taken(state, 9) == ["a"]
    state.discard()
    put(state, b=6)
    state.stored(1)
    assert taken(State(store, 0), 9) == ["a", "b"]


def test_nothing_is_due_before_time_begins(store: Any) -> None:
    state = State(store, 0)
    put(state, a=0)
    assert state.due(LINE, -1, 10) == ([], False)
    assert taken(state, 0) == ["a"]


def test_a_changelog_makes_the_same_rows_and_timelines(store: Any) -> None:
    state, log = State(store, 0), []
    put(state, a=5, b=6)
    log += state.changes
    state.stored(1)
    state.put(key("a"), None)
    put(state, b=60, c=7)
    log += state.changes
    other = State(MemoryLabelStore(), 0)
    other.restore(log, 4)
    assert [other.get(key(target)) for target in "abc"] == [None, row(60), row(7)]
    assert other.position == 4
    assert taken(other, 100) == ["c", "b"]


def test_a_crash_before_the_store_was_told_is_made_good_by_the_changelog(store: Any) -> None:
    state = State(store, 0)
    put(state, a=5, b=6)
    state.stored(1)
    assert taken(state, 5) == ["a"]
    put(state, b=60)
    lost = state.changes
    again = State(store, 0)
    again.restore(lost, 3)
    assert taken(again, 10) == []
    assert taken(again, 60) == ["b"]


def test_a_timeline_leaves_nothing_behind(store: Any) -> None:
    state = State(store, 0)
    for number in range(50):
        put(state, **{f"t{number}": number})
        state.stored(number)
    while taken(state, 99, 7):
        state.stored(50)
    assert store.scan(0, b"", b"\xff", 10) == []


def test_rows_are_read_at_once_and_only_once() -> None:
    asked: list[list[bytes]] = []

    class Counting(MemoryLabelStore):
        def get_many(self, partition: int, keys: Any) -> list[bytes | None]:
            asked.append(list(keys))
            return super().get_many(partition, keys)

    state = State(Counting(), 0)
    state.fetch([key("a"), key("b"), key("a")])
    state.get(key("a"))
    state.fetch([key("b")])
    assert asked == [[key("a"), key("b")]]


def test_partitions_are_apart(store: Any) -> None:
    one, other = State(store, 0), State(store, 1)
    put(one, a=5)
    one.stored(0)
    assert other.get(key("a")) is None
    assert other.position == -1
    assert taken(other, 9) == []


def test_rows_outlive_the_process_and_a_dropped_partition_is_empty(tmp_path: Path) -> None:
    store = LabelStore(tmp_path)
    state = State(store, 0)
    put(state, a=5)
    state.stored(3)
    store.close()
    store = LabelStore(tmp_path)
    assert State(store, 0).position == 3
    assert taken(State(store, 0), 9) == ["a"]
    store.drop(0)
    assert State(store, 0).position == -1
    store.close()
