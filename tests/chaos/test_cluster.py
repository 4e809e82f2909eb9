"""Three real brokers: what is acknowledged outlives the broker that took it, and writes stop rather than lose."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from streams.config import Settings
from streams.doctor import CHECKS
from streams.local_cluster import LocalCluster
from streams.offsets import bounds, places, read_range
from streams.topics import create_topics, list_topics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def settings(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    found = Settings(brokers=cluster.address, partitions=2, replication=3, data_dir=tmp_path_factory.mktemp("data"))
    create_topics(found)
    return found


def sent(settings: Settings, values: list[bytes], timeout_s: float = 60) -> tuple[list[bytes], list[str]]:
    """What was acknowledged, and why the others were not."""
    taken: list[bytes] = []
    refused: list[str] = []

    def told(error: KafkaException | None, message: Message) -> None:
        if error is None:
            taken.append(message.value())
        else:
            refused.append(str(error))

    conf = {"acks": "all", "enable.idempotence": True, "delivery.timeout.ms": int(timeout_s * 1000), "log_level": 0}
    producer = Producer({**settings.librdkafka(), **conf})
    for value in values:
        producer.produce(settings.topics.labels, value=value, partition=0, on_delivery=told)
    producer.flush(timeout_s + 10)
    return taken, refused


def on_topic(settings: Settings) -> list[bytes]:
    place = next(each for each in places(settings, settings.topics.labels) if each[1] == 0)
    low, high = bounds(settings, [place])[place]
    return [m.value() for batch in read_range(settings, *place, low, high) for m in batch]


def test_topics_have_three_replicas_and_two_must_be_in_sync(settings: Settings) -> None:
    states = list_topics(settings)
    assert {state.replication for state in states} == {3}
    assert {state.config["min.insync.replicas"] for state in states} == {"2"}
    assert {each.state for each in CHECKS["topics"].check(settings)} == {"well"}
    assert {each.state for each in CHECKS["broker"].check(settings)} == {"well"}


def test_what_was_acknowledged_outlives_its_leader(cluster: LocalCluster, settings: Settings) -> None:
    first, _ = sent(settings, [b"before %d" % number for number in range(200)])
    assert len(first) == 200
    leader = cluster.leader(settings.topics.labels, 0)
    leader.kill()
    second, refused = sent(settings, [b"after %d" % number for number in range(200)])
    assert (len(second), refused) == (200, [])
    assert on_topic(settings) == [*first, *second]
    assert cluster.leader(settings.topics.labels, 0) is not leader
    leader.start()
    caught_up(settings)


def caught_up(settings: Settings, timeout_s: float = 60) -> None:
    """Waits until all three are in sync again."""
    client = AdminClient(settings.librdkafka())
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        found = client.list_topics(settings.topics.labels, timeout=10).topics[settings.topics.labels]
        if all(len(each.isrs) == 3 for each in found.partitions.values()):
            return
        time.sleep(0.2)
    pytest.fail("a broker did not come back into sync")


def test_the_cluster_goes_on_when_its_controller_is_killed(cluster: LocalCluster, settings: Settings) -> None:
    controller = cluster.controller()
    controller.kill()
    taken, refused = sent(settings, [b"no controller %d" % number for number in range(50)])
    assert (len(taken), refused) == (50, [])
    assert cluster.controller() is not controller
    controller.start()
    caught_up(settings)


def test_one_broker_alone_takes_nothing_rather_than_lose_it(cluster: LocalCluster, settings: Settings) -> None:
    kept = on_topic(settings)
    for broker in cluster.brokers[1:]:
        broker.kill()
    taken, refused = sent(settings, [b"alone"], timeout_s=8)
    assert taken == []
    assert len(refused) == 1
    for broker in cluster.brokers[1:]:
        broker.start(timeout=120)
    caught_up(settings)
    assert [value for value in on_topic(settings) if value != b"alone"] == kept


def test_data_and_ports_stay(tmp_path: Path) -> None:
    assert LocalCluster(tmp_path).address == LocalCluster(tmp_path).address
