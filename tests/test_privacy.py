"""Forgetting, without a broker: whom the log is about, what replays obey, and a state in which nobody ever was."""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BadRecord, SettingsError, StateError
from streams.config import Settings
from streams.privacy.entries import LABELS, STATE, Entries, Entry
from streams.privacy.erasures import Erasures
from streams.privacy.letters import spelled
from streams.privacy.persons import Persons, persons
from streams.privacy.receipt import digest, receipt
from streams.raw import RawRecord
from streams.state import UserState
from streams.state.memory import MemoryStore
from streams.topics import DAY_MS, topic_specs
from tests.state_events import Event, click, columns, order, random_events
from tests.state_runs import PARTITIONS, TINY, make_state

OURS, OTHERS = Persons(b"k" * 32), Persons(b"o" * 32)
ANN = OURS.of("ann")


def request(user: str = "ann", receipt: str = "r1", partition: int = 0, **over: object) -> Entry:
    made = Entry(
        OURS.of(user), OURS.key_id, "", receipt, partition, (5, 5, 5), 1_000, sealed=OURS.sealed(user, receipt)
    )
    return replace(made, **over)  # type: ignore[arg-type]  # of fields by name


def entries(*given: Entry) -> Entries:
    return Entries({entry.key: entry for entry in given})


# -- who it is


def test_a_person_has_one_name_under_a_key_and_another_under_another() -> None:
    assert OURS.of("ann") == Persons(b"k" * 32).of("ann")
    assert len({OURS.of("ann"), OURS.of("anne"), OTHERS.of("ann")}) == 3
    assert "ann" not in OURS.of("ann")


@given(st.text(min_size=1, max_size=300))
def test_a_request_can_be_read_under_its_key_and_under_no_other(user: str) -> None:
    sealed = OURS.sealed(user, "r1")
    assert OURS.opened(sealed, "r1") == user
    with pytest.raises(StateError, match=OTHERS.key_id):
        OTHERS.opened(sealed, "r1")
    with pytest.raises(StateError):
        OURS.opened(sealed, "r2")
    with pytest.raises(StateError):
        OURS.opened(b"", "r1")


def test_a_key_is_made_once_and_is_for_this_user_alone(tmp_path: Path) -> None:
    made = persons(Settings(data_dir=tmp_path))
    assert persons(Settings(data_dir=tmp_path)).of("ann") == made.of("ann")
    assert (tmp_path / "privacy" / "key").stat().st_mode & 0o077 == 0


def test_a_key_that_is_given_outranks_the_one_of_this_machine_and_a_bad_one_is_refused(tmp_path: Path) -> None:
    given_key = Settings(data_dir=tmp_path, privacy={"key": "ab" * 32})
    assert persons(given_key).of("ann") == Persons(b"\xab" * 32).of("ann")
    assert not (tmp_path / "privacy").exists()
    with pytest.raises(SettingsError, match="64 hexadecimal digits"):
        persons(Settings(data_dir=tmp_path, privacy={"key": "secret"}))


# -- what the log says


def test_a_request_is_open_to_each_part_until_it_answers_and_to_all_again_when_asked_again() -> None:
    asked = request()
    known = entries(asked, asked.answered(STATE, 2_000, (7, 8, 9)))
    assert known.open(STATE, OURS.key_id) == []
    assert known.open(LABELS, OURS.key_id, [0]) == [asked]
    assert known.open(LABELS, OURS.key_id, [1]) == []
    assert known.open(LABELS, OTHERS.key_id) == []
    again = known.put(request(receipt="r2"))
    assert [entry.receipt for entry in again.open(STATE, OURS.key_id)] == ["r2"]
    assert again.cutoffs(OURS.key_id) == {0: {ANN: (7, 8, 9)}}  # until the state is gone again, what was holds
    assert known.put(replace(asked, done=True)).open(LABELS, OURS.key_id) == []


def test_an_entry_is_as_its_record_says() -> None:
    asked = request()
    assert Entry.of(asked.record()) == asked


def test_a_copy_is_too_old_when_its_part_has_forgotten_somebody_of_its_partition_since() -> None:
    known = entries(request(), request().answered(STATE, 2_000), request("bob", "r9", 1).answered(STATE, 3_000))
    assert (known.newest(STATE, 0), known.newest(STATE, 1), known.newest(STATE, 2)) == (2_000, 3_000, 0)
    assert known.newest(LABELS) == 0


# -- what replays obey


def raw(offset: int, key: bytes = b"ann", partition: int = 0) -> RawRecord:
    return RawRecord("events.clicks", partition, offset, 0, key, b"")


def erasures(*given: Entry) -> Erasures:
    return Erasures(OURS, entries(*given))


def test_events_before_the_cut_off_are_left_out_and_nobody_elses() -> None:
    known = erasures(request().answered(STATE, 2_000, (5, 0, 0)))
    records = [raw(offset) for offset in range(3, 7)]
    events = [{"user_id": user} for user in ("ann", "bob", "ann", "ann")]
    kept, decoded = known.kept(0, records, events)
    assert [record.offset for record in kept] == [4, 5, 6]
    assert [event["user_id"] for event in decoded if not isinstance(event, BadRecord)] == ["bob", "ann", "ann"]
    assert known.kept(1, records, events)[0] is records  # orders: nothing before offset 0
    assert known.kept(0, records[2:], events[2:])[0] == records[2:]
    elsewhere = [raw(3, partition=1)]
    assert known.kept(0, elsewhere, events[:1])[0] is elsewhere


def test_a_bad_event_is_its_keys_and_is_not_set_aside_a_second_time() -> None:
    known = erasures(request().answered(STATE, 2_000, (5, 0, 0)))
    bad = BadRecord("undecodable", "no avro")
    kept, _ = known.kept(0, [raw(1), raw(2, b"bob"), raw(3, b"\xff")], [bad, bad, bad])
    assert [record.offset for record in kept] == [2, 3]


def test_who_has_another_key_leaves_nobody_out() -> None:
    known = Erasures(OTHERS, entries(request().answered(STATE, 2_000, (5, 0, 0))))
    assert not known.before("ann", 0, 0, 0)


def test_a_record_of_ours_is_deleted_if_it_came_before_the_deletions() -> None:
    known = erasures(request(until=5_000))
    assert known.deleted("ann", 5_000)
    assert not known.deleted("ann", 5_001)
    assert not known.deleted("bob", 5_000)
    assert erasures(request()).deleted("ann", 1_000)
    assert not Erasures().deleted("ann", 0)


# -- the state


class World:
    """One worker and what outlives it: the log, the saved rows with their frontier, and the log of the forgotten."""

    def __init__(self, stream: list[Event]) -> None:
        self.stream, self.at = stream, 0
        self.saved, self.frontier = MemoryStore(), 0
        self.known = Entries()
        self.receipts = 0
        self.waiting: dict[str, tuple[int, tuple[int, int, int]]] = {}  # by receipt: snapshot, where it stood
        self.state = self.new_state()

    def new_state(self) -> UserState:
        return make_state(TINY, slots=3, store=self.saved)

    def absorb(self, count: int) -> None:
        for event in self.stream[self.at : self.at + count]:
            self.state.absorb(columns([event]))
        self.at = min(self.at + count, len(self.stream))

    def ask(self, user: str) -> None:
        self.receipts += 1
        number, partition = f"r{self.receipts}", int(user[1:]) % 2
        cutoff = self.reached(partition)
        self.known = self.known.put(request(user, number, partition, cutoff=cutoff))
        self.forget()

    def forget(self) -> None:
        erased = Erasures(OURS, self.known)
        for entry in erased.open(STATE):
            if entry.receipt not in self.waiting:
                reached = self.reached(entry.partition)
                snapshot = self.state.forget(erased.user_of(entry), entry.partition)
                self.waiting[entry.receipt] = snapshot, reached

    def flush(self, whole: bool) -> None:
        snapshot, at = self.state.snapshot(PARTITIONS), self.at
        if not whole:
            self.state.abandoned(snapshot)
            return
        for partition in PARTITIONS:
            self.saved.write(partition, snapshot.records(partition), at)
        self.frontier = at
        self.state.saved(snapshot)

    def answer(self) -> None:
        for entry in Erasures(OURS, self.known).open(STATE):
            snapshot, reached = self.waiting.get(entry.receipt, (10**9, (0, 0, 0)))
            if self.state.stored(entry.partition) >= snapshot:
                self.known = self.known.put(entry.answered(STATE, 1, reached))

    def crash(self) -> None:
        """What was read is committed; the state goes back to the frontier, and forward from there."""
        self.waiting.clear()
        self.state = self.new_state()
        at, self.at = self.at, self.frontier
        self.replay(self.stream[self.frontier : at], self.state)
        self.at = at
        self.forget()

    def replay(self, events: list[Event], state: UserState) -> None:
        erased = Erasures(OURS, self.known)
        for event in events:
            if not erased.before(event.user, event.topic, event.partition, event.offset):
                state.absorb(columns([event]))

    def reached(self, partition: int) -> tuple[int, int, int]:
        ends: dict[int, int] = defaultdict(int)
        for event in self.stream[: self.at]:
            if event.partition == partition:
                ends[event.topic] = event.offset + 1
        return ends[0], ends[1], ends[2]

    def rows(self) -> list[dict[bytes, bytes]]:
        return [dict(self.saved._rows.get(partition, {})) for partition in PARTITIONS]


todo = st.lists(
    st.tuples(st.just("absorb"), st.integers(1, 9))
    | st.tuples(st.just("ask"), st.integers(0, 4))
    | st.tuples(st.sampled_from(["flush", "torn", "answer", "crash"]), st.just(0)),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), todo)
def test_whatever_happens_state_is_that_of_a_shop_which_the_forgotten_never_entered(
    seed: int, steps: list[tuple[str, int]]
) -> None:
    world = World(random_events(seed, 80, 5, disorder=0.1))
    for step, number in steps:
        if step == "absorb":
            world.absorb(number)
        elif step == "ask":
            world.ask(f"u{number}")
        elif step == "answer":
            world.answer()
        elif step == "crash":
            world.crash()
        else:
            world.flush(step == "flush")
    world.flush(True)
    world.answer()
    assert Erasures(OURS, world.known).open(STATE) == []
    clean = World(world.stream)
    clean.known = world.known
    clean.replay(world.stream[: world.at], clean.state)
    clean.flush(True)
    assert world.rows() == clean.rows()
    assert {entry.person for entry in world.known} == {OURS.of(f"u{number}") for step, number in steps if step == "ask"}


def test_of_who_was_forgotten_nothing_is_left_in_memory_and_others_keep_theirs() -> None:
    state = make_state(slots=4)
    state.absorb(columns([order(0, 5, 1, (7, 8, 9, 1, 2)), order(1, 6, 2, (7, 8, 9, 1, 2))]))
    row = int(state._slots.rows(["u0"])[0])
    other = state.packed(["u1"], np.array([1], np.int32))
    state.forget("u0", 0)
    held = state._columns
    for column in (held.sums, held.marks, held.ids, held.seconds, held.token_hash, held.token_first, held.token_stamp):
        assert not column[row].any()
    assert not held.entries[row * held.ring : (row + 1) * held.ring].view(np.uint8).any()
    assert state.packed(["u0", "u1"], np.array([0, 1], np.int32)) == [None, *other]


def test_a_snapshot_that_does_not_reach_the_store_leaves_the_deletion_to_the_next() -> None:
    store = MemoryStore()
    state = make_state(slots=4, store=store)
    state.absorb(columns([click(0)]))
    saved(state, store)
    wanted = state.forget("u0", 0)
    state.abandoned(state.snapshot(PARTITIONS))
    assert state.stored(0) < wanted
    assert store.get_many(0, [b"u0"]) != [None]
    saved(state, store)
    assert state.stored(0) >= wanted
    assert store.get_many(0, [b"u0"]) == [None]


def test_a_snapshot_of_another_partition_says_nothing_about_who_was_forgotten_in_this_one() -> None:
    state = make_state(slots=4)
    wanted = state.forget("u0", 0)
    state.saved(state.snapshot([1]))
    assert state.stored(0) < wanted
    state.saved(state.snapshot([0]))
    assert state.stored(0) >= wanted


def saved(state: UserState, store: MemoryStore) -> None:
    snapshot = state.snapshot(PARTITIONS)
    for partition in PARTITIONS:
        store.write(partition, snapshot.records(partition), 0)
    state.saved(snapshot)


# -- letters, receipts, retention


def test_a_name_is_found_as_avro_and_as_json_and_not_within_a_longer_one() -> None:
    def named(value: bytes) -> bool:
        return any(one in value for one in spelled("ann"))

    assert named(b"\x00\x06ann\x02")
    assert named(json.dumps({"user_id": "ann"}).encode())
    assert not named(b"\x00\x0aannie")
    assert not named(json.dumps({"user_id": "joann"}).encode())


def test_a_receipt_is_another_one_as_soon_as_a_word_of_it_is() -> None:
    said = receipt(
        request="r1", person=ANN, asked_at=1, partition=0, cutoff={"clicks": 1}, deleted={"served.fraud": 2}, parts={},
        staying={"scores.fraud": {"records": 1, "until": 9}}, shop={}, releases=[], open_=[],
    )  # fmt: skip
    assert said["digest"] == digest(said)
    assert said["last_copy_ends"] == 9
    assert digest(said | {"deleted": {"served.fraud": 3}}) != said["digest"]
    assert "ann" not in json.dumps({name: said[name] for name in ("receipt", "person", "deleted")})


def test_retention_of_a_topic_is_a_setting_and_one_that_keeps_for_ever_has_none() -> None:
    specs = {spec.name: spec for spec in topic_specs(Settings(retention_days={"served_fraud": 30, "scores_ctr": 0.5}))}
    assert specs["served.fraud"].config["retention.ms"] == str(30 * DAY_MS)
    assert specs["scores.ctr"].config["retention.ms"] == str(DAY_MS // 2)
    assert specs["served.ctr"].config["retention.ms"] == str(90 * DAY_MS)
    for name in ("state", "audit", "served.fraud"):
        with pytest.raises(SettingsError, match=rf"retention_days\.{name}"):
            topic_specs(Settings(retention_days={name: 1}))
