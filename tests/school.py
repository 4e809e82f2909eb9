"""A shop with a champion that knows some fraud, and examples to learn from: what the tests of the learner stand on."""

import json
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import confluent_kafka

from engines.releases import ReleaseStore
from finetune.example_files import write_catalog, write_examples
from schemas.confluent import ConfluentRegistry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.pointers import Pointer, live_pointers
from tests import shop
from tests.finetune_examples import (
    ADS,
    ITEMS,
    MINUTE,
    START,
    frauds,
    rare,
    small_catalog,
    small_model,
    small_release,
)

LEARNING = {
    "examples": 4_000, "positives": 60, "interval_s": 0, "gate_labels": 200, "gate_positives": 50, "mode": "full",
    "window": 0.45,
}  # fmt: skip
SILENT = {"user_id": "", "source": "", "label_hash": 0, "observed_at": 0, "prediction": None}


def graduate(folder: Path) -> Path:
    """A store, made in the folder, with a release that has learned what fraud looks like."""
    store = ReleaseStore(str(folder / "store"))
    beginner = small_release(small_model("fraud"), store).version
    records = rare(4_000, seed=9, start=START - 9_000 * MINUTE)
    files = {
        "examples": [{"path": str(folder / "e"), "sha256": write_examples(folder / "e", records)}],
        "catalog": {"path": str(folder / "c"), "sha256": write_catalog(folder / "c", small_catalog())},
    }
    recipe = {"mode": "full", "batch": 64, "rate": 5e-3, "evaluate_every": 5}
    plan = {"task": "fraud", "champion": beginner, "store": store.url, "out": str(folder / "out"), "recipe": recipe}
    (folder / "plan").write_text(json.dumps(plan | files))
    subprocess.run([sys.executable, "-m", "finetune.run", str(folder / "plan")], check=True, stdout=subprocess.PIPE)
    shutil.rmtree(folder / "store" / "fraud" / beginner)
    return folder / "store"


class School:
    """A shop with a champion, and examples that can be learned."""

    def __init__(self, settings: Settings, graduate: Path) -> None:
        shutil.copytree(graduate, settings.release_store)
        self.settings = settings
        self.store = ReleaseStore(settings.release_store)
        self._producer = confluent_kafka.Producer(settings.librdkafka() | {"acks": "all"})
        with closing(ConfluentRegistry(settings.registry())) as registry:
            names = settings.topics
            self._encoders = {
                topic: Encoder(registry, topic, contract)
                for topic, contract in (
                    (names.items, "catalog_item"), (names.ads, "catalog_ad"), (names.vectors, "catalog_vector"),
                    (names.releases, "model_release"), (names.examples, "training_example"),
                    (names.shadow, "shadow_score"),
                )
            }  # fmt: skip
        (self.champion,) = self.store.list("fraud")
        self._furnish()
        self.point(self.champion)

    def _furnish(self) -> None:
        catalog, names = small_catalog(), self.settings.topics
        for row in range(1, ITEMS + ADS + 1):
            vector = {
                "kind": "item" if row <= ITEMS else "ad", "id": catalog.ids[row], "row": row, "encoder": "test",
                "digest": "", "vector": catalog.text[row].astype("<f4").tobytes(),
            }  # fmt: skip
            self.send(names.vectors, f"{row}".encode(), vector)

    def send(self, topic: str, key: bytes, record: dict[str, Any], partition: int = -1) -> None:
        self._producer.produce(topic, self._encoders[topic](record), key, partition)

    def point(self, version: str, previous: str | None = None, epoch: int = 1, *, pinned: bool = False) -> None:
        pointer = Pointer("fraud", version, previous, epoch, pinned, int(time.time() * 1000))
        self.send(self.settings.topics.releases, b"fraud/live", pointer.record(), 0)
        assert self._producer.flush(30) == 0

    def teach(self, records: list[dict[str, Any]], source: str = "chargeback") -> None:
        for record in records:
            named = {"source": source if record["label"] else ""}
            self.send(self.settings.topics.examples, record["example_id"].encode(), SILENT | record | named)
        assert self._producer.flush(30) == 0

    def compare(
        self, live: str, shadow: str, count: int, said: tuple[float, float] = (0.9, 0.02), **changed: Any
    ) -> None:
        """ShadowScores of the orders `o-0` and on, a minute apart. said: by the one that serves, and by the other."""
        for number in range(count):
            record = {
                "event_id": f"o-{number}", "task": "fraud", "target_id": f"o-{number}", "user_id": "u",
                "event_time": START + number * MINUTE, "compared_at": int(time.time() * 1000),
                "live": f"fraud/{live}", "shadow": f"fraud/{shadow}", "candidates": [], "live_prediction": [said[0]],
                "shadow_candidates": [], "shadow_prediction": [said[1]], "live_decision": None,
                "shadow_decision": None, "live_us": 500, "shadow_us": 500, "failure": None,
            } | changed  # fmt: skip
            self.send(self.settings.topics.shadow, f"o-{number}".encode(), record)
        assert self._producer.flush(30) == 0

    def innocent(self, count: int) -> None:
        """Nothing came of these orders."""
        self.teach([each | {"label": 0.0, "target_id": f"o-{n}"} for n, each in enumerate(frauds(count, way=1))])

    def live(self) -> str:
        return live_pointers(self.settings)["fraud"].version

    def announced(self) -> dict[str, dict[str, Any]]:
        """By version."""
        found = shop.read(self.settings, self.settings.topics.releases, "model_release")
        return {record["version"]: record for record in found if record["kind"] == "release"}


def decoded(settings: Settings, messages: list[confluent_kafka.Message]) -> list[dict[str, Any]]:
    """TrainingExamples of these messages."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        decode = Decoder(registry, "training_example")
        return [decode(message.value()) for message in messages]
