"""What the demo sets up: servers, topics, models, catalogue, release pointers, and the worker's process.
Models and downloads are kept for the next run; the broker's log and the worker's state start anew, so that a second
run is not a stream of repeats.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from schemas.confluent import ConfluentRegistry
from schemas.errors import DataUnavailable, HeadraceError, ProduceFailed
from schemas.wire import Encoder
from streams.config import Settings
from streams.config_sections import WINDOWS_S
from streams.demo.models import TEXT_ENCODER, ModelPlan, command, load_vectors, missing
from streams.local import LocalBroker, LocalRegistry
from streams.offsets import bounds, places
from streams.output_columns import FEATURES_FORMAT
from streams.pointers import Pointer
from streams.ports import free_port
from streams.sources.fetch import fetch
from streams.sources.publisher import Publisher
from streams.sources.simulate import publish_catalog
from streams.sources.world import World
from streams.topics import create_topics
from streams.vectors import HashingEncoder, vector_key

READY_S = 60.0
READY = {"worker": "readyz", "learner": "healthz", "console": "healthz"}
STOP_S = 20.0

#: A small shop in a hurry: five hours of its time are a second, and a chargeback later than ten days is a late one.
LEARNING: dict[str, Any] = {
    "examples": 1_600,
    "positives": 100,
    "interval_s": 20.0,
    "gate_labels": 200,
    "gate_positives": 20,
    "windows_s": {**WINDOWS_S, "fraud": 10 * 86_400},
}

MADE_AS = 5
"""Raised where models of the same plan come out otherwise: those that were made before are made anew."""

Say = Callable[[str], None]


@contextmanager
def servers(folder: Path, cache: Path, say: Say) -> Iterator[tuple[str, str]]:
    """A broker and a registry with an empty log; addresses of both. They end with the context."""
    shutil.rmtree(folder, ignore_errors=True)
    broker = LocalBroker(folder / "kafka", outlive=False, cache=cache, report=say)
    registry = LocalRegistry(folder / "registry", outlive=False, cache=cache, report=say)
    try:
        with ThreadPoolExecutor(2) as pool:
            for started in [pool.submit(server.start) for server in (broker, registry)]:
                started.result()
        yield broker.address, registry.url
    finally:
        registry.stop()
        broker.stop()


def demo_settings(settings: Settings, brokers: str, registry_url: str, folder: Path) -> Settings:
    """The user's settings with the demo's own servers, folder and release store."""
    web, learner_web, pages = (free_port() for _ in range(3))
    seen = {"workers": (f"127.0.0.1:{web}",), "learners": (f"127.0.0.1:{learner_web}",)}
    return settings.model_copy(
        update={
            "brokers": brokers,
            "registry_url": registry_url,
            "data_dir": folder / "run",
            "app_id": "headrace-demo",
            "web": settings.web.model_copy(update={"host": "127.0.0.1", "port": web}),
            "learner_web": settings.learner_web.model_copy(update={"host": "127.0.0.1", "port": learner_web}),
            "console": settings.console.model_copy(update={"host": "127.0.0.1", "port": pages, **seen}),
            "learning": settings.learning.model_copy(update=LEARNING),
        }
    )


def models(plan: ModelPlan, folder: Path, on_step: Callable[[dict[str, Any]], None]) -> dict[str, str]:
    """Versions of the releases by task: those made before from the same plan, or new ones."""
    marker = folder / "models.json"
    if marker.exists():
        made = json.loads(marker.read_text())
        if all((Path(plan.store) / t / v).is_dir() for t, v in made["versions"].items()) and (
            made["plan"] == _digest(plan, TEXT_ENCODER)
            or (made["plan"] == _digest(plan, HashingEncoder.version) and _no_better_encoder(on_step))
        ):
            return dict(made["versions"])
    versions: dict[str, str] = {}
    encoder = TEXT_ENCODER
    if plan.reservoir:
        shutil.rmtree(plan.reservoir, ignore_errors=True)
    with subprocess.Popen(command(plan), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            step = json.loads(line)
            on_step(step)
            if step["what"] == "release":
                versions[step["task"]] = step["version"]
            elif step["what"] == "missing":
                encoder = HashingEncoder.version
        complaint = process.stderr.read()
    if process.returncode or not versions:
        raise DataUnavailable("the first models could not be trained", where="training", todo=complaint.strip()[-2000:])
    marker.write_text(json.dumps({"plan": _digest(plan, encoder), "versions": versions}))
    return versions


def _digest(plan: ModelPlan, encoder: str) -> str:
    """Of all that the models come of. `encoder`: whose vectors they know."""
    said = json.dumps([MADE_AS, FEATURES_FORMAT, encoder, asdict(plan)], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _no_better_encoder(on_step: Callable[[dict[str, Any]], None]) -> bool:
    """Whether the text encoder still cannot be had, which is said; else models of hashed words are made anew."""
    try:
        fetch(TEXT_ENCODER)
    except DataUnavailable as error:
        on_step(missing(error))
        return True
    return False


def inherit(reservoir: Path, settings: Settings) -> None:
    """Gives the learner what the first training was taught: its fine-tunes replay it, and the gate looks back at it."""
    for kept in reservoir.iterdir():
        shutil.copytree(kept, settings.data_dir / "learner" / settings.app_id / kept.name / "reservoir")


def forget(settings: Settings, topics: list[str]) -> None:
    """Deletes what these topics hold by now."""
    found = bounds(settings, [place for topic in topics for place in places(settings, topic)])
    admin = AdminClient(settings.librdkafka())
    ends = [TopicPartition(topic, part, high) for (topic, part), (_, high) in found.items()]
    for deleted in admin.delete_records(ends).values():
        deleted.result()


def furnish(settings: Settings, world: World, vectors: Path, versions: dict[str, str]) -> Publisher:
    """Topics, catalogue with its vectors, and the pointers to the live releases; returns the shop's publisher."""
    create_topics(settings)
    registry = ConfluentRegistry(settings.registry())
    publisher = Publisher(settings, registry, source="demo")
    publish_catalog(world.catalog(), publisher)
    topics = settings.topics
    producer = confluent_kafka.Producer({**settings.librdkafka(), "acks": "all", "linger.ms": 5})
    encode = Encoder(registry, topics.vectors, "catalog_vector")
    for vector in load_vectors(vectors):
        producer.produce(topics.vectors, encode(vector), vector_key(vector))
    encode = Encoder(registry, topics.releases, "model_release")
    for task, version in versions.items():
        producer.produce(topics.releases, encode(pointer(task, version)), f"{task}/live".encode())
    if producer.flush(30):
        raise ProduceFailed("the catalogue could not be sent", where=settings.brokers)
    return publisher


def pointer(task: str, version: str, epoch: int = 1) -> dict[str, object]:
    """The ModelRelease record that makes a version live."""
    return Pointer(task, version, None, epoch, False, time.time_ns() // 1_000_000).record()


class Part:
    """`headrace worker`, `learner` or `console` in a process of its own. One that ends may be started again: a worker
    whose output is refused ends, uncommitted, for whoever keeps it to do that.
    """

    def __init__(self, settings: Settings, name: str, log: Path) -> None:
        self.name, self.log = name, log
        self._settings = settings
        log.unlink(missing_ok=True)
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streams", self.name],
                env=os.environ | environment(self._settings),
                stderr=file,
                stdout=file,
            )

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        """In order, or else by force."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def process(settings: Settings, name: str, port: int, log: Path) -> Iterator[Part]:
    """A part that answers when the context is entered, and is stopped when it is left."""
    part = Part(settings, name, log)
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/{READY[name]}", name, part.process, log)
        yield part
    finally:
        part.stop()


def wait_ready(settings: Settings, worker: subprocess.Popen[bytes], log: Path) -> None:
    """Raises HeadraceError where the worker ends, or is not ready in READY_S seconds."""
    wait_for_answer(f"http://127.0.0.1:{settings.web.port}/readyz", "worker", worker, log)


def wait_for_answer(url: str, name: str, started: subprocess.Popen[bytes], log: Path) -> None:
    """Raises HeadraceError where the process ends, or does not answer in READY_S seconds."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if started.poll() is not None:
            raise HeadraceError(
                f"the {name} ended", where=str(log), todo=log.read_text(errors="replace").strip()[-1500:]
            )
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise HeadraceError(f"the {name} was not ready in {READY_S:.0f} s", where=str(log))


def environment(settings: Settings) -> dict[str, str]:
    """The settings as HEADRACE_* variables, for a process that is to have the same ones."""
    out: dict[str, str] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                add(f"{prefix}__{name}" if prefix != "HEADRACE" else f"HEADRACE_{name}", part)
        elif isinstance(value, SecretStr):
            out[prefix.upper()] = value.get_secret_value()  # masked, the other process would take the stars for it
        elif value is not None:
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            out[prefix.upper()] = text

    add("HEADRACE", settings.model_dump())
    return out
