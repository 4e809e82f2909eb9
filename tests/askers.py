"""Clients that ask a real worker for scores, and readers of what the topics say then."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from confluent_kafka import Message

from schemas.values import to_json
from streams.config import Settings
from streams.offsets import bounds, places, read_range
from streams.partitioning import partition_for
from tests import shop
from tests.chaos.harness import Crew
from tests.records import NOON_MS, click, impression, order

TASKS = {"fraud": ("orders", "order"), "recommendations": ("clicks", "click"), "ctr": ("impressions", "ad_impression")}


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]


def post(
    worker: shop.WorkerProcess, task: str, event: dict[str, Any], query: str = "", token: str = "",
    headers: Mapping[str, str] | None = None,
) -> Answer:  # fmt: skip
    url = f"http://127.0.0.1:{worker.settings.web.port}/v1/score/{task}{query}"
    body = json.dumps(to_json(TASKS[task][1], event)).encode()
    bearing = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **bearing, **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return Answer(answer.status, json.load(answer))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, json.load(error))


def until_answered(
    worker: shop.WorkerProcess, task: str, event: dict[str, Any], query: str = "", token: str = "",
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """As a client that comes back when it is told to."""
    found = []

    def answered() -> bool:
        found.append(post(worker, task, event, query, token, headers))
        assert found[-1].status in (200, 503, 504), found[-1]
        return found[-1].status == 200

    shop.wait_for(answered, 60, lambda: worker.log.read_text()[-3000:])
    return found[-1].body


def published(settings: Settings, task: str) -> list[Message]:
    """All on the task's input topic."""
    topic = getattr(settings.topics, TASKS[task][0])
    found = bounds(settings, places(settings, topic)).items()
    return [
        m for (_, part), (low, high) in found for batch in read_range(settings, topic, part, low, high) for m in batch
    ]


def said(settings: Settings, task: str, event_id: str) -> list[dict[str, Any]]:
    return [score for score in shop.scores(settings, task) if score["event_id"] == event_id]


def served(settings: Settings, task: str, event_id: str) -> list[dict[str, Any]]:
    return [
        record
        for record in shop.read(settings, settings.topics.served(task), "served")
        if record["event_id"] == event_id
    ]


def as_answered(task: str, score: dict[str, Any]) -> dict[str, Any]:
    contract = {"fraud": "fraud_score", "recommendations": "recommendation_score", "ctr": "ctr_score"}[task]
    return {name: value for name, value in to_json(contract, score).items() if name != "cut"}


def history(user: str) -> list[tuple[str, dict[str, Any]]]:
    common = {"user_id": user}
    clicks = [
        ("clicks", click(event_id=f"{user}-c{n}", item_id=f"item-{n}", event_time=NOON_MS + n, **common))
        for n in range(4)
    ]
    return [*clicks, ("orders", checkout(user, "before", 100)), ("impressions", slate(user, "shown", 200))]


def checkout(user: str, name: str, after_ms: int) -> dict[str, Any]:
    """An order with the user's own card, device and addresses."""
    own = {"email": f"{user}@", "billing_address": f"{user} home", "shipping_address": f"{user} home"}
    payment = {"method": "card", "instrument": f"{user} card", "bin": "424242", "issuer_country": "GB"}
    return order(
        event_id=f"{user}-{name}", order_id=f"{user}-{name}", user_id=user, event_time=NOON_MS + after_ms,
        ip=f"{user} ip", device_id=f"{user} phone", payment=payment, **own,
    )  # fmt: skip


def slate(user: str, name: str, after_ms: int) -> dict[str, Any]:
    return impression(
        event_id=f"{user}-{name}", user_id=user, request_id=f"{user}-{name}", event_time=NOON_MS + after_ms
    )


def now_of(task: str, user: str) -> dict[str, Any]:
    """The event that is asked about."""
    after_ms = 5_000 + 1_000 * [*TASKS].index(task)
    if task == "fraud":
        return checkout(user, "now", after_ms)
    if task == "ctr":
        return slate(user, "now", after_ms)
    return click(event_id=f"{user}-now", user_id=user, item_id="item-7", event_time=NOON_MS + after_ms)


def one_of_each_partition(count: int = 2) -> list[str]:
    names = [f"user-{n}" for n in range(50)]
    return [next(name for name in names if partition_for(name.encode(), count) == place) for place in range(count)]


def both_at_work(group: Crew) -> None:
    """Until each has a partition, and says so."""
    for worker in group.workers:
        shop.wait_for(lambda worker=worker: "headrace_lag{" in metrics(worker), 60, group.logs)


def metrics(worker: shop.WorkerProcess) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{worker.settings.web.port}/metrics", timeout=5) as page:
        return str(page.read(), "utf-8")


def total(worker: shop.WorkerProcess, name: str) -> float:
    return sum(
        float(line.rpartition(" ")[2]) for line in metrics(worker).splitlines() if line.startswith(f"{name}_total")
    )
