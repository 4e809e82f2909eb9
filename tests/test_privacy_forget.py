"""The command without anybody to wait for: what it finds, what it deletes, and what its receipt says is open."""

from contextlib import closing
from typing import Any

import confluent_kafka
import pytest
from typer.testing import CliRunner

from engines.releases import ReleaseStore
from schemas.confluent import ConfluentRegistry
from schemas.errors import DataUnavailable
from schemas.wire import Encoder
from streams.cli import app
from streams.config import Settings
from streams.console.feed import Feed
from streams.console.store import Applied, Store
from streams.local import LocalRegistry
from streams.offsets import bounds, places
from streams.privacy.forget import Forget
from streams.privacy.ledger import read_ledger
from streams.privacy.receipt import digest, read
from streams.topics import topic_specs
from tests import shop
from tests.conftest import FreshSettings
from tests.console_shop import alert
from tests.labels_shop import order
from tests.records import NOON_MS, click


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    made: Settings = fresh_settings()
    events = [("clicks", click(event_id=f"c{n}", user_id=user)) for n, user in enumerate(("ann", "bob", "ann"))]
    shop.publish(made, events)
    with closing(ConfluentRegistry(made.registry())) as schemas:
        say(made, schemas, "served_fraud", "served", [order(f"o-{user}", user_id=user) for user in ("ann", "bob")])
        say(made, schemas, "scores_fraud", "fraud_score", [score(user) for user in ("ann", "bob")], key="user_id")
    return made


def score(user: str) -> dict[str, Any]:
    return {
        "event_id": f"o-{user}", "user_id": user, "event_time": NOON_MS, "scored_at": NOON_MS, "release": "fraud/1",
        "engine": "null", "late": False, "fallback": None, "timings": {"queue_us": 0, "infer_us": 0},
        "cut": {"clicks": 0, "orders": 0, "impressions": -1}, "order_id": f"o-{user}", "probability": 0.5,
        "decision": "approve", "reasons": [], "policy_version": "", "decided_by": "", "rules": [],
        "expected_loss": None,
    }  # fmt: skip


def say(
    settings: Settings,
    registry: ConfluentRegistry,
    topic: str,
    contract: str,
    records: list[dict[str, Any]],
    key: str = "target_id",
) -> None:
    name = getattr(settings.topics, topic)
    encode = Encoder(registry, name, contract)
    producer = confluent_kafka.Producer(
        settings.librdkafka() | {"partitioner": "murmur2_random", "enable.idempotence": True}
    )
    for record in records:
        producer.produce(name, encode(record), record[key].encode())
    assert producer.flush(30) == 0


def forgetting(settings: Settings, registry: ConfluentRegistry, user: str = "ann", wait_s: float = 0) -> Forget:
    return Forget(settings, registry, ReleaseStore(settings.release_store), user, wait_s=wait_s)


def ends(settings: Settings) -> dict[tuple[str, int], tuple[int, int]]:
    return {
        place: found
        for spec in topic_specs(settings)
        for place, found in bounds(settings, places(settings, spec.name)).items()
    }


def test_a_dry_run_says_what_there_is_and_writes_nothing(settings: Settings) -> None:
    before = ends(settings)
    with closing(ConfluentRegistry(settings.registry())) as registry:
        said = forgetting(settings, registry).dry_run()
    assert ends(settings) == before
    assert said["deleted"] == {settings.topics.served_fraud: 1}
    assert said["of_the_shop"] == {settings.topics.clicks: 2}
    assert not said["complete"]
    days = (said["last_copy_ends"] - said["asked_at"]) / 86_400_000
    assert 13.9 < days < 14.1  # seven of retention, and seven of a segment
    assert said["ends_by_itself"][settings.topics.scores_fraud]["records"] == 1


def test_what_the_cleaner_has_not_done_yet_is_open_and_the_next_call_goes_on_with_the_same_receipt(
    settings: Settings,
) -> None:
    with closing(ConfluentRegistry(settings.registry())) as registry:
        first = forgetting(settings, registry).run()
        again = forgetting(settings, registry).run()
        known = read_ledger(settings, registry)
    assert (first["complete"], again["complete"]) == (False, False)
    assert [line for line in first["open"] if line.startswith(settings.topics.served_fraud)]
    assert again["receipt"] == first["receipt"]
    assert again["deleted"] == first["deleted"] == {settings.topics.served_fraud: 1}  # counted once
    assert first["digest"] == digest(first)
    assert known.before("ann", 0, first["partition"], first["cutoff"]["clicks"] - 1)
    assert not known.before("ann", 0, first["partition"], first["cutoff"]["clicks"])
    served = shop.read(settings, settings.topics.served_fraud, "served")
    assert "bob" in {record["user_id"] for record in served}


@pytest.mark.slow
def test_of_who_is_nowhere_the_request_itself_is_all_that_has_to_go(settings: Settings) -> None:
    with closing(ConfluentRegistry(settings.registry())) as registry:
        said = forgetting(settings, registry, "nobody").run()
        assert said["deleted"] == {}
        assert said["open"] == [f"{settings.topics.forgotten}: 2 records wait for the broker's cleaner"]
        done = forgetting(settings, registry, "nobody", wait_s=120).run()
        assert (done["complete"], done["receipt"]) == (True, said["receipt"])
        assert forgetting(settings, registry, "nobody").run() == done


def test_a_console_lets_the_case_go_when_its_alert_is_deleted(settings: Settings) -> None:
    told: list[Applied] = []
    with closing(ConfluentRegistry(settings.registry())) as registry, closing(Store(settings.data_dir)) as store:
        named = [alert(f"o-{user}", user_id=user) for user in ("ann", "bob")]
        say(settings, registry, "alerts", "fraud_alert", named, key="order_id")
        feed = Feed(settings, registry, store, told.append, lambda: NOON_MS)
        try:
            feed.wait_current(30)
            assert users(store) == ["ann", "bob"]
            said = forgetting(settings, registry).run()
            assert said["deleted"][settings.topics.alerts] == 1
            feed.wait_current(30)
            assert (users(store), feed.skipped) == (["bob"], 0)
        finally:
            feed.stop()
    assert told[-1].orders == {"o-ann"}


def users(store: Store) -> list[str]:
    with store.reading() as connection:
        return sorted(row[0] for row in connection.execute("SELECT user_id FROM alerts"))


@pytest.mark.parametrize("given", [[], ["ann", "--verify", "receipt.json"]])
def test_one_of_a_person_and_a_receipt_is_asked_for(given: list[str], logging_as_it_was: None) -> None:
    done = CliRunner().invoke(app, ["forget", *given])
    assert done.exit_code == 2
    assert "one of USER and --verify FILE" in done.output


def test_what_is_no_receipt_is_said_to_be_none() -> None:
    for text in ("{", "[]"):
        with pytest.raises(DataUnavailable) as raised:
            read(text, "here")
        assert raised.value.where == "here"
