"""What a benchmark of a whole worker stands on: a broker and a registry of its own, topics, catalogue, releases.
All of it lives in one folder that goes with the benchmark; nothing of the user's own data is touched.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka

from schemas.confluent import ConfluentRegistry
from schemas.wire import Encoder
from streams.config import Settings, default_data_dir
from streams.config_sections import Topics
from streams.demo.stage import environment, pointer, servers
from streams.policy_topic import apply
from streams.ports import free_port
from streams.sources.load import uniform_catalog
from streams.sources.publisher import Message, Publisher
from streams.sources.simulate import publish_catalog
from streams.sources.telling import Timed
from streams.topics import create_topics
from streams.vectors import HashingEncoder, catalogue_vectors, vector_key

NEVER_MS = 1_000_000_000
"""A deadline that nothing misses: what was published before the worker started is not late."""
POLICY = """name = "bench"
[[rules]]
id = "three-percent"
when = "user.id.endsWith('17') || user.id.endsWith('47') || user.id.endsWith('77')"
then = "review"
[[rules]]
id = "half-a-percent"
when = "['100', '300', '500', '700', '900'].exists(end, user.id.endsWith(end))"
then = "block"
[[rules]]
id = "others"
when = "true"
then = "approve"
"""
"""As many alerts as a shop's people can answer: by thresholds, random weights flag half of the orders, or none."""
INPUTS = {"clicks", "orders", "impressions", "labels"}
CATALOGUE = {"items", "ads", "vectors", "releases"}
TASKS = ("fraud", "recommendations", "ctr")


def say(text: object) -> None:
    """Progress, on stderr: stdout is for the line of JSON."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def testbed(**over: Any) -> Iterator[Settings]:
    """Settings on fresh servers; `over` are settings by name. Everything is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        root = Path(folder)
        with servers(root / "servers", default_data_dir() / "java", say) as (brokers, registry_url):
            own: dict[str, Any] = {"data_dir": root / "run", "release_store": str(root / "releases"), "app_id": "bench"}
            yield Settings(brokers=brokers, registry_url=registry_url, **{**own, **over})


def variant(settings: Settings, name: str, *, inputs: bool = False, **over: Any) -> Settings:
    """The same catalogue and releases, with outputs, group and folder of its own; with `inputs`, also these."""
    shared = CATALOGUE if inputs else CATALOGUE | INPUTS
    topics = {key: topic if key in shared else f"{name}.{topic}" for key, topic in settings.topics.model_dump().items()}
    values = {
        **settings.model_dump(),
        "app_id": f"bench-{name}",
        "data_dir": settings.data_dir / name,
        "topics": Topics(**topics),
        "web": {"port": free_port()},
        **over,
    }
    made = Settings(**values)
    create_topics(made)
    return made


def make_releases(store: str, **sizes: int) -> dict[str, str]:
    """A release a task with random weights, made in a process of its own; versions by task."""
    command = [
        sys.executable,
        "-m",
        "bench.random_releases",
        store,
        *(f"{name}={size}" for name, size in sizes.items()),
    ]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(line.split() for line in made.stdout.splitlines())


def furnish(settings: Settings, policy: str = POLICY, **sizes: int) -> None:
    """Topics, a policy, the plain load's catalogue with vectors, and live releases of models of these sizes."""
    create_topics(settings)
    items, ads = uniform_catalog()
    with closing(ConfluentRegistry(settings.registry())) as registry:
        apply(settings, registry, policy, by="bench")
        publish_catalog((items, ads), Publisher(settings, registry))
        topics = settings.topics
        vector, release = (
            Encoder(registry, topics.vectors, "catalog_vector"),
            Encoder(registry, topics.releases, "model_release"),
        )
    producer = confluent_kafka.Producer({**settings.librdkafka(), "acks": "all", "linger.ms": 5})
    for row in catalogue_vectors(items, ads, HashingEncoder()):
        producer.produce(topics.vectors, vector(row), vector_key(row))
    for task, version in make_releases(settings.release_store, **sizes).items():
        producer.produce(topics.releases, release(pointer(task, version)), f"{task}/live".encode())
    producer.flush()


def encoded(settings: Settings, events: Iterable[Timed]) -> list[Message]:
    """Events as messages, so that publishing them costs as little as it can."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        publisher = Publisher(settings, registry)
        return [publisher.encode(event) for event in events]


def publish(settings: Settings, events: Iterable[Timed]) -> int:
    """As fast as the broker takes them; how many, when all are acknowledged."""
    with closing(ConfluentRegistry(settings.registry())) as registry, Publisher(settings, registry) as publisher:
        for event in events:
            publisher.publish(event)
    return sum(publisher.sent.values())


@contextmanager
def process(arguments: Sequence[str], settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m ARGUMENTS` with these settings in its environment; killed when the block ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        running = subprocess.Popen(
            [sys.executable, "-m", *arguments], env=os.environ | environment(settings), stdout=file, stderr=file
        )
    try:
        yield running
    except Exception:
        say(log.read_text(errors="replace")[-3000:])
        raise
    finally:
        running.kill()
        running.wait()
