"""A person is forgotten on a running shop: nothing of ours names them, others stay, and no log brings them back."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import confluent_kafka
import numpy as np
import pytest

from engines.releases import ReleaseStore
from schemas.confluent import ConfluentRegistry
from schemas.errors import DataUnavailable
from schemas.wire import Encoder
from streams.audit.chain import verify
from streams.audit.log import read as read_audit
from streams.config import Settings
from streams.features import unpack
from streams.learner.service import Learner
from streams.ports import free_port
from streams.privacy.forget import Forget
from streams.privacy.places import find
from streams.privacy.receipt import verified
from streams.privacy.search import OURS, search
from streams.tasks import make_task
from streams.topics import create_topics
from streams.tracing.lineage import trace
from tests import shop
from tests.conftest import FreshSettings
from tests.records import NOON_MS, click, impression, order
from tests.running import running

ANN, BOB = "ann-7f3a9", "bob-55c01"
NAMES = (ANN, "card-of-ann", "home-of-ann", "mail-of-ann")
PATIENT = {"fraud": 600_000, "recommendations": 600_000, "ctr": 600_000}


def events(user: str, first: int = 0, count: int = 12) -> list[tuple[str, dict[str, Any]]]:
    """Clicks, an impression now and then and an order, in time order; who it is says what they pay with."""
    name, out = user.partition("-")[0], []
    for n in range(first, first + count):
        common = {"event_time": NOON_MS + 1000 * n, "user_id": user}
        out.append(("clicks", click(event_id=f"c{n}-{name}", item_id=f"item-{n % 9}", **common)))
        if n % 4 == 1:
            out.append(("impressions", impression(event_id=f"i{n}-{name}", request_id=f"r{n}-{name}", **common)))
        if n % 4 == 2:
            own = {
                "payment": {"method": "card", "instrument": f"card-of-{name}", "bin": None, "issuer_country": None},
                "email": f"mail-of-{name}", "billing_address": f"home-of-{name}", "shipping_address": f"home-of-{name}",
                "device_id": "device-of-both", "ip": "10.9.9.9",
            }  # fmt: skip
            out.append(("orders", order(event_id=f"o{n}-{name}", order_id=f"order-{n}-{name}", **common, **own)))
    return out


def fraud_label(order_id: str) -> dict[str, Any]:
    return {
        "label_id": f"label of {order_id}", "task": "fraud", "target_id": order_id, "candidate_id": None,
        "name": "fraud", "value": 1.0, "source": "chargeback", "observed_at": NOON_MS + 60_000, "revision": 0,
    }  # fmt: skip


@pytest.fixture
def settings(fresh_settings: FreshSettings, registry: Any, tmp_path: Path) -> Settings:
    store, _ = shop.releases()
    made: Settings = fresh_settings(
        release_store=store, web={"port": free_port()}, learner_web={"port": 0}, deadlines_ms=PATIENT,
        state={"flush_interval_s": 0.5}, session_timeout_s=6.0,
        privacy={"key_file": tmp_path / "key"},
    )  # fmt: skip
    shop.furnish(made)
    return made


def say_labels(settings: Settings, orders: list[str]) -> None:
    producer = confluent_kafka.Producer(settings.librdkafka() | {"partitioner": "murmur2_random"})
    with closing(ConfluentRegistry(settings.registry())) as registry:
        encode = Encoder(registry, settings.topics.labels, "label")
    for order_id in orders:
        producer.produce(settings.topics.labels, encode(fraud_label(order_id)), order_id.encode())
    assert producer.flush(30) == 0


def users(settings: Settings, topic: str, contract: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in shop.read(settings, topic, contract):
        counts[record["user_id"]] = counts.get(record["user_id"], 0) + 1
    return counts


def scored(settings: Settings, *people: str) -> bool:
    """Whether all that these people did at first has its score."""
    wanted = {record["event_id"] for user in people for _, record in events(user)}
    return wanted <= {score["event_id"] for task in settings.tasks for score in shop.scores(settings, task)}


def history_of(settings: Settings, event_id: str) -> int:
    """How many events the score of this click knew of."""
    served = shop.read(settings, settings.topics.served("recommendations"), "served")
    (found,) = [record for record in served if record["event_id"] == event_id]
    row = unpack([found["features"]], make_task("recommendations").features)
    return int(np.count_nonzero(row["kind"]))


def forget(settings: Settings, user: str, wait_s: float = 120) -> dict[str, Any]:
    with closing(ConfluentRegistry(settings.registry())) as registry:
        store = ReleaseStore(settings.release_store)
        return Forget(settings, registry, store, user, wait_s=wait_s, say=print).run()


@pytest.mark.slow
def test_nothing_of_ours_names_who_was_forgotten_and_nobody_else_is_touched(settings: Settings, tmp_path: Path) -> None:
    with shop.worker(settings, tmp_path / "worker.log") as worker, running(Learner(settings)):
        shop.publish(settings, [*events(ANN), *events(BOB)])
        shop.send(settings, settings.topics.clicks, ANN.encode(), b"no avro of " + ANN.encode())
        shop.send(settings, settings.topics.clicks, BOB.encode(), b"no avro of " + BOB.encode())
        shop.wait_for(lambda: scored(settings, ANN, BOB), 60)
        say_labels(settings, ["order-2-ann", "order-2-bob"])
        shop.wait_for(lambda: users(settings, settings.topics.examples, "training_example").keys() >= {ANN, BOB}, 60)
        shop.wait_for(lambda: len(shop.read(settings, settings.topics.deadletters, "dead_letter")) == 2)
        shop.wait_for(lambda: len(states(settings)) >= 5, 60)
        before = counts(settings, BOB)
        said = forget(settings, ANN)
        assert said["open"] == [], (tmp_path / "worker.log").read_text()[-4000:]
        assert [hit for hit in search(settings, *NAMES) if hit.of == OURS] == []
        assert {hit.where for hit in search(settings, ANN)} == set(settings.topics.inputs)
        assert said["of_the_shop"].keys() >= set(settings.topics.inputs)
        assert counts(settings, BOB) == before
        assert states(settings)["device:device-of-both"]["users"] == 1
        assert forget(settings, ANN) == said  # once more changes nothing
        with closing(ConfluentRegistry(settings.registry())) as registry:
            assert verified(settings, registry, said) == ""
            assert verified(settings, registry, said | {"deleted": {}}) != ""
            chain = verify(read_audit(settings, registry))
            with pytest.raises(DataUnavailable, match="erased"):
                trace(settings, registry, "order-2-ann")
        assert (chain.broken, chain.entries) == (None, 2)
        comes_back_as_new(settings)
        assert worker.end() == 0, (tmp_path / "worker.log").read_text()[-4000:]
    restarts(settings, tmp_path)
    reads_all_again(settings, tmp_path)


def comes_back_as_new(settings: Settings) -> None:
    shop.publish(settings, events(ANN, first=100, count=2))
    shop.publish(settings, events(BOB, first=100, count=2))
    shop.wait_for(lambda: scored_again(settings, "c101-ann", "c101-bob"))
    assert history_of(settings, "c101-ann") <= 2
    assert history_of(settings, "c101-bob") > 10


def scored_again(settings: Settings, *ids: str) -> bool:
    served = shop.read(settings, settings.topics.served("recommendations"), "served")
    return {record["event_id"] for record in served} >= set(ids)


def restarts(settings: Settings, tmp_path: Path) -> None:
    """The local copy is gone: the state comes from its log, and from the events after it."""
    shutil.rmtree(settings.data_dir / "state")
    with shop.worker(settings, tmp_path / "again.log"):
        shop.publish(settings, [*events(ANN, first=110, count=1), *events(BOB, first=110, count=1)])
        shop.wait_for(lambda: scored_again(settings, "c110-ann", "c110-bob"))
    assert history_of(settings, "c110-ann") <= 4
    assert history_of(settings, "c110-bob") > 12


def reads_all_again(settings: Settings, tmp_path: Path) -> None:
    """A group that begins anew, without any state, reads the shop's log from its start."""
    names = {name: f"anew.{topic}" for name, topic in settings.topics.model_dump().items()}
    kept = {"clicks", "orders", "impressions", "items", "ads", "vectors", "releases", "forgotten"}
    topics = {name: getattr(settings.topics, name) if name in kept else new for name, new in names.items()}
    anew = settings.model_copy(
        update={
            "app_id": f"{settings.app_id}-anew", "data_dir": tmp_path / "anew",
            "topics": settings.topics.model_copy(update=topics),
            "web": settings.web.model_copy(update={"port": free_port()}),
        }
    )  # fmt: skip
    create_topics(anew)
    with shop.worker(anew, tmp_path / "anew.log"):
        shop.wait_for(lambda: scored_again(anew, "c110-ann", "c110-bob"), 60)
    served = shop.read(anew, anew.topics.served("recommendations"), "served")
    told = {record["event_id"] for record in served if record["user_id"] == ANN}
    assert told == {"c100-ann", "c101-ann", "c110-ann"}
    assert len({record["event_id"] for record in served if record["user_id"] == BOB}) == 15


def counts(settings: Settings, user: str) -> dict[str, int]:
    """Records of ours that name somebody, by topic."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        found = find(settings, registry, user)
    topics: dict[str, int] = {}
    for copy in (*found.keyed, *found.letters, *found.staying):
        topics[copy.topic] = topics.get(copy.topic, 0) + 1
    return topics


def states(settings: Settings) -> dict[str, dict[str, Any]]:
    found = shop.read(settings, settings.topics.entity_state, "entity_state")
    return {f"{state['type']}:{state['token']}": state for state in found}
