"""The whole way, on a real broker: events in, scores and what follows from them out."""

import json
import urllib.request

import pytest

from streams.ports import free_port
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


def worker_release(settings):
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.web.port}/readyz", timeout=2) as page:
        return json.load(page)["releases"]["fraud"]
