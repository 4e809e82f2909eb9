"""The webhook service on a real broker: nothing is lost over a restart, and one endpoint delays no other."""

import asyncio
import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from schemas.confluent import ConfluentRegistry
from schemas.errors import DataUnavailable, SettingsError
from schemas.wire import Decoder, Encoder
from streams.cli import app
from streams.config import Settings
from streams.config_sections import Webhooks as WebhookSettings
from streams.local import LocalRegistry
from streams.webhooks.body import CONTRACT as ALERT
from streams.webhooks.failures import CONTRACT, Failures
from streams.webhooks.metrics import WebhookMetrics
from streams.webhooks.replay import replay
from streams.webhooks.service import Webhooks
from tests.conftest import FreshSettings
from tests.observer import Observer, until
from tests.running import running
from tests.test_docs import first_word, table
from tests.webhook_alerts import SECRET, Behaviour, Post, Receiver, alert, endpoint

Shop = Callable[..., Settings]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as serving:
        yield serving


@pytest.fixture
def shop(
    registry: LocalRegistry, fresh_settings: FreshSettings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> Shop:
    """`shop("a", "b", **webhooks)`: settings with endpoints of these names, at `/<name>` of the receiver."""
    monkeypatch.setenv("SHOP_WEBHOOK_SECRET", SECRET.decode())

    def make(*names: str, **webhooks: Any) -> Settings:
        endpoints = tuple(endpoint(receiver.url(f"/{name}"), name=name) for name in names)
        return fresh_settings(
            webhooks=WebhookSettings(endpoints=endpoints, **webhooks), webhooks_web={"port": 0}, commit_interval_s=0.2
        )

    return make


@contextmanager
def posting(settings: Settings) -> Iterator[Webhooks]:
    """The service, once all its endpoints have their partitions."""
    ready = threading.Event()
    with (
        closing(ConfluentRegistry(settings.registry())) as registry,
        running(Webhooks(settings, registry, ready.set)) as service,
    ):
        assert ready.wait(60)
        yield service


def raise_alerts(settings: Settings, records: list[dict[str, Any]]) -> None:
    with closing(ConfluentRegistry(settings.registry())) as registry:
        encode = Encoder(registry, settings.topics.alerts, ALERT)
    publish(settings, [(record["order_id"].encode(), encode(record)) for record in records])


def publish(settings: Settings, messages: list[tuple[bytes, bytes | None]]) -> None:
    producer = confluent_kafka.Producer(
        {**settings.librdkafka(), "partitioner": "murmur2_random", "enable.idempotence": True}
    )
    for key, value in messages:
        producer.produce(settings.topics.alerts, value, key)
    assert producer.flush(30) == 0


def orders_of(posts: list[Post]) -> list[str]:
    return [json.loads(post.body)["order_id"] for post in posts]


def failures_of(settings: Settings) -> Counter[tuple[str, str]]:
    with closing(ConfluentRegistry(settings.registry())) as registry:
        found = list(Failures(settings, Decoder(registry, CONTRACT)).find())
    return Counter((failure.record["endpoint"], failure.record["order_id"]) for failure in found)


async def hang(_: Post) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


def status(code: int, **headers: str) -> Behaviour:
    async def answer(_: Post) -> web.StreamResponse:
        return web.Response(status=code, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return answer


def test_one_endpoint_that_hangs_does_not_delay_the_other(shop: Shop, receiver: Receiver) -> None:
    receiver.behaviour["/slow"] = hang
    settings = shop("slow", "quick", timeout_s=20)
    wanted = [f"order-{number}" for number in range(40)]
    with posting(settings):
        began = time.monotonic()
        raise_alerts(settings, [alert(order) for order in wanted])
        until(lambda: len(receiver.to("/quick")) == len(wanted))
        assert time.monotonic() - began < 10
        assert sorted(orders_of(receiver.to("/quick"))) == sorted(wanted)
        assert len(receiver.to("/slow")) == settings.webhooks.in_flight


def test_nothing_is_lost_over_a_restart_and_what_was_taken_is_not_posted_again(shop: Shop, receiver: Receiver) -> None:
    settings = shop("shop")
    first = [f"order-{number}" for number in range(30)]
    stuck = {"order-0", "order-7"}

    async def take_most(post: Post) -> web.StreamResponse:
        return web.Response(status=503 if orders_of([post])[0] in stuck else 200)

    receiver.behaviour["/shop"] = take_most
    with posting(settings):
        raise_alerts(settings, [alert(order) for order in first])
        until(lambda: set(orders_of(receiver.to("/shop"))) == set(first))
    while_away = [f"order-{number}" for number in range(30, 40)]
    raise_alerts(settings, [alert(order) for order in while_away])
    before, stuck = len(receiver.posts), set()
    with posting(settings):
        until(lambda: len(set(orders_of(receiver.posts[before:]))) == 12)
        until(lambda: committed_to_the_end(settings))
    assert Counter(orders_of(receiver.posts[before:])) == Counter(["order-0", "order-7", *while_away])


def test_a_second_process_shares_the_work_and_goes_on_alone(shop: Shop, receiver: Receiver) -> None:
    settings = shop("shop")
    with posting(settings):
        with posting(settings):
            raise_alerts(settings, [alert(f"order-{number}") for number in range(20)])
            until(lambda: len(set(orders_of(receiver.posts))) == 20)
        raise_alerts(settings, [alert(f"order-{number}") for number in range(20, 40)])
        until(lambda: len(set(orders_of(receiver.posts))) == 40)
        until(lambda: committed_to_the_end(settings))


def committed_to_the_end(settings: Settings) -> bool:
    group = settings.model_copy(update={"app_id": f"{settings.app_id}-webhooks-shop"})
    with closing(Observer(group)) as observer:
        return observer.caught_up(settings.topics.alerts)


def test_decisions_on_one_order_come_in_turn_whatever_is_tried_again(shop: Shop, receiver: Receiver) -> None:
    async def refuse_twice(post: Post) -> web.StreamResponse:
        return web.Response(status=500 if len(receiver.posts) < 3 else 200)

    receiver.behaviour["/shop"] = refuse_twice
    settings = shop("shop")
    with posting(settings):
        raise_alerts(settings, [alert(decision="review"), alert(decision="block")])
        until(lambda: len(receiver.posts) == 4)
    assert [json.loads(post.body)["decision"] for post in receiver.posts] == ["review", "review", "review", "block"]
    assert len({post.headers["Headrace-Delivery"] for post in receiver.posts}) == 2


def test_a_wish_to_wait_holds_for_all_alerts_of_the_endpoint(shop: Shop, receiver: Receiver) -> None:
    async def wait_once(_: Post) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "2"}) if len(receiver.posts) == 1 else web.Response()

    receiver.behaviour["/shop"] = wait_once
    settings = shop("shop", in_flight=1)
    with posting(settings):
        raise_alerts(settings, [alert(f"order-{number}") for number in range(5)])
        until(lambda: len(receiver.posts) == 6)
    first, *others = [post.at for post in receiver.posts]
    assert min(others) - first >= 2


def test_what_is_given_up_is_on_the_topic_and_can_be_posted_again(shop: Shop, receiver: Receiver) -> None:
    receiver.behaviour["/strict"] = status(422)
    receiver.behaviour["/broken"] = status(500)
    settings = shop("strict", "broken", retry_for_s=2)
    with posting(settings):
        raise_alerts(settings, [alert("order-1"), alert("order-2")])
        until(lambda: sum(failures_of(settings).values()) == 4)
    assert failures_of(settings) == Counter({(to, f"order-{n}"): 1 for to in ("strict", "broken") for n in (1, 2)})
    assert len(receiver.to("/strict")) == 2
    assert len(receiver.to("/broken")) > 2
    with closing(ConfluentRegistry(settings.registry())) as registry:
        failures = Failures(settings, Decoder(registry, CONTRACT))
        broken = list(failures.find(endpoint="broken"))
        for record in (failure.record for failure in broken):
            assert (record["reason"], record["status"]) == ("status 500", 500)
            assert record["attempts"] >= 2
            assert record["first_attempt_at"] < record["failed_at"]
        receiver.behaviour.clear()
        del receiver.posts[:]
        done = replay(settings, Decoder(registry, ALERT), failures.find(endpoint="broken"), failures.mark)
        assert (done.posted, done.stay) == (2, [])
        assert {post.headers["Headrace-Delivery"] for post in receiver.posts} == {
            failure.record["delivery"] for failure in broken
        }
        assert sorted(orders_of(receiver.to("/broken"))) == ["order-1", "order-2"]
        assert {failure.record["endpoint"] for failure in failures.find()} == {"strict"}
        assert len(list(failures.find(posted=True))) == 4
        with pytest.raises(DataUnavailable, match="no failed webhook '0:99999'"):
            failures.get(frozenset({"0:99999"}))


def test_a_replay_says_what_stays_and_does_not_insist(shop: Shop, receiver: Receiver) -> None:
    receiver.behaviour["/shop"] = status(410)
    settings = shop("shop")
    with posting(settings):
        raise_alerts(settings, [alert(f"order-{number}") for number in range(4)])
        until(lambda: sum(failures_of(settings).values()) == 4)
    receiver.behaviour["/shop"] = status(503)
    before = len(receiver.posts)
    with closing(ConfluentRegistry(settings.registry())) as registry:
        failures = Failures(settings, Decoder(registry, CONTRACT))
        done = replay(settings, Decoder(registry, ALERT), failures.find(), failures.mark)
        assert done.posted == 0
        assert [why for _, why in done.stay] == ["status 503", *["not tried again: status 503"] * 3]
        assert len(receiver.posts) == before + 1
        gone = settings.model_copy(update={"webhooks": WebhookSettings()})
        done = replay(gone, Decoder(registry, ALERT), failures.find(), failures.mark)
        assert all("there is no endpoint shop" in why for _, why in done.stay)
        assert len(list(failures.find())) == 4


def test_what_is_no_alert_is_passed_over_and_an_endpoint_gets_only_what_it_wants(
    shop: Shop, receiver: Receiver
) -> None:
    settings = shop("shop")
    with posting(settings) as service:
        publish(settings, [(b"order-0", b"no avro"), (b"order-9", b"\0\0\0\xff\xff also none"), (b"order-8", None)])
        raise_alerts(settings, [alert("order-1", decision="approve"), alert("order-2")])
        until(lambda: len(receiver.posts) == 1)
        until(lambda: committed_to_the_end(settings))
        until(lambda: series(service)["headrace_webhooks_lag"] == 0)
        assert orders_of(receiver.posts) == ["order-2"]
        found = series(service)
        assert found["headrace_webhooks_delivered_total"] == 1
        assert found["headrace_webhooks_passed_over_total"] == 3
        assert found["headrace_webhooks_seconds_count"] == 1
        assert 0 < found["headrace_webhooks_seconds_sum"] < 30


def series(service: Webhooks) -> dict[str, float]:
    """Of its only endpoint, as Prometheus reads them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
    return {sample.name: sample.value for sample in samples if sample.labels.keys() <= {"endpoint"}}


def test_a_new_endpoint_begins_with_what_is_raised_from_then_on(shop: Shop, receiver: Receiver) -> None:
    settings = shop("shop")
    raise_alerts(settings, [alert("order-before")])
    with posting(settings):
        raise_alerts(settings, [alert("order-1")])
        until(lambda: len(receiver.posts) == 1)
    raise_alerts(settings, [alert("order-2")])
    with posting(settings):
        until(lambda: len(receiver.posts) == 2)
    assert orders_of(receiver.posts) == ["order-1", "order-2"]


def test_a_service_without_an_endpoint_or_a_secret_says_so_at_once(
    shop: Shop, registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(ConfluentRegistry(registry.url)) as client:
        with pytest.raises(SettingsError, match="no endpoint to post to"):
            Webhooks(shop(), client)
        settings = shop("shop")
        monkeypatch.delenv("SHOP_WEBHOOK_SECRET")
        with pytest.raises(SettingsError, match="the secret is not there"):
            Webhooks(settings, client)


@pytest.mark.usefixtures("logging_as_it_was")
def test_the_commands_list_and_replay(
    shop: Shop, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.behaviour["/shop"] = status(404)
    settings = shop("shop")
    with posting(settings):
        raise_alerts(settings, [alert("order-1"), alert("order-2")])
        until(lambda: sum(failures_of(settings).values()) == 2)
    receiver.behaviour.clear()
    run = commands(settings, tmp_path, monkeypatch)
    listed = json.loads(run("webhooks", "failed", "--json").output)
    assert {(row["endpoint"], row["order_id"], row["status"], row["attempts"]) for row in listed} == {
        ("shop", "order-1", 404, 1),
        ("shop", "order-2", 404, 1),
    }
    shown = run("webhooks", "failed", "--endpoint", "shop").output
    assert "order-1" in shown
    assert "status 404" in shown
    assert run("webhooks", "replay").exit_code == 2
    one = run("webhooks", "replay", listed[0]["id"])
    assert (one.exit_code, "1 posted, 0 stay" in one.output) == (0, True)
    assert json.loads(run("webhooks", "replay", "--all", "--json").output) == {"posted": 1, "stay": {}}
    assert json.loads(run("webhooks", "failed", "--json").output) == []
    assert len(json.loads(run("webhooks", "failed", "--posted", "--json").output)) == 2
    said = json.loads(run("audit", "tail", "--json").output)
    assert [entry["action"] for entry in said] == ["webhooks.replay"] * 2


def commands(settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`headrace` with these settings."""
    monkeypatch.setenv("HEADRACE_BROKERS", settings.brokers)
    monkeypatch.setenv("HEADRACE_REGISTRY_URL", settings.registry_url)
    monkeypatch.setenv("HEADRACE_APP_ID", settings.app_id)
    for name, topic in settings.topics.model_dump().items():
        monkeypatch.setenv(f"HEADRACE_TOPICS__{name.upper()}", topic)
    endpoints = [each.model_dump() for each in settings.webhooks.endpoints]
    monkeypatch.setenv("HEADRACE_WEBHOOKS__ENDPOINTS", json.dumps(endpoints))
    monkeypatch.chdir(folder)
    return lambda *words: CliRunner().invoke(app, list(words))


def test_the_table_of_metrics_is_whole_and_right() -> None:
    found = {family.name for family in WebhookMetrics().registry.collect() if family.name.startswith("headrace_")}
    shown = {first_word(name) for name, _ in table("docs/webhooks.md", "table: webhook metrics")}
    assert shown == found
