"""The embedded Kafka and registry, for real: data and schema ids survive, nothing is left running."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.errors import BrokerUnavailable, SettingsError
from streams.config import Settings
from streams.local import LocalBroker, LocalRegistry, local_servers


def create(broker: LocalBroker, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(10)


def produce(broker: LocalBroker, topic: str, values: list[bytes], **more: str | int) -> list[str]:
    """Produces with acks=all; the errors of what was refused."""
    refused: list[str] = []
    producer = Producer({"bootstrap.servers": broker.address, "acks": "all", "log_level": 0, **more})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: refused.append(error.name()) if error else None)
    assert producer.flush(20) == 0
    return refused


def read_all(broker: LocalBroker, topic: str, count: int) -> list[bytes]:
    conf = {
        "bootstrap.servers": broker.address,
        "group.id": "reader",
        "auto.offset.reset": "earliest",
        "log_level": 0,
    }
    consumer = Consumer(conf)
    consumer.assign([TopicPartition(topic, 0, 0)])
    values = [message.value() for message in consumer.consume(count, 20)]
    consumer.close()
    return values


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A broker that may be stopped and killed, beside the shared one."""
    server = LocalBroker(tmp_path_factory.mktemp("own-kafka"), outlive=False)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "killed"])
def test_acknowledged_records_survive(own_broker: LocalBroker, crash: bool) -> None:
    topic, values = f"kept-{crash}", [b"%d" % number for number in range(100)]
    create(own_broker, topic)
    assert not produce(own_broker, topic, values)
    address = own_broker.address
    own_broker.restart(crash=crash)
    assert own_broker.address == address
    assert read_all(own_broker, topic, 100) == values


def test_broker_properties_apply_at_the_next_start(own_broker: LocalBroker) -> None:
    create(own_broker, "small")
    assert not produce(own_broker, "small", [bytes(100)])
    own_broker.properties["message.max.bytes"] = "80"
    own_broker.restart()
    assert produce(own_broker, "small", [bytes(100)]) == ["MSG_SIZE_TOO_LARGE"]


def test_a_misspelt_topic_does_not_come_into_being(own_broker: LocalBroker) -> None:
    assert produce(own_broker, "mispelt", [b"value"], **{"message.timeout.ms": 1_000})
    assert "mispelt" not in AdminClient({"bootstrap.servers": own_broker.address}).list_topics(timeout=10).topics


def test_brokers_side_by_side_know_nothing_of_each_other(broker: LocalBroker, own_broker: LocalBroker) -> None:
    create(own_broker, "mine")
    assert "mine" not in AdminClient({"bootstrap.servers": broker.address}).list_topics(timeout=10).topics
    assert broker.port != own_broker.port


def test_a_property_that_kafka_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path, properties={"num.io.threads": "none"}, outlive=False)
    with pytest.raises(BrokerUnavailable, match=r"num\.io\.threads"):
        broker.start()
    assert not broker.status().running


def test_a_stopped_broker_is_gone(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path, outlive=False)
    broker.start()
    broker.stop()
    assert not broker.answers()
    assert not broker.status().running
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": broker.address, "log_level": 0}).list_topics(timeout=0.5)


def register(registry: LocalRegistry, name: str) -> int:
    schema = json.dumps({"schema": json.dumps({"type": "record", "name": name, "fields": []})})
    request = urllib.request.Request(
        f"{registry.url}/subjects/{name}-value/versions",
        schema.encode(),
        {"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        return int(json.load(reply)["id"])


def schema_name(registry: LocalRegistry, schema_id: int) -> str:
    with urllib.request.urlopen(f"{registry.url}/schemas/ids/{schema_id}", timeout=10) as reply:
        return str(json.loads(json.load(reply)["schema"])["name"])


def test_schema_ids_survive_a_restart_and_a_crash_at_once(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, outlive=False)
    registry.start()
    ids: dict[str, int] = {}
    for name, crash in (("first", False), ("second", True)):
        ids[name] = register(registry, name)
        registry.restart(crash=crash)
        assert {name: schema_name(registry, schema_id) for name, schema_id in ids.items()} == {n: n for n in ids}
    assert len(set(ids.values())) == 2
    assert register(registry, "first") == ids["first"]
    registry.stop()
    assert not registry.answers()


def test_an_unknown_schema_id_is_a_404(registry: LocalRegistry) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        schema_name(registry, 999_999)
    caught.value.close()
    assert caught.value.code == 404


def test_the_servers_listen_on_this_machine_only(broker: LocalBroker, registry: LocalRegistry) -> None:
    for server in (broker, registry):
        addresses = listening_addresses(server.status().pid or 0)
        assert addresses
        assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}


def listening_addresses(pid: int) -> set[str]:
    """Addresses, as the kernel writes them, of the listening sockets of a process."""
    mine = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            cells = row.split()
            if cells[3] == "0A" and f"socket:[{cells[9]}]" in mine:
                found.add(cells[1].split(":")[0])
    return found


def test_the_settings_say_where_the_servers_are(tmp_path: Path) -> None:
    settings = Settings(
        brokers="127.0.0.1:19092", registry_url="http://localhost:18081/apis/ccompat/v7", data_dir=tmp_path
    )
    broker, registry = local_servers(settings)
    assert (broker.address, broker.folder.parent) == ("127.0.0.1:19092", tmp_path)
    assert (registry.url, registry.folder.parent) == ("http://127.0.0.1:18081/apis/ccompat/v7", tmp_path)
    assert not broker.status().running


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"brokers": "kafka.example.org:9092"},
        {"brokers": "127.0.0.1:1,127.0.0.1:2"},
        {"registry_url": "https://registry.example.org"},
    ],
)
def test_servers_of_somebody_else_are_not_ours_to_start(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="this machine only"):
        local_servers(Settings(data_dir=tmp_path, **elsewhere))
