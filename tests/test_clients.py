"""The example clients of docs/clients, each run against the real broker and registry: what they publish is what the
worker reads, on the partition where it looks; what they print is what is on the topic.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas.confluent import ConfluentRegistry
from schemas.wire import Decoder, Encoder
from streams.config import Settings, default_data_dir
from streams.jars import kafka_jars, registry_folder
from streams.java import exclusive
from streams.local import LocalRegistry
from streams.offsets import bounds, places, read_range
from streams.partitioning import partition_for
from tests.conftest import FreshSettings

ROOT = Path(__file__).parent.parent
CLIENTS = ROOT / "docs" / "clients"
# Of every length modulo 4, in one to four bytes a letter: murmur2 treats the rest of a key by its length.
USERS = [*(f"user-{number}" for number in range(40)), "a", "ab", "abc", "abcd", "ünïcødé", "用户", "👩🏽‍💻", "x" * 200]
Commands = tuple[list[str], list[str]]
"""How publish and consume are begun."""


def python() -> Commands:
    return [sys.executable, str(CLIENTS / "python/publish.py")], [sys.executable, str(CLIENTS / "python/consume.py")]


def java() -> Commands:
    """The launcher compiles one source file by itself, where it is a JDK's; the jars are the embedded servers'."""
    needs("java")
    modules = subprocess.run(["java", "--list-modules"], capture_output=True, text=True, check=True).stdout
    if "jdk.compiler" not in modules:
        pytest.skip("this Java is no JDK: it cannot compile a source file")
    library = registry_folder() / "lib" / "main"
    wanted = ("org.apache.avro.avro-1", "com.fasterxml.jackson.core.jackson-")
    jars = [*kafka_jars(), *(jar for jar in sorted(library.glob("*.jar")) if jar.name.startswith(wanted))]
    path = ":".join(map(str, jars))
    begin = ["java", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", path]
    return [*begin, str(CLIENTS / "java/Publish.java")], [*begin, str(CLIENTS / "java/Consume.java")]


@cache
def go() -> Commands:
    needs("go")
    folder = kept("go")
    for name in ("publish", "consume"):
        made("go", "build", "-o", str(folder / name), f"./{name}", cwd=CLIENTS / "go")
    return [str(folder / "publish")], [str(folder / "consume")]


@cache
def javascript() -> Commands:
    needs("node", "npm")
    folder = kept("javascript")
    with exclusive(folder):
        for path in (CLIENTS / "javascript").iterdir():
            if path.is_file():
                shutil.copy(path, folder)
        if not (folder / "node_modules").is_dir():
            made("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
    return ["node", str(folder / "publish.mjs")], ["node", str(folder / "consume.mjs")]


LANGUAGES: dict[str, Callable[[], Commands]] = {"python": python, "java": java, "go": go, "javascript": javascript}


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on this machine")


def kept(language: str) -> Path:
    """Libraries of a client, fetched once for each set of pins."""
    pins = (CLIENTS / language / {"go": "go.sum", "javascript": "package-lock.json"}[language]).read_bytes()
    folder = default_data_dir() / "tools" / f"client-{language}-{hashlib.sha256(pins).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def made(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=600)
    if done.returncode:
        pytest.skip(f"`{' '.join(command[:2])}` failed, its registry may not be served: {done.stderr[-300:]}")


def ran(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(params=LANGUAGES)
def commands(request: pytest.FixtureRequest) -> Commands:
    publish, consume = LANGUAGES[request.param]()
    return publish, consume


def test_what_a_client_publishes_is_read_and_lies_where_the_worker_looks(
    commands: Commands, fresh_settings: FreshSettings, registry: LocalRegistry
) -> None:
    settings = fresh_settings(partitions=5)
    topic = settings.topics.clicks
    contract = str(ROOT / "schemas/avro/click.avsc")
    said = ran(*commands[0], settings.brokers, settings.registry_url, topic, contract, *USERS)
    assert said.splitlines()[-1] == f"published {len(USERS)}"
    found = published(settings, topic)
    assert {user: partition for user, (partition, _) in found.items()} == {
        user: partition_for(user.encode(), 5) for user in USERS
    }
    for user, (_, click) in found.items():
        assert (click["user_id"], click["action"], click["item_id"]) == (user, "view", "item-1")
        assert click["session_id"] is None
        assert click["event_time"] > 1_700_000_000_000
    assert len({click["event_id"] for _, click in found.values()}) == len(USERS)


def published(settings: Settings, topic: str) -> dict[str, tuple[int, dict[str, Any]]]:
    """user -> partition and record, as the worker decodes it."""
    client = ConfluentRegistry(settings.registry())
    decode = Decoder(client, "click")
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    for (_, partition), (low, high) in bounds(settings, places(settings, topic)).items():
        for messages in read_range(settings, topic, partition, low, high):
            found |= {message.key().decode(): (partition, dict(decode(message.value()))) for message in messages}
    client.close()
    return found


def test_what_a_client_prints_is_what_is_on_the_topic(
    commands: Commands, fresh_settings: FreshSettings, registry: LocalRegistry
) -> None:
    settings = fresh_settings()
    scores = {f"o-{number}": score(f"o-{number}", number / 10) for number in range(6)}
    say(settings, settings.topics.scores_fraud, scores)
    line = [*commands[1], settings.brokers, settings.registry_url, settings.topics.scores_fraud, f"{settings.app_id}-c"]
    printed = {each["event_id"]: each for each in map(json.loads, ran(*line, "6").splitlines())}
    assert printed.keys() == scores.keys()
    for name, each in printed.items():
        assert each["probability"] == pytest.approx(scores[name]["probability"])
        assert (each["decision"], each["user_id"]) == ("review", "用户")
    # What was printed was committed: a second run goes on behind it.
    more = {"o-9": score("o-9", 0.9)}
    say(settings, settings.topics.scores_fraud, more)
    assert [json.loads(each)["event_id"] for each in ran(*line, "1").splitlines()] == ["o-9"]


def score(event: str, probability: float) -> dict[str, Any]:
    return {
        "event_id": event, "user_id": "用户", "event_time": 1_770_000_000_000, "scored_at": 1_770_000_000_100,
        "release": "fraud/1", "engine": "null", "late": False, "fallback": None,
        "timings": {"queue_us": 1, "infer_us": 2}, "cut": {"clicks": 0, "orders": 1, "impressions": 0},
        "order_id": event, "probability": probability, "decision": "review", "reasons": ["new card"],
        "policy_version": "", "decided_by": "", "rules": [], "expected_loss": None,
    }  # fmt: skip


def say(settings: Settings, topic: str, scores: dict[str, dict[str, Any]]) -> None:
    client = ConfluentRegistry(settings.registry())
    encode = Encoder(client, topic, "fraud_score")
    producer = Producer({**settings.librdkafka(), "enable.idempotence": True})
    for each in scores.values():
        producer.produce(topic, key=b"u", value=encode(each))
    assert producer.flush(20) == 0
    client.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_example_is_short(language: str) -> None:
    sources = [path for path in (CLIENTS / language).rglob("*.*") if path.suffix in (".py", ".java", ".go", ".mjs")]
    assert len(sources) == 2
    assert all(len(path.read_text("utf-8").splitlines()) < 60 for path in sources)


def test_the_pins_name_no_registry() -> None:
    for path in (CLIENTS / "javascript/package-lock.json", CLIENTS / "go/go.sum", CLIENTS / "go/go.mod"):
        assert not re.search(r'"resolved"|registry\.|proxy\.', path.read_text("utf-8")), path
