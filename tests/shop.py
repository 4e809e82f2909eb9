"""A whole little shop on the test broker: releases with random weights, a catalogue, and a worker as a process."""

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import confluent_kafka

from schemas.confluent import ConfluentRegistry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.demo.stage import environment, pointer
from streams.offsets import bounds, places, read_range
from streams.vectors import HashingEncoder, catalogue_vectors, vector_key
from tests.records import NOON_MS, money

ITEMS, ADS = 40, 8
_stores: list[TemporaryDirectory[str]] = []


@cache
def releases() -> tuple[str, dict[str, str]]:
    """A release store with one release a task, weights random: (store, versions). Made once, in its own process."""
    _stores.append(TemporaryDirectory())
    script = Path(__file__).with_name("random_releases.py")
    made = subprocess.run([sys.executable, str(script), _stores[-1].name], check=True, capture_output=True, text=True)
    return _stores[-1].name, dict(line.split() for line in made.stdout.splitlines())


def catalog_records() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    items: list[dict[str, Any]] = [
        {
            "item_id": f"item-{n}", "text": f"THING NUMBER {n}", "category": None, "price": money(1 + n),
            "currency": "GBP", "image": None, "available": True, "updated_at": NOON_MS, "attributes": {},
        }
        for n in range(ITEMS)
    ]  # fmt: skip
    ads: list[dict[str, Any]] = [
        {
            "ad_id": f"ad-{n}", "text": f"BUY THING {n}", "category": None, "item_id": f"item-{n}", "image": None,
            "active": True, "updated_at": NOON_MS, "attributes": {},
        }
        for n in range(ADS)
    ]  # fmt: skip
    return items, ads


def furnish(settings: Settings) -> None:
    """Catalogue, vectors and live pointers on the topics of `settings`."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        _furnish(settings, registry, releases()[1])


def furnish_catalog(settings: Settings) -> None:
    """Catalogue and vectors alone: of a shop that has no release yet."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        _furnish(settings, registry, {})


def _furnish(settings: Settings, registry: ConfluentRegistry, versions: dict[str, str]) -> None:
    topics = settings.topics
    items, ads = catalog_records()
    records = [
        *((topics.items, "catalog_item", item["item_id"].encode(), item) for item in items),
        *((topics.ads, "catalog_ad", ad["ad_id"].encode(), ad) for ad in ads),
        *(
            (topics.vectors, "catalog_vector", vector_key(vector), vector)
            for vector in catalogue_vectors(items, ads, HashingEncoder())
        ),
        *(
            (topics.releases, "model_release", f"{task}/live".encode(), pointer(task, v))
            for task, v in versions.items()
        ),
    ]
    encoders: dict[str, Encoder] = {}
    producer = confluent_kafka.Producer(settings.librdkafka() | {"enable.idempotence": True})
    for topic, contract, key, record in records:
        encode = encoders.setdefault(topic, Encoder(registry, topic, contract))
        producer.produce(topic, encode(record), key)
    assert producer.flush(30) == 0


def publish(settings: Settings, events: list[tuple[str, dict[str, Any]]]) -> None:
    """Events by topic setting, keyed and placed as Java clients do; returns when all are acknowledged."""
    contracts = {"clicks": "click", "orders": "order", "impressions": "ad_impression"}
    with closing(ConfluentRegistry(settings.registry())) as registry:
        encoders = {name: Encoder(registry, getattr(settings.topics, name), c) for name, c in contracts.items()}
    producer = confluent_kafka.Producer(
        settings.librdkafka() | {"partitioner": "murmur2_random", "enable.idempotence": True}
    )
    for name, record in events:
        producer.produce(getattr(settings.topics, name), encoders[name](record), record["user_id"].encode())
        producer.poll(0)
    assert producer.flush(60) == 0


def send(settings: Settings, topic: str, key: bytes, value: bytes) -> None:
    """Any bytes to any topic."""
    producer = confluent_kafka.Producer(
        settings.librdkafka() | {"partitioner": "murmur2_random", "enable.idempotence": True}
    )
    producer.produce(topic, value, key)
    assert producer.flush(30) == 0


def point(settings: Settings, task: str, version: str, epoch: int) -> None:
    """Makes a version live."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        encode = Encoder(registry, settings.topics.releases, "model_release")
    send(settings, settings.topics.releases, f"{task}/live".encode(), encode(pointer(task, version, epoch)))


def copy_release(store: str, task: str, version: str, new: str, **changed: Any) -> str:
    """The same release under another name, but for some of what it says; its name."""
    from engines.manifest import Description
    from engines.releases import ReleaseStore

    releases = ReleaseStore(store)
    old = releases.open(task, version)
    if new not in releases.list(task):
        with TemporaryDirectory() as folder:
            for name in old.manifest.files:
                shutil.copy(old.file(name), Path(folder) / name)
            said = {name: getattr(old.manifest, name) for name in Description.model_fields}
            releases.publish(task, Path(folder), Description(**said | changed), version=new)
    return new


class WorkerProcess:
    """`headrace worker` on these settings, or another command in its place."""

    def __init__(self, settings: Settings, log: Path, command: list[str] | None = None) -> None:
        self.settings, self.log = settings, log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command or [sys.executable, "-m", "streams", "worker"],
                env=os.environ | environment(settings),
                stdout=file,
                stderr=file,
            )

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.settings.web.port}/readyz", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def wait_ready(self, seconds: float = 240) -> None:
        wait_for(lambda: self.process.poll() is not None or self.ready(), seconds, lambda: self.log.read_text()[-3000:])
        assert self.process.poll() is None, self.log.read_text()[-3000:]

    def end(self) -> int:
        """SIGTERM, then its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def missing(settings: Settings) -> str:
    """What a worker says that it waits for; nothing where its pages are not there yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.web.port}/readyz", timeout=1) as page:
            return str(page.read())
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except (urllib.error.URLError, OSError):
        return ""


@contextmanager
def worker(settings: Settings, log: Path) -> Iterator[WorkerProcess]:
    """A ready worker, ended whatever happens."""
    running = WorkerProcess(settings, log)
    try:
        running.wait_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


def read(settings: Settings, topic: str, contract: str) -> list[dict[str, Any]]:
    """All that is on a topic now, decoded; by partition, then offset."""
    out: list[dict[str, Any]] = []
    with closing(ConfluentRegistry(settings.registry())) as registry:
        decode = Decoder(registry, contract)
        for (_, partition), (low, high) in bounds(settings, places(settings, topic)).items():
            for messages in read_range(settings, topic, partition, low, high):
                out += [decode(message.value()) for message in messages if message.value() is not None]
    return out


def scores(settings: Settings, task: str) -> list[dict[str, Any]]:
    contract = {"fraud": "fraud_score", "recommendations": "recommendation_score", "ctr": "ctr_score"}[task]
    return read(settings, settings.topics.scores(task), contract)


def wait_for(holds, seconds: float = 30, complaint=lambda: "") -> None:
    """Returns when `holds()`; fails with `complaint()` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {seconds} s: {complaint()}")
        time.sleep(0.1)
