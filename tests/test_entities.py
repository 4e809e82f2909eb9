"""Entities: who touches what, the join that no order and no repeat can change, and what workers see of it."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import RegistryUnavailable, StateError
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.changelog import Rows
from streams.compacted import Compacted
from streams.config import Settings
from streams.entities import (
    LIMIT,
    Entity,
    EntityView,
    join,
    touch,
    touch_key,
    touch_partition,
    touched,
    touches,
)
from streams.entity_owner import EntityOwner
from streams.events import ENTITY_FIELDS, entity_token
from streams.store import UserStore
from tests.records import NOON_MS, order

NEW = (False,) * 5
TOUCH, STATE = "entities.events", "entities.state"


class Kept(NamedTuple):
    offset: int
    value: bytes | None
    key: bytes | None = None


class Memory:
    """A store in memory; `crash` after a write is the only thing that RocksDB could do otherwise."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.at = -1

    def get_many(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]

    def write(self, partition: int, records: Rows, position: int) -> None:
        self.rows.update((key, value) for key, value in records if value is not None)
        self.at = position

    def position(self, partition: int) -> int:
        return self.at

    def drop(self, partition: int) -> None:
        self.rows.clear()
        self.at = -1


@pytest.fixture(scope="module")
def registry() -> MemoryRegistry:
    return MemoryRegistry()


def owner(registry: MemoryRegistry, store: Any) -> EntityOwner:
    return EntityOwner(store, Decoder(registry, "entity_touch"), Encoder(registry, STATE, "entity_state"))


def use(
    user: str, token: str = "card-1", kind: str = "card", *, fraud: bool = False, time: int = NOON_MS, event: str = ""
) -> Any:
    record = {"user_id": user, "event_id": event or f"{user} {token}", "event_time": time}
    return touch(kind, token, record, fraud=fraud)


def log_of(registry: MemoryRegistry, uses: list[Any]) -> list[Kept]:
    encode = Encoder(registry, TOUCH, "entity_touch")
    return [Kept(offset, encode(one)) for offset, one in enumerate(uses)]


def counts(registry: MemoryRegistry, states: list[tuple[bytes, bytes | None]]) -> dict[str, tuple[int, int]]:
    decode = Decoder(registry, "entity_state")
    found = {key.decode(): decode(value) for key, value in states}
    return {key: (state["users"], state["frauds"]) for key, state in found.items()}


def test_a_first_order_touches_all_its_entities() -> None:
    found = {(one["type"], one["token"]) for one in touches(order(user_id="ann"), NEW)}
    assert found == {
        ("card", "card-1"), ("device", "device-1"), ("address", "home-1"), ("email", "mail-1"),
        ("ip", "10.0.0.1"),
    }  # fmt: skip


@pytest.mark.parametrize("number", range(5))
def test_what_the_user_used_before_is_not_touched_again(number: int) -> None:
    known = [at == number for at in range(5)]
    found = [one["type"] for one in touches(order(), np.array(known))]
    assert found == [name for name in ENTITY_FIELDS if name != ENTITY_FIELDS[number]]


def test_what_an_order_lacks_is_not_touched() -> None:
    assert [one["type"] for one in touches(order(ip=None, email=""), NEW)] == ["card", "device", "address"]


def test_touches_fit_their_contract(registry: MemoryRegistry) -> None:
    for one, kept in zip(touches(order(), NEW), log_of(registry, touches(order(), NEW)), strict=True):
        assert Decoder(registry, "entity_touch")(kept.value) == one


def test_all_touches_of_an_entity_meet_in_one_partition() -> None:
    places = {touch_partition(use(f"user {number}"), 12) for number in range(50)}
    assert len(places) == 1
    spread = {touch_partition(use("ann", f"card {number}"), 12) for number in range(200)}
    assert spread == set(range(12))


texts = st.text(st.sampled_from("a|%:7C25"), min_size=1, max_size=6)


@given(st.tuples(texts, texts, st.none() | texts), st.tuples(texts, texts, st.none() | texts))
def test_compaction_keeps_a_touch_of_each_pair_and_one_of_each_fraudulent_order(a: Any, b: Any) -> None:
    keys = [touch_key(use(user, token, fraud=event is not None, event=event or "")) for token, user, event in (a, b)]
    assert (keys[0] == keys[1]) == (a == b)
    for key, (token, user, event) in zip(keys, (a, b), strict=True):
        assert touched(key) == {"type": "card", "token": token, "user_id": user}
        told = use(user, token, event=event or "other")
        assert touch_key(told, verdict=True) == touch_key(told | {"fraud": True})


def said(registry: MemoryRegistry, *uses: tuple[Any, bool]) -> list[Kept]:
    """Touches with their keys; the second: whether it is of a verdict."""
    encode = Encoder(registry, TOUCH, "entity_touch")
    return [Kept(at, encode(one), touch_key(one, verdict=of)) for at, (one, of) in enumerate(uses)]


def test_a_fraud_that_is_taken_back_untaints_by_its_order_and_by_no_other(registry: MemoryRegistry) -> None:
    store = Memory()
    one, two = use("ann", fraud=True, event="o1"), use("ann", fraud=True, event="o2")
    told = said(registry, (use("ann"), False), (one, True), (two, True))
    assert counts(registry, owner(registry, store).process(0, told)[0]) == {"card:card-1": (1, 1)}
    taken_back = said(
        registry, *[(use("x"), False)] * 3, (one | {"fraud": False}, True), (two | {"fraud": False}, True)
    )
    assert owner(registry, store).process(0, taken_back[3:4])[0] == []
    assert Entity.unpack(store.rows[b"card:card-1"]).counts == (1, 1)
    assert owner(registry, store).process(0, taken_back[4:])[0] == [(b"card:card-1", None)]
    assert Entity.unpack(store.rows[b"card:card-1"]).counts == (1, 0)


def test_a_verdict_of_innocence_on_what_was_never_tainted_makes_nobody_known(registry: MemoryRegistry) -> None:
    store = Memory()
    assert owner(registry, store).process(0, said(registry, (use("ann"), True)))[0] == []
    assert store.rows == {}


def test_a_row_of_the_format_before_is_read_and_one_of_another_refused() -> None:
    packed = struct.pack("<BqqBB3Q", 1, 5, 9, 2, 1, 11, 12, 12)
    assert Entity.unpack(packed) == Entity(5, 9, (11, 12), ((12, 0),))
    with pytest.raises(StateError, match="format 7"):
        Entity.unpack(b"\x07" + packed[1:])


def test_one_user_is_not_published_two_are() -> None:
    known: dict[bytes, Entity] = {}
    assert join(known, use("ann")) is None
    state = join(known, use("bob", time=NOON_MS + 5))
    assert state == {
        "type": "card", "token": "card-1", "users": 2, "frauds": 0,
        "first_time": NOON_MS, "last_time": NOON_MS + 5,
    }  # fmt: skip
    assert join(known, use("bob")) is None


def test_one_fraud_is_published_although_nobody_else_uses_it() -> None:
    known: dict[bytes, Entity] = {}
    assert join(known, use("ann")) is None
    state = join(known, use("ann", fraud=True))
    assert state is not None
    assert (state["users"], state["frauds"]) == (1, 1)


def test_counts_stop_at_the_limit_and_memory_with_them() -> None:
    known: dict[bytes, Entity] = {}
    published = [join(known, use(f"user {number}", fraud=True)) for number in range(500)]
    (entity,) = known.values()
    assert entity.counts == (LIMIT, LIMIT)
    assert len(entity.pack()) < 1_600
    assert sum(state is not None for state in published) == LIMIT


people = st.builds(
    use,
    st.sampled_from([f"user {number}" for number in range(LIMIT + 20)]),
    st.sampled_from(["card-1", "card-2"]),
    fraud=st.booleans(),
    time=st.integers(NOON_MS, NOON_MS + 100),
)


@given(st.lists(people, max_size=200), st.randoms(use_true_random=False), st.data())
def test_no_order_no_repeat_and_no_batching_changes_what_is_known(
    registry: MemoryRegistry, uses: list[Any], random: Any, data: st.DataObject
) -> None:
    first, second = Memory(), Memory()
    told: dict[bytes, bytes | None] = {}
    records = log_of(registry, uses)
    if records:
        told.update(owner(registry, first).process(0, records)[0])
    shuffled = uses + (random.choices(uses, k=len(uses) // 2) if uses else [])
    random.shuffle(shuffled)
    records, retold = log_of(registry, shuffled), dict[bytes, bytes | None]()
    at = 0
    while at < len(records):
        size = data.draw(st.integers(1, 60))
        retold.update(owner(registry, second).process(0, records[at : at + size])[0])
        # A crash after the store was written: the batch comes again.
        if data.draw(st.booleans()):
            retold.update(owner(registry, second).process(0, records[at : at + size])[0])
        at += size
    assert second.rows == first.rows
    assert counts(registry, list(retold.items())) == counts(registry, list(told.items()))


@given(st.lists(people, min_size=1, max_size=LIMIT * 2))
def test_an_entity_survives_packing(uses: list[Any]) -> None:
    known: dict[bytes, Entity] = {}
    for one in uses:
        join(known, one)
    assert all(Entity.unpack(entity.pack()) == entity for entity in known.values())


def test_a_repeated_batch_is_published_again_since_it_may_never_have_been_sent(
    registry: MemoryRegistry,
) -> None:
    store, records = Memory(), log_of(registry, [use("ann"), use("bob")])
    once, _ = owner(registry, store).process(0, records)
    again, _ = owner(registry, store).process(0, records)
    assert once == again
    assert counts(registry, again) == {"card:card-1": (2, 0)}


def test_what_is_no_touch_is_handed_back_and_a_tombstone_is_passed_over(registry: MemoryRegistry) -> None:
    records = [*log_of(registry, [use("ann"), use("bob")]), Kept(2, b"\x01no touch"), Kept(3, None)]
    store = Memory()
    published, bad = owner(registry, store).process(0, records)
    assert len(published) == 1
    assert [(record.offset, error.code) for record, error in bad] == [(2, "undecodable")]
    assert store.at == 3


def test_without_the_registry_nothing_changes(registry: MemoryRegistry) -> None:
    store, records = Memory(), log_of(registry, [use("ann")])
    away = owner(registry, store)
    registry.available = False
    try:
        with pytest.raises(RegistryUnavailable):
            away.process(0, records)
    finally:
        registry.available = True
    assert (store.rows, store.at) == ({}, -1)
    away.process(0, records)
    assert store.at == 0


def test_no_records_change_nothing(registry: MemoryRegistry) -> None:
    store = Memory()
    assert owner(registry, store).process(0, []) == ([], [])
    assert store.at == -1


def view_of(registry: MemoryRegistry, states: Sequence[tuple[bytes, bytes | None]]) -> EntityView:
    view = EntityView(Decoder(registry, "entity_state"))
    for key, value in states:
        view.apply(key, value)
    return view


def test_a_view_answers_by_token_hash(registry: MemoryRegistry) -> None:
    uses = [use("ann"), use("bob"), use("ann", "mail-1", "email"), use("ann", "10.0.0.1", "ip", fraud=True)]
    view = view_of(registry, owner(registry, Memory()).process(0, log_of(registry, uses))[0])
    tokens = np.zeros((3, 5), np.uint64)
    tokens[0] = [
        entity_token("card", "card-1"),
        0,
        0,
        entity_token("email", "mail-1"),
        entity_token("ip", "10.0.0.1"),
    ]
    tokens[2, 0] = entity_token("card", "card-1")
    found = view.lookup(tokens)
    assert found.dtype == np.int32
    assert found.shape == (3, 5, 2)
    assert found[0].tolist() == [[2, 0], [0, 0], [0, 0], [0, 0], [1, 1]]
    assert not found[1].any()
    assert found[2, 0].tolist() == [2, 0]
    assert len(view) == 2


def test_a_view_forgets_what_is_deleted(registry: MemoryRegistry) -> None:
    states = owner(registry, Memory()).process(0, log_of(registry, [use("ann"), use("bob")]))[0]
    view = view_of(registry, [*states, (b"card:card-1", None), (b"card:unknown", None)])
    assert len(view) == 0
    assert not view.lookup(np.full((1, 5), entity_token("card", "card-1"), np.uint64)).any()


def test_a_lost_store_is_rebuilt_from_the_log_and_a_store_of_another_log_is_dropped(
    settings: Settings, tmp_path: Path
) -> None:
    registry = MemoryRegistry()
    uses = [use(f"user {number % 30}", f"card {number % 7}", fraud=number % 50 == 0) for number in range(300)]
    producer = Producer(settings.librdkafka())
    for one, kept in zip(uses, log_of(registry, uses), strict=True):
        producer.produce(settings.topics.entity_events, kept.value, touch_key(one), 0)
    assert producer.flush(20) == 0
    expected = Memory()
    owner(registry, expected).process(0, log_of(registry, uses))
    store = UserStore(tmp_path / "entities")
    store.write(0, [(b"card:stranger", b"row")], 10_000)
    owner(registry, store).rebuild(settings, 0, 300)
    names = list(expected.rows)
    assert store.get_many(0, names) == [expected.rows[name] for name in names]
    assert store.get_many(0, [b"card:stranger"]) == [None]
    assert store.position(0) == 299
    store.close()


def test_states_reach_a_view_by_their_topic(settings: Settings) -> None:
    registry = MemoryRegistry()
    states, _ = owner(registry, Memory()).process(0, log_of(registry, [use("ann"), use("bob")]))
    producer = Producer(settings.librdkafka())
    for key, value in states:
        producer.produce(settings.topics.entity_state, value, key)
    assert producer.flush(20) == 0
    view = EntityView(Decoder(registry, "entity_state"))
    reader = Compacted(settings, settings.topics.entity_state, view.apply)
    reader.wait_current(20)
    reader.stop()
    assert len(view) == 1
