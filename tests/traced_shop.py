"""A small shop that was scored once, for tests that ask why: bursts of several sizes, two releases, outcomes."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import confluent_kafka

from engines.manifest import Description
from engines.releases import ReleaseStore
from schemas.confluent import ConfluentRegistry
from schemas.wire import Encoder
from streams.config import Settings
from streams.config_sections import Topics
from streams.labels.joined import example_id
from streams.live import PRIOR
from streams.ports import free_port
from streams.topics import create_topics
from streams.vectors import HashingEncoder, catalogue_vectors, vector_key
from tests import shop
from tests.records import NOON_MS, click, impression, line, money, order

USERS = 12
BURSTS = (1, 3, 9, 30, 70, 120)
GATED, POPULAR = "gated", "popular"
TASKS = ("fraud", "recommendations", "ctr")
CHOSEN: dict[str, Any] = {"bought_days": 30.0, "diversity": 0.5, "most_a_category": 7}


@dataclass(frozen=True, slots=True)
class Shop:
    """`served`: all `served` records by task."""

    settings: Settings
    served: dict[str, list[dict[str, Any]]]
    sent: list[tuple[str, dict[str, Any]]]


def burst(first: int, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Clicks, orders and impressions of a few users, in time order."""
    out = []
    for n in range(first, first + count):
        common = {"event_time": NOON_MS + 1000 * n, "user_id": f"user-{n % USERS}"}
        out.append(("clicks", click(event_id=f"c{n}", item_id=f"item-{n % 40}", **common)))
        if n % 2 == 0:
            slate = [{"ad_id": f"ad-{(n + k) % 8}", "position": k, "bid": money(0.2), "shown": True} for k in range(4)]
            out.append(("impressions", impression(event_id=f"i{n}", request_id=f"r{n}", slate=slate, **common)))
        if n % 3 == 0:
            total = {"amount": money(10.0 + n), "order_id": f"order-{n}"}
            bought = [line(item_id=f"item-{7 * n % 40}")]
            out.append(("orders", order(event_id=f"o{n}", items=bought, **total, **common)))
    return out


@contextmanager
def scored(brokers: str, registry_url: str, folder: Path, prefix: str) -> Iterator[Shop]:
    """All of it was scored when this begins, and the worker is gone."""
    store = folder / "store"
    old, versions = shop.releases()
    shutil.copytree(old, store)
    gated_release(str(store), versions["fraud"])
    popular_release(str(store), versions["recommendations"])
    settings = Settings(
        brokers=brokers, registry_url=registry_url, app_id=prefix, data_dir=folder / "data", partitions=2,
        topics={key: f"{prefix}.{name}" for key, name in Topics().model_dump().items()},
        release_store=str(store), web={"port": free_port()},
        deadlines_ms=dict.fromkeys(TASKS, 60_000), recommendations=CHOSEN,
    )  # fmt: skip
    create_topics(settings)
    shop.furnish(settings)
    sent: list[tuple[str, dict[str, Any]]] = []
    with shop.worker(settings, folder / "worker.log") as worker:
        for turn, count in enumerate(BURSTS):
            events = burst(len([1 for name, _ in sent if name == "clicks"]), count)
            shop.publish(settings, events)
            sent += events
            wait_scored(settings, sent)
            if turn == 2:
                shop.point(settings, "fraud", GATED, epoch=2)
                shop.point(settings, "recommendations", POPULAR, epoch=2)
                shop.wait_for(lambda: live_releases(settings) >= {GATED, POPULAR}, 60)
        assert worker.end() == 0, (folder / "worker.log").read_text()
    served = {task: shop.read(settings, settings.topics.served(task), "served") for task in TASKS}
    yield Shop(settings, served, sent)


def live_releases(settings: Settings) -> set[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.web.port}/readyz", timeout=2) as page:
        return set(json.load(page)["releases"].values())


def wait_scored(settings: Settings, sent: list[tuple[str, dict[str, Any]]]) -> None:
    for task, topic in (("fraud", "orders"), ("recommendations", "clicks"), ("ctr", "impressions")):
        count = sum(name == topic for name, _ in sent)
        served = settings.topics.served(task)
        shop.wait_for(lambda served=served, count=count: len(shop.read(settings, served, "served")) >= count)


def gated_release(store: str, version: str) -> None:
    """A fraud release of the same weights, whose manifest says what the learner writes."""
    standing = {"start": {"0": 1_000_000, "1": 0}, "end": {"0": 1_000_000, "1": 0}, "until": NOON_MS}
    check = {"name": "certificate", "value": 1.0, "bound": 1.0, "passed": True, "said": "The engine agrees."}
    said = {
        "trained": {"champion": version, "plan": "abc", "examples": 3, "standing": standing},
        "metrics": {
            "parity": {"rows": 512, "precision": "bf16"},
            "gate": {"verdict": "pass", "checks": [check]},
        },
    }
    derived_release(store, "fraud", version, GATED, said, {})


def popular_release(store: str, version: str) -> None:
    """A release of recommendations that adds the popularity of the items to their scores."""
    prior = {f"item-{n}": round(-0.01 * n, 3) for n in range(shop.ITEMS)}
    derived_release(store, "recommendations", version, POPULAR, {}, {PRIOR: json.dumps(prior)})


def derived_release(store: str, task: str, version: str, new: str, said: dict[str, Any], files: dict[str, str]) -> None:
    """Of the weights of `version`; said: of its description; files: more of them."""
    releases = ReleaseStore(store)
    old = releases.open(task, version)
    described = {name: getattr(old.manifest, name) for name in Description.model_fields} | said
    with TemporaryDirectory() as folder:
        for name in old.manifest.files:
            shutil.copy(old.file(name), Path(folder) / name)
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        releases.publish(task, Path(folder), Description(**described), version=new)


def send(settings: Settings, records: list[tuple[str, str, bytes, dict[str, Any]]]) -> None:
    """(topic, contract, key, record)s, acknowledged."""
    producer = confluent_kafka.Producer(settings.librdkafka() | {"partitioner": "murmur2_random", "acks": "all"})
    with closing(ConfluentRegistry(settings.registry())) as registry:
        encoders: dict[str, Encoder] = {}
        for topic, contract, key, record in records:
            encode = encoders.setdefault(topic, Encoder(registry, topic, contract))
            producer.produce(topic, encode(record), key)
    assert producer.flush(30) == 0


def label(task: str, target: str, value: float, **fields: Any) -> dict[str, Any]:
    named = {"fraud": "fraud", "ctr": "click", "recommendations": "click"}[task]
    return {
        "label_id": f"{target} {fields.get('revision', 0)}", "task": task, "target_id": target, "candidate_id": None,
        "name": named, "value": value, "source": "chargeback", "observed_at": NOON_MS + 10**7, "revision": 0,
    } | fields  # fmt: skip


def example(served: dict[str, Any], value: float, **fields: Any) -> dict[str, Any]:
    """Of silence, unless fields say a source."""
    named = {"fraud": "fraud", "ctr": "click", "recommendations": "click"}[served["task"]]
    revision, candidate = fields.get("revision", 0), fields.get("candidate_id")
    return {
        "example_id": example_id(served["task"], served["target_id"], candidate or "", named, revision),
        "task": served["task"], "target_id": served["target_id"], "candidate_id": candidate, "name": named,
        "label": value, "weight": 1.0, "matured_at": NOON_MS + 10**7, "revision": revision,
        "event_time": served["event_time"], "release": served["release"], "features_format": 2,
        "features": served["features"], "user_id": served["user_id"], "source": "", "label_hash": 0,
        "observed_at": NOON_MS + 10**7, "prediction": None, "automation": [],
    } | fields  # fmt: skip


def grow_catalogue(settings: Settings) -> None:
    """Ten more items, and three old ones are sold out."""
    items, ads = shop.catalog_records()
    for number in range(10):
        items.append({**items[0], "item_id": f"new-{number}", "text": f"NEW {number}"})
    vectors = catalogue_vectors(items[: shop.ITEMS], ads, HashingEncoder())
    more = catalogue_vectors(items[shop.ITEMS :], [], HashingEncoder())
    rows = [{**vector, "row": vector["row"] + len(vectors)} for vector in more]
    gone = [{**item, "available": False} for item in items[:3]]
    topics = settings.topics
    send(
        settings,
        [
            *((topics.items, "catalog_item", each["item_id"].encode(), each) for each in [*gone, *items[shop.ITEMS :]]),
            *((topics.vectors, "catalog_vector", vector_key(each), each) for each in rows),
        ],
    )
