"""Forgetting, part by part: shared entities, labels that wait, reservoir, worker, console, letters, topics."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from hypothesis import given
from hypothesis import strategies as st

from finetune.examples import layout, user_key
from finetune.reservoir import Reservoir
from schemas.errors import BrokerUnavailable
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.console.store import Batch, Store
from streams.entities import EntityView, touch_key, touched
from streams.entity_owner import EntityOwner
from streams.labels import rows
from streams.labels.join import Join
from streams.labels.state import State
from streams.labels.store import MemoryLabelStore
from streams.learner.forgetting import forget_examples
from streams.offsets import bounds, read_range
from streams.privacy.compaction import EAGER, POLICY, compact, eager, still_there
from streams.privacy.entries import STATE, Cutoff, Entries, Entry
from streams.privacy.erasures import Erasures
from streams.privacy.forgetting import Forgetting
from streams.privacy.letters import DEADLETTERS, rewrite, theirs_on
from streams.privacy.persons import Persons
from streams.raw import RawRecord
from streams.state.memory import MemoryStore
from streams.store import UserStore
from streams.tasks import make_task
from streams.topics import list_topics
from tests import shop
from tests.console_shop import alert, label
from tests.labels_shop import FRAUD, NOW, close, fraud, order
from tests.records import NOON_MS
from tests.test_deadletters import ALL, Desk
from tests.test_entities import Kept, Memory, counts, use

# -- shared entities


def touched_by(registry: MemoryRegistry, *uses: Any) -> list[Kept]:
    """Touches, and the deletion of one where it is given as a key."""
    encode = Encoder(registry, "entities.events", "entity_touch")
    return [
        Kept(offset, None, one) if isinstance(one, bytes) else Kept(offset, encode(one), touch_key(one))
        for offset, one in enumerate(uses)
    ]


def owner(registry: MemoryRegistry, store: Any) -> EntityOwner:
    encode = Encoder(registry, "entities.state", "entity_state")
    return EntityOwner(store, Decoder(registry, "entity_touch"), encode)


people, cards = st.sampled_from("abcd"), st.sampled_from(["card-1", "a|b%c", "x:y"])


@given(st.lists(st.tuples(people, cards, st.booleans()), max_size=30), people, st.data())
def test_an_entity_is_as_if_who_was_forgotten_had_never_touched_it(
    did: list[tuple[str, str, bool]], gone: str, data: st.DataObject
) -> None:
    registry, store, clean = MemoryRegistry(), MemoryStore(), MemoryStore()
    touches = [use(user, card, fraud=fraud) for user, card, fraud in did]
    deletions = [touch_key(one) for one in touches if one["user_id"] == gone]
    log, told = touched_by(registry, *touches, *deletions), dict[bytes, bytes | None]()
    at = 0
    while at < len(log):
        size = data.draw(st.integers(1, 9))
        told.update(owner(registry, store).process(0, log[at : at + size])[0])
        if data.draw(st.booleans()):  # a crash after the store was written: it comes again
            told.update(owner(registry, store).process(0, log[at : at + size])[0])
        at += size
    rest = touched_by(registry, *(one for one in touches if one["user_id"] != gone))
    expected = dict(owner(registry, clean).process(0, rest)[0]) if rest else {}
    assert said(registry, told) == said(registry, expected)
    names = [f"card:{card}".encode() for card in {card for _, card, _ in did}]
    assert store.get_many(0, names) == clean.get_many(0, names)


def said(registry: MemoryRegistry, told: dict[bytes, bytes | None]) -> dict[str, tuple[int, int]]:
    return counts(registry, [pair for pair in told.items() if pair[1] is not None])


def test_what_nobody_shares_any_more_is_told_to_be_gone() -> None:
    registry = MemoryRegistry()
    log = touched_by(registry, use("ann"), use("bob"), touch_key(use("ann")))
    told = owner(registry, Memory()).process(0, log)[0]
    assert told == [(b"card:card-1", None)]
    view = EntityView(Decoder(registry, "entity_state"))
    for key, value in (*owner(registry, Memory()).process(0, log[:2])[0], *told):
        view.apply(key, value)
    assert len(view) == 0


@given(st.text(max_size=20), st.text(min_size=1, max_size=20), st.booleans())
def test_a_touchs_key_says_whom_and_what(token: str, user: str, fraud: bool) -> None:
    one = use(user, token, "email", fraud=fraud)
    assert touched(touch_key(one)) == {"type": "email", "token": token, "user_id": user}


@pytest.mark.parametrize("key", [b"", b"headrace:nudge", b"card:1", b"fraud|", b"\xff"])
def test_a_key_of_something_else_is_no_touch(key: bytes) -> None:
    assert touched(key) is None


# -- labels


def test_what_waits_for_a_label_is_forgotten_with_its_place_in_time() -> None:
    store = MemoryLabelStore()
    state = State(store, 0)
    join = Join(FRAUD, state)
    join.served(order(), 0, 0)
    state.stored(1)
    assert len(store.rows[0]) == 2
    join.forget(order()["target_id"])
    state.stored(2)
    assert store.rows[0] == {}
    assert close(join, 10**10) == []
    assert [each.label for each in join.label(fraud(), NOW)] == []


def test_what_was_served_and_forgotten_in_one_step_leaves_nothing() -> None:
    store = MemoryLabelStore()
    state = State(store, 0)
    join = Join(FRAUD, state)
    join.served(order(), 0, 0)
    join.forget(order()["target_id"])
    state.stored(1)
    assert store.rows[0] == {}
    assert state.due(rows.timeline(rows.MATURE, "fraud"), 2**62, 9) == ([], False)


# -- the reservoir


def test_the_reservoir_loses_a_persons_rows_and_the_files_of_the_last_fine_tune_go(tmp_path: Path) -> None:
    settings, task = Settings(data_dir=tmp_path), make_task("fraud")
    examples = np.zeros(6, layout(task))
    examples["key"], examples["time"], examples["weight"] = np.arange(6), NOON_MS, 1
    examples["user"] = [user_key(user) for user in ("ann", "bob", "ann", "bob", "cid", "ann")]
    Reservoir(tmp_path / "reservoir", task, rows=50_000, bytes_=64 << 20).add(examples)
    for name in ("training.avro", "window.avro", "plan.json"):
        (tmp_path / "7").mkdir(exist_ok=True)
        (tmp_path / "7" / name).write_text("of ann")
    assert forget_examples(settings, "fraud", tmp_path, ["ann"]) == 3
    left = Reservoir(tmp_path / "reservoir", task, rows=50_000, bytes_=64 << 20)
    assert sorted(left.examples["key"].tolist()) == [1, 3, 4]
    needle = user_key("ann").to_bytes(8, "little")
    assert not [path for path in (tmp_path / "reservoir").iterdir() if needle in path.read_bytes()]
    assert [path.name for path in (tmp_path / "7").iterdir()] == ["plan.json"]
    assert forget_examples(settings, "fraud", tmp_path, ["ann"]) == 0


def test_a_reservoir_that_cannot_be_read_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "reservoir").mkdir()
    (tmp_path / "reservoir" / "index.json").write_text("{")
    assert forget_examples(Settings(data_dir=tmp_path), "fraud", tmp_path, ["ann"]) == 0
    assert not (tmp_path / "reservoir").exists()


# -- the worker


OURS = Persons(b"k" * 32)


@dataclass
class Worker:
    """What a worker's part stands on; `steps` is what was done."""

    owned: set[int] = field(default_factory=lambda: {0})
    held: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    at: Cutoff = (9, 9, 9)
    revoked: int = 0
    steps: list[str] = field(default_factory=list)
    known: Entries = field(default_factory=Entries)
    away: bool = False
    settle: Callable[[], None] = lambda: None

    def reached(self, partition: int) -> Cutoff:
        return self.at

    def forget(self, user: str, partition: int) -> int:
        self.steps.append(f"state of {user}")
        return 1

    def stored(self, partition: int) -> int:
        return 1

    def purge(self, partition: int) -> None:
        self.steps.append("files")

    def close(self, partition: int | None = None) -> None:
        self.steps.append("reopened")

    def put(self, entry: Entry) -> None:
        if self.away:
            raise BrokerUnavailable("away")
        self.steps.append(f"answered at {entry.cutoff}")
        self.known = self.known.put(entry)

    async def settled(self) -> None:
        self.settle()

    def part(self) -> Forgetting:
        return Forgetting(
            self, self, self, erasures=lambda: Erasures(OURS, self.known), put=self.put, settled=self.settled,
            revocations=lambda: self.revoked, caches=lambda user: self.steps.append(f"caches of {user}"),
            now_ms=lambda: 7,
        )  # fmt: skip


def asked(cutoff: Cutoff = (5, 5, 5)) -> Entries:
    entry = Entry(OURS.of("ann"), OURS.key_id, "", "r1", 0, cutoff, 1, sealed=OURS.sealed("ann", "r1"))
    return Entries({entry.key: entry})


def test_a_worker_forgets_when_what_came_before_is_scored_and_answers_where_it_stood() -> None:
    worker = Worker(known=asked((10, 5, 5)))
    part = worker.part()
    asyncio.run(part.look())
    assert worker.steps == []
    worker.at = (12, 9, 9)
    asyncio.run(part.look())
    assert worker.steps == ["state of ann", "caches of ann", "files", "reopened", "answered at (12, 9, 9)"]
    asyncio.run(part.look())
    assert len(worker.steps) == 5
    assert worker.known.cutoffs(OURS.key_id) == {0: {OURS.of("ann"): (12, 9, 9)}}


def test_a_worker_that_loses_the_partition_meanwhile_does_not_answer() -> None:
    worker = Worker(known=asked())
    worker.settle = lambda: setattr(worker, "revoked", 1)
    asyncio.run(worker.part().look())
    assert "answered at (9, 9, 9)" not in worker.steps
    other = Worker(known=asked(), owned={1})
    asyncio.run(other.part().look())
    assert other.steps == []


def test_a_broker_that_is_away_is_no_end_and_it_is_done_again_later() -> None:
    worker = Worker(known=asked(), away=True)
    part = worker.part()
    asyncio.run(part.look())
    assert worker.known.answer(OURS.of("ann"), STATE) is None
    worker.away = False
    asyncio.run(part.look())
    assert worker.known.answer(OURS.of("ann"), STATE) is not None


def test_what_was_deleted_is_in_no_file_of_rocksdb(tmp_path: Path) -> None:
    """Names and rows of random bytes: what begins as another one, or can be compressed, is not stored as it is."""
    store, draw = UserStore(tmp_path), np.random.default_rng(5)
    names = sorted(draw.bytes(20) for _ in range(40))
    packed = {name: draw.bytes(200) for name in names}
    store.write(0, list(packed.items()), 1)
    store.purge(0)
    store.close(0)
    assert all(stored(tmp_path, part) for name in names for part in (name[1:], packed[name]))
    gone = [names[0], names[20], names[39]]  # the first and the last one bound a file
    store.write(0, [(name, None) for name in gone], 2)
    store.purge(0)
    store.close(0)
    assert store.get_many(0, names) == [None if name in gone else packed[name] for name in names]
    store.close()
    assert not any(stored(tmp_path, part) for name in gone for part in (name[1:], packed[name]))
    assert stored(tmp_path, packed[names[1]])


def stored(folder: Path, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in folder.rglob("*") if path.is_file())


# -- the console


def test_the_console_loses_the_case_and_its_file_the_bytes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    named = [
        alert(f"order of {user}", user_id=f"{user}-named", entities=[f"card:of-{user}"]) for user in ("ann", "bob")
    ]
    store.apply(Batch(named, [label("order of ann", 1.0)]))
    assert store.settle()
    store.apply(Batch(deleted=["order of ann", "order of nobody"]))
    assert store.settle()
    with store.reading() as connection:
        assert [row[0] for row in connection.execute("SELECT user_id FROM alerts")] == ["bob-named"]
        assert connection.execute("SELECT count(*) FROM labels").fetchone()[0] == 0
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    store.close()
    for gone in (b"ann-named", b"of-ann", b"order of ann"):
        assert gone not in kept
    assert b"bob-named" in kept


# -- topics


def records(settings: Settings, topic: str) -> dict[bytes, bytes | None]:
    """The newest value of each key."""
    found: dict[bytes, bytes | None] = {}
    for partition in range(settings.partitions):
        low, high = bounds(settings, [(topic, partition)])[topic, partition]
        for messages in read_range(settings, topic, partition, low, high):
            found.update((message.key(), message.value()) for message in messages)
    return found


def configs(settings: Settings, topic: str) -> dict[str, str]:
    """What is set on the topic itself."""
    (state,) = (state for state in list_topics(settings) if state.name == topic)
    return {name: state.config[name] for name in (*EAGER, POLICY) if name in state.config}


@pytest.mark.slow
def test_a_deletion_takes_effect_at_once_where_it_is_asked_for_and_the_topic_is_as_before(settings: Settings) -> None:
    topic, before = settings.topics.served_fraud, configs(settings, settings.topics.served_fraud)
    producer = Producer({**settings.librdkafka(), "enable.idempotence": True})
    for number in range(60):
        producer.produce(topic, b"value", b"%d" % number, number % 2)
    for number in (0, 1, 7):
        producer.produce(topic, None, b"%d" % number, number % 2)
    producer.flush(30)
    # Of each partition, its thirty values and then the deletions.
    values = {(topic, 0): {0}, (topic, 1): {0, 3}}
    deletions = {(topic, 0): {30}, (topic, 1): {30, 31}}
    wanted = {place: values[place] | deletions[place] for place in values}
    assert still_there(settings, wanted) == wanted
    assert compact(settings, wanted, 120) == {}
    left = {key for key, value in records(settings, topic).items() if value is not None}
    assert left == {b"%d" % number for number in range(60)} - {b"0", b"1", b"7"}
    assert configs(settings, topic) == before


def test_a_topic_that_a_killed_run_has_left_eager_is_set_back_as_planned(settings: Settings) -> None:
    topic, before = settings.topics.state, configs(settings, settings.topics.state)
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in EAGER.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    client = AdminClient(settings.librdkafka())
    client.incremental_alter_configs([resource])[resource].result(30)
    shop.wait_for(lambda: configs(settings, topic) != before)
    with eager(settings, [topic]):
        pass
    assert configs(settings, topic) == before
    assert before["min.cleanable.dirty.ratio"] == "0.2"


def test_letters_are_written_again_without_those_of_a_person_and_go_home_as_before(settings: Settings) -> None:
    desk, registry = Desk(settings), MemoryRegistry()
    Encoder(registry, settings.topics.deadletters, "dead_letter")

    given = [(b"ann", b"garbage"), (b"bob", b"more"), (b"bob", b'{"user_id": "ann"}'), (b"bob", b"of joann")]
    desk.write(*(RawRecord(settings.topics.orders, 0, 1, NOON_MS, key, value) for key, value in given))
    place = next(letter.partition for letter in desk.letters.find(ALL) if letter.record["key"] == b"bob")
    theirs = theirs_on(settings, registry, DEADLETTERS, "ann")
    for partition in range(settings.partitions):
        rewrite(settings, DEADLETTERS, partition, theirs)
    left = list(desk.letters.find(ALL))
    assert [(letter.record["key"], letter.record["value"]) for letter in left] == [
        (b"bob", b"more"),
        (b"bob", b"of joann"),
    ]
    assert {letter.partition for letter in left} == {place}
    assert desk.letters.replay(ALL).sent == 2
    rewrite(settings, DEADLETTERS, place, theirs)
    assert list(desk.letters.find(replace(ALL, home=True))) == []  # who is home need not be kept
