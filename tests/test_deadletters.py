"""Dead letters: made of any record, read back, brought home once, to the right partition, byte for byte."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Message, Producer
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadRecord, DataUnavailable, SettingsError, UnknownSchema
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.deadletters import (
    CUT,
    DeadLetters,
    Letter,
    Selection,
    carried_bytes,
    dead_letter,
    letter_bytes,
    notice,
)
from streams.homeward import MOVED, REPLAY
from streams.offsets import bounds, places, read_range
from streams.partitioning import partition_for
from streams.raw import RawRecord
from streams.topics import topic_specs
from streams.transactions import TransactionalProducer
from tests.records import NOON_MS

ALL = Selection()
BROKEN = BadRecord("undecodable", "the first byte is 1", where="byte 0", expected="0", todo="send it again")


GARBAGE = RawRecord("events.orders", 1, 7, NOON_MS, b"ann", b"\x01garbage", ())


class Desk:
    """Writes dead letters as the scoring loop does, and reads any topic back."""

    def __init__(self, settings: Settings) -> None:
        self.settings, registry = settings, MemoryRegistry()
        self._encode = Encoder(registry, settings.topics.deadletters, "dead_letter")
        self.letters = DeadLetters(settings, registry)
        self._producer = Producer(
            {**settings.librdkafka(), "partitioner": "murmur2_random", "message.max.bytes": 10_000_000}
        )

    def write(self, *records: Any, error: BadRecord = BROKEN, limit: int | None = None) -> None:
        limit = limit or carried_bytes(self.settings)
        for record in records:
            letter = dead_letter(record, error, NOON_MS, limit)
            self._producer.produce(self.settings.topics.deadletters, self._encode(letter), letter["key"])
        assert self._producer.flush(20) == 0

    def on(self, topic: str) -> list[Message]:
        """All committed records of a topic."""
        found = bounds(self.settings, places(self.settings, topic))
        ranges = [read_range(self.settings, *place, low, high) for place, (low, high) in found.items()]
        return [message for batches in ranges for messages in batches for message in messages]

    def replay(self, selection: Selection = ALL) -> int:
        return self.letters.replay(selection).sent

    def settled(self) -> None:
        """The mark of a commit is written a moment later; a successor waits for it."""
        TransactionalProducer(self.settings, f"{self.settings.app_id}-replay", "test")


@pytest.fixture
def desk(settings: Settings) -> Desk:
    return Desk(settings)


def raw(desk: Desk, number: int, **fields: Any) -> RawRecord:
    topic = desk.settings.topics.orders
    return GARBAGE._replace(**{"topic": topic, "offset": number, "key": f"user {number}".encode(), **fields})


def test_a_dead_letter_holds_the_message_and_the_reason() -> None:
    letter = dead_letter(GARBAGE._replace(headers=(("trace", b"\xff"),)), BROKEN, NOON_MS + 5)
    assert letter == {
        "topic": "events.orders", "partition": 1, "offset": 7, "timestamp": NOON_MS,
        "key": b"ann", "value": b"\x01garbage", "headers": [{"name": "trace", "value": b"\xff"}],
        "code": "undecodable", "message": "the first byte is 1; at byte 0", "expected": "0",
        "what_to_do": "send it again", "failed_at": NOON_MS + 5, "replays": 0,
        "sealed": False, "said": None,
    }  # fmt: skip
    assert notice(letter) == (
        "dead letter, undecodable",
        "the first byte is 1; at byte 0 (events.orders[1] at 7)",
    )


names = st.text(min_size=1, max_size=5)
contents = st.one_of(st.none(), st.binary(max_size=20))


@given(
    st.builds(
        GARBAGE._replace,
        key=contents,
        value=contents,
        headers=st.lists(st.tuples(st.one_of(names, st.just(REPLAY)), contents), max_size=4),
    ),
    st.text(st.characters(), max_size=50),
)
def test_any_message_and_any_reason_can_be_written_and_read(record: RawRecord, text: str) -> None:
    registry = MemoryRegistry()
    letter = dead_letter(record, BadRecord("wrong_type", text, where=text), NOON_MS)
    encoded = Encoder(registry, "deadletters", "dead_letter")(letter)
    assert Decoder(registry, "dead_letter")(encoded) == letter


def test_a_message_that_failed_after_a_replay_says_how_often() -> None:
    letter = dead_letter(GARBAGE._replace(headers=((REPLAY, b"2"), ("trace", b"1"))), BROKEN, NOON_MS)
    assert letter["replays"] == 2
    assert letter["headers"] == [{"name": "trace", "value": b"1"}]


@pytest.mark.parametrize("count", [b"", b"-1", b"x", b"9" * 400])
def test_a_stranger_s_replay_count_is_no_count(count: bytes) -> None:
    assert dead_letter(GARBAGE._replace(headers=((REPLAY, count),)), BROKEN, NOON_MS)["replays"] == 0


def test_a_value_above_the_limit_is_cut_and_says_how_long_it_was() -> None:
    letter = dead_letter(GARBAGE._replace(value=bytes(101)), BROKEN, NOON_MS, limit=100)
    assert letter["value"] == bytes(100)
    assert letter["headers"] == [{"name": CUT, "value": b"101"}]
    assert Letter(0, 0, letter).cut
    assert not Letter(0, 0, dead_letter(GARBAGE._replace(value=bytes(100)), BROKEN, NOON_MS, limit=100)).cut


@pytest.mark.parametrize(
    "record",
    [
        GARBAGE._replace(key=bytes(900_000)),
        GARBAGE._replace(headers=[("h", bytes(900_000))]),
        GARBAGE._replace(value=bytes(50_000_000)),
    ],
)
def test_a_letter_always_fits_its_topic(record: RawRecord) -> None:
    settings, registry = Settings(), MemoryRegistry()
    letter = dead_letter(record, BROKEN, NOON_MS, carried_bytes(settings))
    encoded = Encoder(registry, "deadletters", "dead_letter")(letter)
    assert len(encoded) + len(letter["key"]) < letter_bytes(settings)
    assert Letter(0, 0, letter).cut


def test_a_stranger_cannot_pretend_that_a_message_was_cut() -> None:
    assert not Letter(0, 0, dead_letter(GARBAGE._replace(headers=((CUT, b"5"),)), BROKEN, NOON_MS)).cut


@pytest.mark.parametrize("limit", [1_000, 1_000_000, 20_000_000])
def test_what_an_input_topic_takes_can_be_carried(limit: int) -> None:
    settings = Settings(max_message_bytes=limit)
    limits = {spec.name: int(spec.config.get("max.message.bytes", 0)) for spec in topic_specs(settings)}
    assert limits["events.orders"] <= carried_bytes(settings)
    assert letter_bytes(settings) <= limits["deadletters"]


def test_letters_are_found_by_reason_topic_and_time(desk: Desk) -> None:
    clicks = desk.settings.topics.clicks
    desk.write(raw(desk, 1), raw(desk, 2, topic=clicks))
    desk.write(raw(desk, 3), error=UnknownSchema(9))

    def offsets(selection: Selection) -> set[int]:
        return {letter.record["offset"] for letter in desk.letters.find(selection)}

    assert offsets(ALL) == {1, 2, 3}
    assert offsets(Selection(codes=frozenset({"unknown_schema"}))) == {3}
    assert offsets(Selection(topics=frozenset({clicks}))) == {2}
    assert offsets(Selection(since=NOON_MS + 1)) == set()
    assert offsets(Selection(until=NOON_MS)) == set()


def test_one_letter_is_shown_by_its_id(desk: Desk) -> None:
    desk.write(raw(desk, 1), raw(desk, 2))
    letters = list(desk.letters.find(ALL))
    assert [desk.letters.show(letter.id) for letter in letters] == letters
    for wrong in ("7:7", "0:999", "nonsense", ""):
        with pytest.raises(DataUnavailable, match="deadletters list"):
            desk.letters.show(wrong)


def test_a_topic_of_dead_letters_that_is_missing_is_said(fresh_settings: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError, match="headrace topics create"):
        next(Desk(fresh_settings(create=False)).letters.find(ALL))


def test_replay_brings_the_original_home_byte_for_byte(desk: Desk) -> None:
    home = partition_for(b"user 1", 2)
    headers = [("trace", b"\xff\x00"), ("empty", None), (MOVED, b"0"), ("trace", b"again")]
    desk.write(raw(desk, 1, partition=1 - home, value=b"\x00\x01 any bytes", headers=headers))
    assert desk.replay() == 1
    desk.settled()
    (message,) = desk.on(desk.settings.topics.orders)
    assert (message.partition(), message.key(), message.value()) == (home, b"user 1", b"\x00\x01 any bytes")
    assert message.headers() == [("trace", b"\xff\x00"), ("empty", None), ("trace", b"again"), (REPLAY, b"1")]


def test_what_has_no_key_goes_back_to_its_partition_and_what_has_no_value_stays_without(desk: Desk) -> None:
    desk.write(raw(desk, 1, key=None, value=None, partition=1))
    desk.replay()
    desk.settled()
    (message,) = desk.on(desk.settings.topics.orders)
    assert (message.partition(), message.key(), message.value()) == (1, None, None)


def test_each_letter_is_brought_home_once(desk: Desk) -> None:
    desk.write(*(raw(desk, number) for number in range(250)))
    assert desk.replay(Selection(ids=frozenset({"0:3", "1:4"}))) == 2
    assert desk.replay() == 248
    assert desk.replay() == 0
    desk.settled()
    assert len({message.key() for message in desk.on(desk.settings.topics.orders)}) == 250
    assert len(desk.on(desk.settings.topics.orders)) == 250
    assert list(desk.letters.find(ALL)) == []
    assert len(list(desk.letters.find(Selection(home=True)))) == 250
    desk.write(raw(desk, 300))
    assert desk.replay() == 1


def test_a_replay_that_dies_goes_on_where_it_was(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.write(*(raw(desk, number, key=b"ann") for number in range(350)))
    send = TransactionalProducer.send
    calls: list[None] = []

    def dying(self: TransactionalProducer, records: Any, last: Any) -> int:
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return send(self, records, last)

    monkeypatch.setattr(TransactionalProducer, "send", dying)
    with pytest.raises(KeyboardInterrupt):
        desk.replay()
    monkeypatch.undo()
    assert desk.replay() > 0
    desk.settled()
    values = [message.value() for message in desk.on(desk.settings.topics.orders)]
    assert len(values) == 350


def test_what_the_broker_refuses_stays_and_the_others_go(desk: Desk) -> None:
    large = raw(desk, 5, value=random.Random(0).randbytes(1_500_000))
    desk.write(*(raw(desk, number, key=b"ann") for number in range(4)), large, raw(desk, 6, key=b"ann"))
    done = desk.letters.replay(ALL)
    assert (done.sent, done.refusals) == (5, 1)
    assert "MSG_SIZE_TOO_LARGE" in done.refused[0][1]
    desk.settled()
    assert [letter.record["offset"] for letter in desk.letters.find(ALL)] == [5]


def test_what_cannot_go_home_is_refused_with_a_reason(desk: Desk) -> None:
    desk.write(raw(desk, 1), raw(desk, 2, topic="no.such.topic"))
    desk.write(raw(desk, 3, value=bytes(300)), limit=100)
    done = desk.letters.replay(ALL)
    assert (done.sent, done.refusals) == (1, 2)
    reasons = " ".join(why for _, why in done.refused)
    assert "no.such.topic" in reasons
    assert "only its beginning is kept" in reasons


def test_progress_is_told(desk: Desk) -> None:
    desk.write(*(raw(desk, number, key=b"ann") for number in range(150)))
    told: list[int] = []
    desk.letters.replay(ALL, lambda done: told.append(done.sent))
    assert told[-1] == 150
    assert told == sorted(told)


def test_what_is_no_dead_letter_is_passed_over(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    producer = Producer(desk.settings.librdkafka())
    producer.produce(desk.settings.topics.deadletters, b"stranger", b"ann")
    assert producer.flush(20) == 0
    desk.write(raw(desk, 1))
    assert [letter.record["offset"] for letter in desk.letters.find(ALL)] == [1]
    assert "is no dead letter" in caplog.text
