"""Tailing topics: decoded, in words or JSON, from where one asks, and disturbing no one."""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from fastavro import parse_schema, schemaless_writer

from schemas.errors import BrokerUnavailable, SettingsError
from schemas.registry import MemoryRegistry, subject_of
from schemas.wire import Encoder
from streams.changelog import Changelog, Frontier
from streams.clients import producer
from streams.config import Settings
from streams.contracts import readable, topic_contract
from streams.raw import RawRecord
from streams.tail import Reader, contracts_of, line, tail, words
from streams.tasks import TASKS, make_task
from tests.observer import new_topic

TIMINGS = {"queue_us": 900, "infer_us": 300}
CUT = {"clicks": 3, "orders": 4, "impressions": -1}
COMMON = {
    "event_id": "e1",
    "user_id": "u1",
    "event_time": 1_769_860_800_000,
    "scored_at": 1_769_860_800_005,
    "release": "fraud/1",
    "engine": "openvino",
    "late": False,
    "fallback": None,
    "timings": TIMINGS,
    "cut": CUT,
}
FRAUD = COMMON | {"order_id": "541696", "probability": 0.91, "decision": "review", "reasons": ["new card"]}
ITEMS = [{"item_id": f"i{n}", "score": 1.5 - n / 4} for n in range(5)]
RECOMMENDATION = COMMON | {"items": ITEMS}
ADS = [{"ad_id": "a1", "position": 0, "probability": 0.021}]
CTR = COMMON | {"request_id": "r1", "placement": "home", "ads": ADS}


def send(settings: Settings, topic: str, *values: bytes | None) -> None:
    with producer(settings) as client:
        for value in values:
            client.send(topic, value=value, key=b"u1")
        client.flush()


def message(value: bytes | None, topic: str = "scores.fraud") -> RawRecord:
    return RawRecord(topic, 1, 44, 1_769_860_800_250, b"u1", value)


@pytest.fixture
def score() -> Callable[[dict[str, Any]], tuple[Reader, bytes]]:
    """A reader of scores.fraud, and an encoder beside it."""
    registry = MemoryRegistry()
    encode = Encoder(registry, "scores.fraud", "fraud_score")
    reader = Reader([topic_contract(Settings(), "scores.fraud")], registry)
    return lambda record: (reader, encode(record))


def test_the_end_is_where_tail_starts_unless_told_otherwise(settings: Settings) -> None:
    topic = settings.topics.clicks
    send(settings, topic, b"old")
    assert list(tail(settings, [topic], follow=False)) == []
    assert [found.value for found in tail(settings, [topic], from_beginning=True, follow=False)] == [b"old"]


def test_new_records_of_several_topics_are_followed_until_the_limit(settings: Settings) -> None:
    topics = [settings.topics.clicks, settings.topics.orders]
    follow = tail(settings, topics, from_beginning=True, limit=4, seconds=60)
    send(settings, topics[0], b"1", b"2")
    assert {next(follow).value, next(follow).value} == {b"1", b"2"}
    send(settings, topics[1], b"3", b"4", b"5")
    assert {found.value for found in follow} == {b"3", b"4"}


def test_the_time_is_over_when_it_is_over(settings: Settings) -> None:
    times = iter([0.0, 1.0, 2.0, 31.0])
    found = tail(settings, [settings.topics.clicks], seconds=30, clock=lambda: next(times))
    assert list(found) == []


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_a_topic_is_read_whatever_it_is_compressed_with(settings: Settings, codec: str) -> None:
    """Our own transactions are lz4; a shop's producers are what they are."""
    client = confluent_kafka.Producer(settings.librdkafka() | {"compression.type": codec, "linger.ms": 50})
    for _ in range(20):
        client.produce(settings.topics.audit, b"x" * 500)
    assert client.flush(30) == 0
    found = [message.value for message in tail(settings, [settings.topics.audit], from_beginning=True, follow=False)]
    assert found == [b"x" * 500] * 20


def test_a_topic_that_ends_with_a_transaction_s_mark_still_ends(settings: Settings) -> None:
    changelog = Changelog(settings)
    changelog.acquire(0)
    changelog.flush(0, [(b"u:u1", b"packed")], Frontier((1, 2, 3), {}, 0))
    found = list(tail(settings, [settings.topics.state], from_beginning=True, follow=False))
    assert b"packed" in [message.value for message in found]


def test_a_topic_that_is_not_there_and_a_broker_that_is_not_there_are_said(settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"never\.made does not exist"):
        list(tail(settings, ["never.made"]))
    with pytest.raises(BrokerUnavailable, match="no broker listens"):
        list(tail(Settings(brokers="127.0.0.1:1"), ["scores.fraud"]))


def test_a_score_is_a_json_row(score: Callable[[dict[str, Any]], tuple[Reader, bytes]]) -> None:
    reader, value = score(FRAUD)
    row = reader(message(value))
    assert json.loads(json.dumps(row)) == row
    assert (row["topic"], row["partition"], row["offset"], row["key"]) == ("scores.fraud", 1, 44, "u1")
    assert row["timestamp"] == "2026-01-31T12:00:00.250+00:00"
    assert row["value"]["decision"] == "review"
    assert row["value"]["probability"] == pytest.approx(0.91)


def test_a_score_is_a_line_in_words(score: Callable[[dict[str, Any]], tuple[Reader, bytes]]) -> None:
    reader, value = score(FRAUD)
    assert line(reader(message(value)), "fraud_score") == (
        "12:00:00.250 scores.fraud[1]@44 u1: order 541696, fraud 0.91, review (new card)"
    )


def test_bytes_that_are_no_record_are_shown_and_do_not_end_it(
    score: Callable[[dict[str, Any]], tuple[Reader, bytes]],
) -> None:
    reader, value = score(FRAUD)
    row = reader(message(value[:-3]))
    assert "ends early" in row["error"]
    assert row["value_base64"]
    assert "ends early" in line(row, "fraud_score")


def test_a_deletion_and_a_packed_value_have_words_of_their_own() -> None:
    contract = topic_contract(Settings(), "state.users")
    reader = Reader([contract], MemoryRegistry())
    assert line(reader(message(None, "state.users")), "").endswith("u1: deleted")
    assert line(reader(message(b"\x01", "state.users")), "").endswith("u1: packed")


@pytest.mark.parametrize("task", [*TASKS, "next_purchase"])
def test_every_task_has_topics_that_can_be_read_whatever_this_worker_scores(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "next_purchase", "tests.toy_task:NextPurchase")
    settings = Settings(tasks="fraud")
    assert topic_contract(settings, f"scores.{task}").contract == make_task(task).schema
    assert topic_contract(settings, f"served.{task}").contract == "served"


LINE = {"type": "record", "name": "Line", "fields": [{"name": "sku", "type": ["null", "bytes", "string"]}]}
RETURN = {
    "type": "record",
    "name": "Return",
    "namespace": "com.shop",
    "fields": [
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "refund", "type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2}},
        {"name": "first", "type": LINE},
        {"name": "others", "type": {"type": "array", "items": "Line"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
    ],
}
RETURNED = {"at": 1_769_860_800_000, "refund": b"\x04\xd2", "first": {"sku": "a"}, "others": [{"sku": b"b"}], "day": 3}
AS_JSON = {
    "at": "2026-01-31T12:00:00.000Z",
    "refund": "12.34",
    "first": {"sku": "a"},
    "others": [{"sku": "Yg=="}],
    "day": 3,
}


def framed(registry: MemoryRegistry, topic: str, schema: Any, value: Any) -> bytes:
    """As a client of the shop's own writes it: fastavro, under a schema that is registered."""
    body = io.BytesIO()
    schemaless_writer(body, parse_schema(schema), value)
    return struct.pack(">BI", 0, registry.register(subject_of(topic), schema)) + body.getvalue()


def foreign(topic: str) -> tuple[Reader, MemoryRegistry]:
    registry = MemoryRegistry()
    return Reader([readable(Settings(), topic, {topic})], registry), registry


def test_a_topic_that_only_the_registry_knows_is_read_by_the_writers_schema() -> None:
    reader, registry = foreign("shop.returns")
    row = reader(message(framed(registry, "shop.returns", RETURN, RETURNED), "shop.returns"))
    assert row["value"] == AS_JSON
    assert "refund=12.34" in line(row, "")
    assert json.loads(json.dumps(row)) == row


def test_each_record_of_it_has_a_schema_of_its_own_and_any_type_will_do() -> None:
    reader, registry = foreign("shop.returns")
    for schema, value in (("string", "all is well"), ({"type": "map", "values": "int"}, {"a": 1}), ("long", 7)):
        row = reader(message(framed(registry, "shop.returns", schema, value), "shop.returns"))
        assert row["value"] == value
        assert str(value) in line(row, "") or "a=1" in line(row, "")


def test_what_no_registry_knows_or_is_no_avro_is_shown_with_its_bytes() -> None:
    reader, _ = foreign("shop.returns")
    nested = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": "Node"}]}
    for value, said in ((b"\0\0\0\0\x09a", "id 9 is not in the registry"), (b"{}", "first byte"), (b"\0", "1 bytes")):
        row = reader(message(value, "shop.returns"))
        assert said in row["error"]
        assert row["value_base64"]
    reader, registry = foreign("shop.returns")
    registry.register(subject_of("shop.returns"), nested)
    assert "nested too deep" in reader(message(b"\0\0\0\0\x01a", "shop.returns"))["error"]


def test_a_topic_of_others_is_found_on_the_broker_and_a_misspelt_one_is_said(settings: Settings) -> None:
    topic = new_topic(settings, f"{settings.app_id}.shop.returns")
    ours, theirs = contracts_of(settings, ["clicks", topic])
    assert (ours.contract, theirs.contract, theirs.name) == ("click", "", topic)
    with pytest.raises(SettingsError, match=rf"expected {topic}, as the nearest name"):
        contracts_of(settings, [f"{topic}s"])


IN_WORDS = [
    ("recommendation_score", RECOMMENDATION, "next items i0 1.50, i1 1.25, i2 1.00, … of 5"),
    ("ctr_score", CTR, "home, click on a1 0.021"),
    ("fraud_score", FRAUD | {"late": True}, "order 541696, fraud 0.91, review (new card), late"),
    ("ctr_score", CTR | {"ads": [ADS[0] | {"conversion": 0.25}]}, "home, click on a1 0.021 (then bought 0.250)"),
    ("ctr_score", CTR | {"fallback": "deadline"}, "home, click on a1 0.021, not by the model: deadline"),
    ("label", {"task": "fraud", "value": 1.0, "candidate_id": None}, "task=fraud value=1.0"),
]


@pytest.mark.parametrize(("contract", "record", "expected"), IN_WORDS)
def test_each_kind_of_record_has_words(contract: str, record: dict[str, Any], expected: str) -> None:
    assert words(contract, record) == expected


def test_tail_leaves_no_consumer_group_behind(settings: Settings, tmp_path: Path) -> None:
    from kafka.admin import KafkaAdminClient

    list(tail(settings, [settings.topics.clicks], from_beginning=True, follow=False))
    admin = KafkaAdminClient(**settings.kafka_python())
    groups = admin.list_groups()
    admin.close()
    assert settings.app_id not in json.dumps(groups, default=str)
