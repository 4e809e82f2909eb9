"""A compacted topic in memory: read whole, then followed, whatever the broker does."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from schemas.errors import BadRecord, BrokerUnavailable, HeadraceError, RegistryUnavailable, SettingsError
from streams.compacted import Compacted
from streams.config import Settings
from streams.local import LocalBroker
from streams.offsets import places
from streams.ports import free_port
from streams.topics import create_topics

Follow = Callable[..., Compacted]


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Follow]:
    """`follow(settings, topic, apply)`: a Compacted that ends with the test and tries again soon."""
    monkeypatch.setattr("streams.compacted.RETRY_S", 0.05)
    monkeypatch.setattr("streams.compacted.WIDEN_S", 0.2)
    started: list[Compacted] = []

    def start(settings: Settings, topic: str, apply: Callable[[bytes, bytes | None], None]) -> Compacted:
        started.append(Compacted(settings, topic, apply))
        return started[-1]

    yield start
    for compacted in started:
        compacted.stop()


def publish(settings: Settings, topic: str, *records: tuple[bytes, bytes | None], partition: int = -1) -> None:
    refused: list[KafkaError] = []
    producer = Producer(settings.librdkafka())
    for key, value in records:
        producer.produce(topic, value, key, partition, lambda error, _: refused.append(error) if error else None)
    assert producer.flush(60) == 0
    assert refused == []


class Table:
    """Newest values by key, and how to wait for a change."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.changed = threading.Event()

    def apply(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = value
        self.changed.set()


def test_all_partitions_are_read_and_then_followed(settings: Settings, follow: Follow) -> None:
    topic, table = settings.topics.entity_state, Table()
    publish(settings, topic, *[(str(number).encode(), b"old") for number in range(100)])
    compacted = follow(settings, topic, table.apply)
    compacted.wait_current(20)
    assert len(table.rows) == 100
    publish(settings, topic, (b"7", b"new"), (b"8", None))
    compacted.wait_current(20)
    assert table.rows[b"7"] == b"new"
    assert b"8" not in table.rows
    assert compacted.error is None


def test_an_empty_topic_is_current_at_once(settings: Settings, follow: Follow) -> None:
    follow(settings, settings.topics.releases, Table().apply).wait_current(20)


def test_order_within_a_partition_is_kept(settings: Settings, follow: Follow) -> None:
    topic = settings.topics.releases
    seen: list[bytes | None] = []
    publish(settings, topic, *[(b"k", str(number).encode()) for number in range(20_000)])
    follow(settings, topic, lambda key, value: seen.append(value)).wait_current(20)
    assert seen == [str(number).encode() for number in range(20_000)]


def test_records_of_a_transaction_make_no_hole_in_the_end(settings: Settings, follow: Follow) -> None:
    topic, table = settings.topics.releases, Table()
    producer = Producer({**settings.librdkafka(), "transactional.id": topic})
    producer.init_transactions(10)
    for value in (b"kept", b"dropped"):
        producer.begin_transaction()
        producer.produce(topic, value, value, 0)
        producer.flush(10)
        producer.commit_transaction(10) if value == b"kept" else producer.abort_transaction(10)
    compacted = follow(settings, topic, table.apply)
    producer.begin_transaction()
    producer.produce(topic, b"last", b"last", 0)
    producer.commit_transaction(10)
    assert table.changed.wait(20)
    compacted.wait_current(20)
    assert b"dropped" not in table.rows


def test_a_record_that_is_refused_is_skipped_and_shown(settings: Settings, follow: Follow) -> None:
    topic, table = settings.topics.releases, Table()

    def apply(key: bytes, value: bytes | None) -> None:
        if value == b"bad":
            raise BadRecord("undecodable", "no record")
        table.apply(key, value)

    publish(settings, topic, (b"a", b"good"), (b"b", b"bad"), (b"c", b"good"))
    compacted = follow(settings, topic, apply)
    compacted.wait_current(20)
    assert sorted(table.rows) == [b"a", b"c"]
    assert isinstance(compacted.error, BadRecord)
    assert compacted.skipped == 1


def test_a_retriable_error_holds_the_topic_up_until_it_passes(settings: Settings, follow: Follow) -> None:
    topic, table = settings.topics.releases, Table()
    away, asked = threading.Event(), threading.Event()
    away.set()

    def apply(key: bytes, value: bytes | None) -> None:
        asked.set()
        if away.is_set():
            raise RegistryUnavailable("the registry is away")
        table.apply(key, value)

    publish(settings, topic, (b"a", b"1"), (b"b", b"2"))
    compacted = follow(settings, topic, apply)
    assert asked.wait(20)
    with pytest.raises(RegistryUnavailable):
        compacted.wait_current(0.5)
    assert table.rows == {}
    away.clear()
    compacted.wait_current(20)
    assert table.rows == {b"a": b"1", b"b": b"2"}
    assert compacted.error is None
    assert compacted.skipped == 0


def test_a_fault_of_apply_is_raised_to_who_waits(settings: Settings, follow: Follow) -> None:
    def apply(key: bytes, value: bytes | None) -> None:
        raise ZeroDivisionError

    publish(settings, settings.topics.releases, (b"a", b"1"))
    compacted = follow(settings, settings.topics.releases, apply)
    with pytest.raises(ZeroDivisionError):
        compacted.wait_current(20)


def test_a_topic_that_does_not_exist_yet_is_waited_for(fresh_settings: Callable[..., Settings], follow: Follow) -> None:
    settings, table = fresh_settings(create=False), Table()
    compacted = follow(settings, settings.topics.releases, table.apply)
    with pytest.raises(SettingsError, match=r"models\.releases.*headrace topics create"):
        compacted.wait_current(2)
    create_topics(settings)
    compacted.wait_current(20)
    assert compacted.error is None


def test_new_partitions_are_taken_up(settings: Settings, follow: Follow) -> None:
    topic, table = settings.topics.entity_state, Table()
    compacted = follow(settings, topic, table.apply)
    compacted.wait_current(20)
    admin = AdminClient(settings.librdkafka())
    for answer in admin.create_partitions([NewPartitions(topic, 3)]).values():
        answer.result()
    while len(places(settings, topic)) < 3:  # the controller's answer comes before the broker knows
        time.sleep(0.05)
    publish(settings, topic, (b"a", b"1"), partition=2)
    assert table.changed.wait(20)
    assert table.rows == {b"a": b"1"}


def test_a_broker_that_is_away_is_said_and_nothing_ends() -> None:
    compacted = Compacted(Settings(brokers=f"127.0.0.1:{free_port()}"), "models.releases", Table().apply)
    with pytest.raises(BrokerUnavailable, match=r"models\.releases"):
        compacted.wait_current(0.5)
    compacted.stop()


def test_a_broker_restart_is_survived(tmp_path: Path, follow: Follow) -> None:
    broker = LocalBroker(tmp_path / "kafka", outlive=False)
    broker.start()
    settings = Settings(brokers=broker.address, data_dir=tmp_path, partitions=1)
    create_topics(settings)
    table = Table()
    publish(settings, settings.topics.releases, (b"a", b"1"))
    compacted = follow(settings, settings.topics.releases, table.apply)
    compacted.wait_current(20)
    broker.kill()
    with pytest.raises(HeadraceError):
        compacted.wait_current(1)
    table.changed.clear()
    with ThreadPoolExecutor() as pool:
        published = pool.submit(publish, settings, settings.topics.releases, (b"b", b"2"))
        broker.start()
        published.result()
    assert table.changed.wait(30)
    compacted.wait_current(20)
    assert table.rows == {b"a": b"1", b"b": b"2"}
    assert compacted.error is None
    broker.stop()
