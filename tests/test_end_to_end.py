"""The whole way, on a real broker: events in, scores and what follows from them out."""

import json
import re
import urllib.request
from contextlib import closing

import pytest

from schemas.confluent import ConfluentRegistry
from streams.policy_lists import Entry, ListWriter
from streams.policy_topic import apply
from streams.ports import free_port
from streams.tasks.attribution import GROUPS
from tests import shop
from tests.records import NOON_MS, click, impression, order

USERS = 12


def events(count: int = 60):
    """Clicks, orders and impressions of a few users, in time order."""
    out = []
    for n in range(count):
        user, when = f"user-{n % USERS}", NOON_MS + 1000 * n
        common = {"event_time": when, "user_id": user}
        out.append(("clicks", click(event_id=f"c{n}", item_id=f"item-{n % 40}", **common)))
        if n % 3 == 0:
            out.append(("impressions", impression(event_id=f"i{n}", request_id=f"r{n}", **common)))
        if n % 4 == 0:
            out.append(("orders", order(event_id=f"o{n}", order_id=f"order-{n}", **common)))
    return out


@pytest.fixture
def settings(fresh_settings, registry):
    store, _ = shop.releases()
    made = fresh_settings(
        release_store=store,
        web={"port": free_port()},
        deadlines_ms={"fraud": 60_000, "recommendations": 60_000, "ctr": 60_000},
    )
    shop.furnish(made)
    return made


def test_every_event_has_its_score_and_its_served_record(settings, tmp_path):
    sent = events()
    with shop.worker(settings, tmp_path / "worker.log") as worker:
        shop.publish(settings, sent)
        expected = {
            "recommendations": {r["event_id"] for name, r in sent if name == "clicks"},
            "ctr": {r["event_id"] for name, r in sent if name == "impressions"},
            "fraud": {r["event_id"] for name, r in sent if name == "orders"},
        }
        for task, ids in expected.items():
            shop.wait_for(lambda task=task, ids=ids: {s["event_id"] for s in shop.scores(settings, task)} == ids)
            served = shop.read(settings, settings.topics.served(task), "served")
            shop.wait_for(lambda served=served, ids=ids: {s["event_id"] for s in served} == ids)
        assert worker.end() == 0, (tmp_path / "worker.log").read_text()


def test_a_repeat_is_scored_once_and_bad_bytes_become_a_dead_letter(settings, tmp_path):
    sent = events(12)
    with shop.worker(settings, tmp_path / "worker.log") as worker:
        shop.publish(settings, sent)
        shop.publish(settings, sent)  # a producer that tried again: new offsets, the same event ids
        shop.send(settings, settings.topics.clicks, b"vandal", b"not avro")
        shop.publish(settings, [("clicks", click(event_id="last", user_id="user-0", event_time=NOON_MS + 10**6))])
        shop.wait_for(lambda: any(s["event_id"] == "last" for s in shop.scores(settings, "recommendations")))
        shop.wait_for(lambda: shop.read(settings, settings.topics.deadletters, "dead_letter"))
        assert worker.end() == 0
    said = [s["event_id"] for s in shop.scores(settings, "recommendations")]
    assert sorted(said) == sorted({r["event_id"] for name, r in sent if name == "clicks"} | {"last"})
    (letter,) = shop.read(settings, settings.topics.deadletters, "dead_letter")
    assert (letter["code"], letter["value"], letter["topic"]) == ("undecodable", b"not avro", settings.topics.clicks)


def test_a_new_pointer_makes_the_next_release_live_while_events_flow(settings, tmp_path):
    store, versions = shop.releases()
    again = shop.copy_release(store, "fraud", versions["fraud"], "next")
    with shop.worker(settings, tmp_path / "worker.log"):
        shop.publish(settings, events(8))
        shop.wait_for(lambda: len(shop.scores(settings, "fraud")) == 2)
        shop.point(settings, "fraud", again, epoch=2)
        shop.wait_for(lambda: worker_release(settings) == again)
        shop.publish(settings, [("orders", order(event_id="late", order_id="late", event_time=NOON_MS + 10**6))])
        shop.wait_for(lambda: len(shop.scores(settings, "fraud")) == 3)
    releases = {s["event_id"]: s["release"] for s in shop.scores(settings, "fraud")}
    assert releases == {"o0": f"fraud/{versions['fraud']}", "o4": f"fraud/{versions['fraud']}", "late": "fraud/next"}


POLICY = """name = "shop"
[[rules]]
id = "listed"
when = "card.blocked && order.amount > 10.0"
then = "block"
because = { en = "the card is on the list", zh = "x" }
[[rules]]
id = "all"
when = "true"
then = "approve"
"""


def test_a_policy_that_is_applied_decides_from_then_on_and_its_alerts_say_why(settings, tmp_path):
    with closing(ConfluentRegistry(settings.registry())) as registry, shop.worker(settings, tmp_path / "worker.log"):
        shop.publish(settings, [("orders", order(event_id="before", order_id="before"))])
        shop.wait_for(lambda: len(shop.scores(settings, "fraud")) == 1)
        ListWriter(settings, registry).put(Entry("block", "card", "card-1", "chargeback", None, "ann", 0))
        applied = apply(settings, registry, POLICY, by="ann")
        shop.wait_for(lambda: policy_of(settings) == applied.version)
        free = {"method": "card", "instrument": "card-2", "bin": None, "issuer_country": None}
        shop.publish(
            settings,
            [
                ("orders", order(event_id="listed", order_id="listed", event_time=NOON_MS + 1000)),
                ("orders", order(event_id="free", order_id="free", event_time=NOON_MS + 2000, payment=free)),
            ],
        )
        shop.wait_for(lambda: len(shop.scores(settings, "fraud")) == 3)
        shop.wait_for(lambda: any(a["order_id"] == "listed" for a in alerts(settings)))
    scores = {score["event_id"]: score for score in shop.scores(settings, "fraud")}
    assert scores["before"]["policy_version"] == ""
    assert (scores["listed"]["decision"], scores["listed"]["decided_by"]) == ("block", "listed")
    assert scores["listed"]["rules"] == ["listed", "all"]
    assert scores["listed"]["reasons"][0] == "the card is on the list"
    assert (scores["free"]["decision"], scores["free"]["decided_by"]) == ("approve", "all")
    served = {each["event_id"]: each for each in shop.read(settings, settings.topics.served("fraud"), "served")}
    assert {name: each["policy_version"] for name, each in served.items()} == {
        "before": "", "listed": applied.version, "free": applied.version,
    }  # fmt: skip
    (alert,) = [each for each in alerts(settings) if each["order_id"] == "listed"]
    assert (alert["policy_version"], alert["rules"]) == (applied.version, ["listed", "all"])
    assert alert["features"] == served["listed"]["features"]
    assert alert["entities"][:2] == ["card:card-1", "device:device-1"]
    assert {each["group"] for each in alert["contributions"]} == set(GROUPS)
    assert alert["completeness_error"] is not None
    assert alert["sentences"]["en"].startswith("Blocked: fraud probability")
    assert not [each for each in alerts(settings) if each["order_id"] == "free"]


def alerts(settings):
    return shop.read(settings, settings.topics.alerts, "fraud_alert")


def policy_of(settings):
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.web.port}/metrics", timeout=2) as page:
        found = re.search(r'headrace_policy_info\{standing="live",version="([^"]+)"\} 1', page.read().decode())
    return found[1] if found else None


def worker_release(settings):
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.web.port}/readyz", timeout=2) as page:
        return json.load(page)["releases"]["fraud"]
