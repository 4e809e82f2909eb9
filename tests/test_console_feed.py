"""The console on a real broker: alerts and labels come, verdicts go, and what is deleted is read anew."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient

from schemas.confluent import ConfluentRegistry
from schemas.errors import DataUnavailable
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.console import desk
from streams.console.feed import Feed
from streams.console.service import Console
from streams.console.speaker import Labels, Orders
from streams.console.store import Applied, Store
from streams.local import LocalRegistry
from streams.topics import create_topics
from tests.conftest import FreshSettings
from tests.console_shop import DAY, NOW_MS, alert, alert_id, label
from tests.records import order
from tests.shop import read, send, wait_for


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    return fresh_settings(console={"port": 0})


@pytest.fixture
def schemas(settings: Settings) -> Iterator[ConfluentRegistry]:
    with closing(ConfluentRegistry(settings.registry())) as client:
        yield client


class Running:
    """A feed into a store of its own, and what it told."""

    def __init__(self, settings: Settings, schemas: ConfluentRegistry) -> None:
        self.told: list[Applied] = []
        self.store = Store(settings.data_dir / "console")
        self.feed = Feed(settings, schemas, self.store, self.told.append, lambda: NOW_MS)

    def orders(self) -> dict[str, float | None]:
        """By order, its answer."""
        with self.store.reading() as connection:
            return {row[0]: row[1] for row in connection.execute("SELECT order_id, answer FROM alerts")}

    def end(self) -> None:
        self.feed.stop()
        self.store.close()


Start = Callable[[], Running]


@pytest.fixture
def start(settings: Settings, schemas: ConfluentRegistry) -> Iterator[Start]:
    running: list[Running] = []

    def begin() -> Running:
        made = Running(settings, schemas)
        running.append(made)
        made.feed.wait_current(30)
        return made

    yield begin
    for one in running:
        one.end()


def publish(settings: Settings, schemas: ConfluentRegistry, *order_ids: str) -> None:
    encode = Encoder(schemas, settings.topics.alerts, "fraud_alert")
    for order_id in order_ids:
        send(settings, settings.topics.alerts, order_id.encode(), encode(alert(order_id)))


def test_what_is_on_the_topics_is_in_the_store_and_what_comes_is_told(
    settings: Settings, schemas: ConfluentRegistry, start: Start
) -> None:
    publish(settings, schemas, "a", "b")
    Labels(settings, schemas).say(*label("a", 1.0))
    console = start()
    assert console.orders() == {"a": 1.0, "b": None}
    publish(settings, schemas, "c")
    wait_for(lambda: console.told and console.told[-1].new == [alert_id("c")])
    assert console.feed.error is None


def test_a_restart_reads_on_and_nothing_twice(settings: Settings, schemas: ConfluentRegistry, start: Start) -> None:
    publish(settings, schemas, "a")
    first = start()
    first.end()
    publish(settings, schemas, "b")
    second = start()
    assert [name for applied in second.told for name in applied.new] == [alert_id("b")]
    assert second.orders().keys() == {"a", "b"}


def test_a_deleted_store_is_read_anew(settings: Settings, schemas: ConfluentRegistry, start: Start) -> None:
    publish(settings, schemas, "a", "b")
    start().end()
    shutil.rmtree(settings.data_dir / "console")
    assert start().orders().keys() == {"a", "b"}


def test_a_topic_that_was_made_anew_is_read_from_its_beginning(
    settings: Settings, schemas: ConfluentRegistry, start: Start
) -> None:
    publish(settings, schemas, "a", "b")
    start().end()
    admin = AdminClient(settings.librdkafka())
    admin.delete_topics([settings.topics.alerts])[settings.topics.alerts].result()
    wait_for(lambda: settings.topics.alerts not in admin.list_topics(timeout=10).topics)
    create_topics(settings)
    publish(settings, schemas, "c")
    assert start().orders().keys() == {"a", "b", "c"}


def test_bad_records_and_labels_of_others_are_passed_over(
    settings: Settings, schemas: ConfluentRegistry, start: Start
) -> None:
    send(settings, settings.topics.alerts, b"x", b"this is no alert")
    other = {"task": "ctr", "target_id": "a", "candidate_id": "ad", "name": "click", **label("a", 1.0)[1]._asdict()}
    encode = Encoder(schemas, settings.topics.labels, "label")
    send(settings, settings.topics.labels, b"a", encode(other))
    publish(settings, schemas, "a")
    console = start()
    assert console.orders() == {"a": None}
    assert console.feed.skipped == 1


def test_a_verdict_goes_to_the_label_topic_whole_and_to_its_orders_partition(
    settings: Settings, schemas: ConfluentRegistry
) -> None:
    Labels(settings, schemas).say(*label("a", 1.0))
    assert read(settings, settings.topics.labels, "label") == [
        {
            "label_id": "a-analyst-0", "task": "fraud", "target_id": "a", "candidate_id": None, "name": "fraud",
            "value": 1.0, "source": "analyst", "observed_at": NOW_MS, "revision": 0,
            "withdrawn": False,
        }
    ]  # fmt: skip
    producer = confluent_kafka.Producer({**settings.librdkafka(), "partitioner": "murmur2_random"})
    at: list[int] = []
    for key in (b"a", b"b", b"c", b"d"):
        Labels(settings, schemas).say(*label(key.decode(), 1.0, revision=1))
        producer.produce(
            settings.topics.shadow, b"", key, on_delivery=lambda _, message: at.append(message.partition())
        )
        producer.flush()
    consumer = confluent_kafka.Consumer({**settings.librdkafka(), "group.id": "look", "auto.offset.reset": "earliest"})
    decode = Decoder(schemas, "label")
    found: dict[str, int] = {}
    consumer.assign([confluent_kafka.TopicPartition(settings.topics.labels, n, 0) for n in range(settings.partitions)])
    while len(found) < 4:
        message = consumer.poll(10)
        assert message is not None
        if decode(message.value())["revision"] == 1:
            found[message.key().decode()] = message.partition()
    consumer.close()
    assert [found[name] for name in "abcd"] == at


def test_an_order_is_read_from_where_its_alert_says(settings: Settings, schemas: ConfluentRegistry) -> None:
    encode = Encoder(schemas, settings.topics.orders, "order")
    send(settings, settings.topics.orders, b"u", encode(order(order_id="a", user_id="u")))
    (partition,) = [n for n in range(settings.partitions) if _count(settings, n)]
    orders = Orders(settings, schemas)
    assert orders.read(partition, 0, "a")["order_id"] == "a"
    with pytest.raises(DataUnavailable, match="the order is not where the alert says"):
        Orders(settings, schemas).read(partition, 0, "b")


def _count(settings: Settings, partition: int) -> int:
    consumer = confluent_kafka.Consumer({**settings.librdkafka(), "group.id": "look"})
    place = confluent_kafka.TopicPartition(settings.topics.orders, partition)
    count: int = consumer.get_watermark_offsets(place)[1]
    consumer.close()
    return count


def test_all_of_it_together_with_the_real_audit_log(settings: Settings, schemas: ConfluentRegistry) -> None:
    publish(settings, schemas, "a")
    console = Console(settings, schemas, lambda: NOW_MS + DAY)
    try:
        console.feed.wait_current(30)
        done = console.office.desk.verdict(alert_id("a"), 1.0, "anna", NOW_MS + DAY)
        assert done.kind == desk.PUBLISHED
        console.feed.wait_current(30)
        (entry,) = read(settings, settings.topics.audit, "audit_entry")
        assert (entry["action"], entry["subject"]) == ("verdict", "a")
        with console.office.store.reading() as connection:
            kept = connection.execute("SELECT count(*) FROM changes").fetchone()[0]
            told = connection.execute("SELECT count(*) FROM labels").fetchone()[0]
        assert (kept, told) == (1, 1)
    finally:
        console.close()


def test_old_alerts_go(
    settings: Settings, schemas: ConfluentRegistry, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.console.feed.LOOK_S", 0.1)
    encode = Encoder(schemas, settings.topics.alerts, "fraud_alert")
    send(settings, settings.topics.alerts, b"old", encode(alert("old", raised_at=NOW_MS - 91 * DAY)))
    publish(settings, schemas, "a")
    console = start()
    wait_for(lambda: console.orders().keys() == {"a"})


def test_a_deleted_alert_takes_its_notes_and_its_order_along(settings: Settings, schemas: ConfluentRegistry) -> None:
    publish(settings, schemas, "a", "b")
    encode = Encoder(schemas, settings.topics.orders, "order")
    send(settings, settings.topics.orders, b"u", encode(order(order_id="a", user_id="u")))
    partition = next(n for n in range(settings.partitions) if _count(settings, n))
    with closing(Console(settings, schemas, lambda: NOW_MS)) as console:
        console.feed.wait_current(30)
        for name in "ab":
            console.office.desk.note(alert_id(name), f"about {name}", "anna", NOW_MS)
        assert console.office.orders is not None
        console.office.orders.read(partition, 0, "a")
        producer = confluent_kafka.Producer({**settings.librdkafka(), "partitioner": "murmur2_random"})
        producer.produce(settings.topics.alerts, None, b"a")
        producer.flush()
        wait_for(lambda: console.office.desk.notes.of("a") == [])
        assert [note.text for note in console.office.desk.notes.of("b")] == ["about b"]
        assert not console.office.orders._kept
        console.feed.wait_current(30)
        with console.office.store.reading() as connection:
            assert [row[0] for row in connection.execute("SELECT order_id FROM alerts")] == ["b"]
    files = b"".join(path.read_bytes() for path in (settings.data_dir / "console").iterdir())
    assert b"about" not in files  # notes are on their topic
