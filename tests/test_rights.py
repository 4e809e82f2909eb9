"""Least rights, on a real broker that refuses what is not allowed: each role can do its work, with SCRAM and with a
client certificate, and nothing else; who proves to be nobody gets nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer
from typer.testing import CliRunner

from streams.cli import app
from streams.config import Settings
from streams.local import LocalRegistry
from streams.ports import free_port
from streams.rights import ROLES, commands, worker
from tests import shop
from tests.guarded_broker import PASSWORD, Guarded, guarded_broker
from tests.records import NOON_MS, click, impression, order

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
QUIET = {"log_level": 0}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, registry: LocalRegistry) -> Iterator[Guarded]:
    store, _ = shop.releases()
    over = {
        "registry_url": registry.url,
        "release_store": store,
        "web": {"port": free_port()},
        "deadlines_ms": {"fraud": 60_000, "recommendations": 60_000, "ctr": 60_000},
    }
    with guarded_broker(tmp_path_factory.mktemp("guarded"), **over) as found:
        for name in ("worker", "learner", "publisher", "consumer", "webhooks"):
            found.enrol(name)
            found.allow(name, name)
        found.enrol("stranger")
        found.allow("certified", "publisher")
        yield found


def writes(settings: Settings, topic: str, **conf: Any) -> str:
    """Empty if a record was taken, else why not."""
    told: list[str] = []

    def report(error: Any, _: Message) -> None:
        told.append("" if error is None else error.name())

    producer = Producer({**settings.librdkafka(), **QUIET, "delivery.timeout.ms": 8_000, **conf})
    producer.produce(topic, value=b"x", on_delivery=report)
    producer.flush(12)
    return told[0]


def reads(settings: Settings, topic: str, group: str) -> str:
    """Empty if the group could be joined and a record be read, else why not."""
    consumer = Consumer({**settings.librdkafka(), **QUIET, "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    try:
        for _ in range(60):
            if (message := consumer.poll(0.5)) is not None:
                return message.error().name() if message.error() else ""
        return "nothing came"
    finally:
        consumer.close()


def transacts(settings: Settings, transactional_id: str, topic: str) -> str:
    producer = Producer({**settings.librdkafka(), **QUIET, "transactional.id": transactional_id})
    try:
        producer.init_transactions(10)
        producer.begin_transaction()
        producer.produce(topic, key=b"k", value=b"x")
        producer.commit_transaction(10)
    except KafkaException as error:
        return str(error.args[0].name())
    return ""


def test_a_whole_worker_runs_on_the_rights_of_its_role_alone(guarded: Guarded, tmp_path: Path) -> None:
    shop.furnish(guarded.open)
    sent = [
        ("clicks", click(event_id="c", user_id="u", event_time=NOON_MS)),
        ("impressions", impression(event_id="i", user_id="u", request_id="r", event_time=NOON_MS + 1)),
        ("orders", order(event_id="o", user_id="u", order_id="1", event_time=NOON_MS + 2)),
    ]
    with shop.worker(guarded.scram("worker"), tmp_path / "worker.log") as running:
        shop.publish(guarded.scram("publisher"), sent)
        for task, event in (("recommendations", "c"), ("ctr", "i"), ("fraud", "o")):
            topic = guarded.open.topics.served(task)
            shop.wait_for(lambda topic=topic, event=event: said(guarded, topic) == [event], 60)
        assert running.end() == 0
    log = (tmp_path / "worker.log").read_text()
    assert "AuthorizationFailed" not in log
    assert "AUTHORIZATION" not in log
    assert PASSWORD not in log


def said(guarded: Guarded, topic: str) -> list[str]:
    return [record["event_id"] for record in shop.read(guarded.open, topic, "served")]


def test_a_worker_writes_what_it_must_and_not_the_pointers(guarded: Guarded) -> None:
    settings = guarded.scram("worker")
    topics = settings.topics
    for topic in (topics.scores_fraud, topics.served_ctr, topics.alerts, topics.deadletters, topics.clicks):
        assert writes(settings, topic) == "", topic
    for topic in (topics.releases, topics.policies, topics.audit, topics.examples):
        assert writes(settings, topic) == "TOPIC_AUTHORIZATION_FAILED", topic


def test_a_worker_saves_its_state_and_moves_no_pointer(guarded: Guarded) -> None:
    settings = guarded.scram("worker")
    assert transacts(settings, "headrace-state-0", settings.topics.state) == ""
    assert transacts(settings, "headrace-releases", settings.topics.state).endswith("AUTHORIZATION_FAILED")


def test_a_worker_joins_its_group_and_no_other(guarded: Guarded) -> None:
    settings = guarded.scram("worker")
    assert writes(guarded.open, settings.topics.orders) == ""
    assert reads(settings, settings.topics.orders, "headrace") == ""
    assert reads(settings, settings.topics.orders, "somebody-else") == "GROUP_AUTHORIZATION_FAILED"


def test_a_learner_moves_pointers_and_writes_no_scores(guarded: Guarded) -> None:
    settings = guarded.scram("learner")
    assert transacts(settings, "headrace-releases", settings.topics.releases) == ""
    assert transacts(settings, "headrace-labels-ledger-0", settings.topics.label_state) == ""
    assert writes(settings, settings.topics.scores_fraud) == "TOPIC_AUTHORIZATION_FAILED"


def test_the_shop_publishes_and_reads_nothing(guarded: Guarded) -> None:
    settings = guarded.scram("publisher")
    assert writes(settings, settings.topics.orders, **{"enable.idempotence": True}) == ""
    assert writes(settings, settings.topics.scores_fraud) == "TOPIC_AUTHORIZATION_FAILED"
    assert reads(settings, settings.topics.orders, "headrace") == "GROUP_AUTHORIZATION_FAILED"


def test_a_service_reads_scores_in_a_group_of_its_own_and_writes_nothing(guarded: Guarded) -> None:
    settings = guarded.scram("consumer")
    assert writes(guarded.open, settings.topics.scores_fraud) == ""
    assert reads(settings, settings.topics.scores_fraud, "headrace-consumer-checkout") == ""
    assert reads(settings, settings.topics.scores_fraud, "headrace") == "GROUP_AUTHORIZATION_FAILED"
    assert reads(settings, settings.topics.orders, "headrace-consumer-checkout") == "TOPIC_AUTHORIZATION_FAILED"
    assert writes(settings, settings.topics.scores_fraud) == "TOPIC_AUTHORIZATION_FAILED"


def test_webhooks_read_alerts_and_keep_their_failures(guarded: Guarded) -> None:
    settings = guarded.scram("webhooks")
    assert writes(guarded.open, settings.topics.alerts) == ""
    assert reads(settings, settings.topics.alerts, "headrace-webhooks-shop") == ""
    assert writes(settings, settings.topics.webhooks_failed) == ""
    assert writes(settings, settings.topics.alerts) == "TOPIC_AUTHORIZATION_FAILED"


def test_a_certificate_says_who_it_is(guarded: Guarded) -> None:
    settings = guarded.tls("certified")
    assert writes(settings, settings.topics.clicks) == ""
    assert writes(settings, settings.topics.releases) == "TOPIC_AUTHORIZATION_FAILED"


def test_who_has_no_rights_gets_nothing(guarded: Guarded) -> None:
    for settings in (guarded.scram("stranger"), guarded.tls("unknown")):
        assert writes(settings, settings.topics.clicks) == "TOPIC_AUTHORIZATION_FAILED"


def test_without_a_certificate_or_with_a_wrong_password_nobody_gets_in(guarded: Guarded) -> None:
    bare = Settings(
        brokers=f"127.0.0.1:{guarded.tls_port}", security={"protocol": "SSL", "ca_file": guarded.authority.file}
    )
    for settings in (bare, guarded.scram("worker", "wrong")):
        assert writes(settings, settings.topics.clicks) == "_MSG_TIMED_OUT"


def test_the_commands_are_kafkas_own_and_name_each_right_once() -> None:
    settings = Settings(app_id="shop", brokers="kafka:9092")
    lines = list(commands(settings, "worker", "User:w"))
    assert len(lines) == len(set(lines)) == len(list(worker(settings)))
    assert lines[0].startswith("kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal User:w ")
    [prefixed] = [line for line in lines if "--transactional-id" in line]
    assert prefixed.endswith("--transactional-id 'shop-state-' --resource-pattern-type prefixed")


def test_the_command_prints_them_and_refuses_another_role(logging_as_it_was: None) -> None:
    for role in ROLES.keys() - {"tenant"}:
        done = CliRunner().invoke(app, ["rights", role])
        assert done.exit_code == 0
        assert "--operation READ" in done.stdout or role == "publisher"
    assert CliRunner().invoke(app, ["rights", "king"]).exit_code == 2
