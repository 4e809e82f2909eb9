"""Publishing files: validated first, keyed and placed as Java clients do, and never half of a bad file."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadRecord, BrokerUnavailable, ProduceFailed, RegistryUnavailable, SettingsError
from schemas.registry import MemoryRegistry
from schemas.values import from_json
from schemas.wire import Decoder
from streams.clients import consumer
from streams.config import Settings
from streams.contracts import CONTRACTS, KEYS, topic_contract, writable
from streams.partitioning import partition_for
from streams.publish import Summary, _spooled, _whole, publish
from streams.raw import RawRecord
from streams.tail import tail

WriteRows = Callable[..., str]


def click(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "event_time": "2026-01-31T12:00:00Z",
        "user_id": f"u{number % 7}",
        "action": "click",
        "item_id": "i1",
    } | fields


@pytest.fixture
def rows(tmp_path: Path) -> WriteRows:
    def write(*values: object, name: str = "rows.ndjson") -> str:
        path = tmp_path / name
        lines = [value if isinstance(value, str) else json.dumps(value) for value in values]
        path.write_text("\n".join(lines), "utf-8")
        return str(path)

    return write


@pytest.fixture
def registry_twin() -> MemoryRegistry:
    return MemoryRegistry()


def published(settings: Settings, topic: str) -> list[RawRecord]:
    return list(tail(settings, [topic], from_beginning=True, follow=False))


def test_rows_arrive_decodable_under_their_key_in_the_key_s_partition(
    settings: Settings, rows: WriteRows, registry_twin: MemoryRegistry
) -> None:
    clicks = [click(number) for number in range(50)]
    summary = publish(settings, registry_twin, "clicks", rows(*clicks))
    assert (summary.rows, summary.published, summary.bad.total()) == (50, 50, 0)
    decode = Decoder(registry_twin, "click")
    messages = published(settings, settings.topics.clicks)
    found = {record["event_id"]: record for record in (decode(message.value) for message in messages)}
    assert found == {row["event_id"]: from_json("click", row) for row in clicks}
    for message in messages:
        key = decode(message.value)["user_id"].encode()
        assert message.key == key
        assert message.partition == partition_for(key, settings.partitions)


def test_a_bad_row_of_a_file_means_that_nothing_was_published(
    settings: Settings, rows: WriteRows, registry_twin: MemoryRegistry
) -> None:
    path = rows(*(click(number) for number in range(20)), click(20, action="clik"), click(21))
    with pytest.raises(BadRecord) as caught:
        publish(settings, registry_twin, "clicks", path)
    assert published(settings, settings.topics.clicks) == []
    message = str(caught.value)
    assert f"{path}:21, action" in message
    assert "'clik'" in message
    assert "nothing was published" in message


def test_bad_rows_can_be_skipped_and_are_counted_by_reason(
    settings: Settings, rows: WriteRows, registry_twin: MemoryRegistry
) -> None:
    path = rows(click(0), "{", click(1, event_time="yesterday"), click(2, position=-1), click(3))
    summary = publish(settings, registry_twin, "clicks", path, skip_bad=True)
    assert (summary.rows, summary.published) == (5, 2)
    assert summary.bad == {"undecodable": 1, "wrong_type": 1, "out_of_range": 1}
    assert any(f"{path}:3, event_time" in example for example in summary.examples)
    assert len(published(settings, settings.topics.clicks)) == 2


def test_stdin_is_published_as_it_comes_up_to_a_bad_row(
    settings: Settings, registry_twin: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join([json.dumps(click(0)), json.dumps(click(1)), "{", json.dumps(click(2))])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    with pytest.raises(BadRecord, match="stdin:3"):
        publish(settings, registry_twin, "clicks", "-")
    assert len(published(settings, settings.topics.clicks)) == 2


def test_parquet_is_published_with_its_amounts_exact(
    settings: Settings, tmp_path: Path, registry_twin: MemoryRegistry
) -> None:
    path = tmp_path / "items.parquet"
    table = {"item_id": ["a"], "text": ["a lamp"], "price": ["12.3456"], "updated_at": [1_769_860_800_000]}
    pq.write_table(pa.table(table), path)
    publish(settings, registry_twin, "items", str(path))
    [message] = published(settings, settings.topics.items)
    record = Decoder(registry_twin, "catalog_item")(message.value)
    assert int.from_bytes(record["price"], "big", signed=True) == 123_456


def test_headers_go_with_every_record(settings: Settings, rows: WriteRows, registry_twin: MemoryRegistry) -> None:
    from kafka import KafkaConsumer, TopicPartition

    publish(settings, registry_twin, "clicks", rows(click(0)), headers=[("mark", b"1")])
    [message] = published(settings, settings.topics.clicks)
    client = KafkaConsumer(**settings.kafka_python())
    place = TopicPartition(message.topic, message.partition)
    client.assign([place])
    client.seek(place, message.offset)
    [[record]] = client.poll(timeout_ms=10_000).values()
    client.close()
    assert list(record.headers) == [("mark", b"1")]


def test_a_dry_run_needs_no_broker(rows: WriteRows, registry_twin: MemoryRegistry) -> None:
    settings = Settings(brokers="127.0.0.1:1")
    summary = publish(settings, registry_twin, "clicks", rows(click(0), click(1)), dry_run=True)
    assert (summary.rows, summary.published) == (2, 0)


BAD_ROWS = [
    ("clicks", {"event_id": "e"}, "wrong_type", "event_time"),
    ("clicks", click(0, user_id=""), "out_of_range", "user_id"),
    ("clicks", click(0, event_time=0), "out_of_range", "event_time"),
    ("clicks", click(0, query="x" * 2_000), "oversized", "max_message_bytes"),
    ("items", {"item_id": "", "text": "x", "updated_at": 0}, "out_of_range", "item_id"),
    ("items", {"item_id": "a", "text": "x", "updated_at": 0, "price": "much"}, "wrong_type", "price"),
    ("items", {"item_id": "a", "text": "x", "updated_at": 0, "price": "-5.00"}, "out_of_range", "price"),
    ("labels", [], "wrong_type", "JSON object"),
]


@pytest.mark.parametrize(("topic", "row", "code", "words"), BAD_ROWS)
def test_a_row_is_refused_with_its_place_and_field(
    topic: str, row: object, code: str, words: str, rows: WriteRows, registry_twin: MemoryRegistry
) -> None:
    path = rows(row)
    with pytest.raises(BadRecord) as caught:
        publish(Settings(max_message_bytes=1_000), registry_twin, topic, path, dry_run=True)
    assert caught.value.code == code
    assert f"{path}:1" in str(caught.value)
    assert words in str(caught.value)


def test_a_topic_that_does_not_exist_is_said_at_once(
    settings: Settings, rows: WriteRows, registry_twin: MemoryRegistry
) -> None:
    elsewhere = Settings(brokers=settings.brokers, topics={"clicks": "never.made"})
    with pytest.raises(SettingsError, match=r"never\.made does not exist"):
        publish(elsewhere, registry_twin, "clicks", rows(click(0)))


def test_a_record_that_the_broker_refuses_is_an_error_with_the_count(
    fresh_settings: Callable[..., Settings], rows: WriteRows, registry_twin: MemoryRegistry
) -> None:
    settings = fresh_settings(create=False)
    narrow = NewTopic(settings.topics.clicks, 1, config={"max.message.bytes": "300"})
    admin = AdminClient(settings.librdkafka())
    for made in admin.create_topics([narrow]).values():
        made.result(30)
    with consumer(settings) as client:
        while not client.partitions_for_topic(settings.topics.clicks):
            pass  # the broker says "made" a moment before it knows it
    with pytest.raises(ProduceFailed, match="0 of the rows were published"):
        publish(settings, registry_twin, "clicks", rows(click(0, query="x" * 2_000)))
    assert published(settings, settings.topics.clicks) == []


def test_no_broker_and_no_registry_are_each_said(rows: WriteRows, registry_twin: MemoryRegistry) -> None:
    path = rows(click(0))
    with pytest.raises(BrokerUnavailable, match="no broker listens"):
        publish(Settings(brokers="127.0.0.1:1"), registry_twin, "clicks", path)
    registry_twin.available = False
    with pytest.raises(RegistryUnavailable):
        publish(Settings(), registry_twin, "clicks", path)


def test_a_topic_is_named_by_its_name_or_its_setting() -> None:
    settings = Settings(topics={"clicks": "shop.clicks"})
    assert topic_contract(settings, "clicks") == topic_contract(settings, "shop.clicks")
    with pytest.raises(SettingsError, match=r"shop\.clicks, as the nearest"):
        topic_contract(settings, "shop.click")


def test_only_a_shop_s_own_topics_can_be_written() -> None:
    settings = Settings()
    for setting in CONTRACTS:
        if setting in KEYS:
            assert writable(settings, setting).key_field == KEYS[setting]
        else:
            with pytest.raises(SettingsError, match="written by Headrace itself"):
                writable(settings, setting)


@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=99))))
def test_what_waited_for_the_end_of_the_file_comes_out_unchanged(messages: list[tuple[bytes, bytes]]) -> None:
    assert list(_whole(iter(messages))) == messages
    assert list(_spooled(io.BytesIO())) == []


def test_only_the_first_bad_rows_are_kept_as_examples() -> None:
    summary = Summary("t")
    for number in range(9):
        summary.skip(BadRecord("truncated", f"row {number}"))
    assert summary.bad == {"truncated": 9}
    assert summary.examples == ["row 0", "row 1", "row 2"]
