"""The loop that learns, on a real broker: examples to a live release and back, in whatever moment it is killed."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from engines.releases import ReleaseStore
from finetune.example_files import write_catalog, write_examples
from schemas.confluent import ConfluentRegistry
from schemas.wire import Encoder
from streams.config import Settings
from streams.learner.control import command, statuses
from streams.learner.learning import Learning
from streams.learner.metrics import LearnerMetrics
from streams.learner.standing import Standing
from streams.local import LocalRegistry
from streams.pointers import Pointer, live_pointers
from tests import shop
from tests.conftest import FreshSettings
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


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    made: Settings = fresh_settings(tasks=("fraud",), learning=LEARNING, learner_web={"port": 0})
    return made


@pytest.fixture(scope="session")
def graduate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a release that has learned what fraud looks like."""
    folder = tmp_path_factory.mktemp("graduate")
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

    def point(self, version: str, previous: str | None = None, epoch: int = 1) -> None:
        pointer = Pointer("fraud", version, previous, epoch, False, int(time.time() * 1000))
        self.send(self.settings.topics.releases, b"fraud/live", pointer.record(), 0)
        assert self._producer.flush(30) == 0

    def teach(self, records: list[dict[str, Any]], source: str = "chargeback") -> None:
        for record in records:
            named = {"source": source if record["label"] else ""}
            self.send(self.settings.topics.examples, record["example_id"].encode(), SILENT | record | named)
        assert self._producer.flush(30) == 0

    def live(self) -> str:
        return live_pointers(self.settings)["fraud"].version

    def announced(self) -> dict[str, dict[str, Any]]:
        """By version."""
        found = shop.read(self.settings, self.settings.topics.releases, "model_release")
        return {record["version"]: record for record in found if record["kind"] == "release"}


@contextmanager
def learning(settings: Settings) -> Iterator[Learning]:
    """In a thread; what it raises is raised here."""
    made, failed = Learning(settings, LearnerMetrics()), []

    def run() -> None:
        try:
            made.run()
        except BaseException as error:  # noqa: BLE001  it is raised where the test ends
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join(60)
        if failed:
            raise failed[0]


def test_new_examples_become_a_live_release_that_says_what_it_learned_and_the_next_learns_only_the_rest(
    settings: Settings, graduate: Path
) -> None:
    school = School(settings, graduate)
    school.teach(rare(9_000, seed=1))
    with learning(settings):
        shop.wait_for(lambda: school.live() != school.champion, 120, lambda: str(statuses(settings)))
        first = school.live()
        shop.wait_for(lambda: statuses(settings)[0]["fraud"].detail["champion"] == first, 30)
        school.teach(rare(3_000, seed=2, start=START + 9_100 * MINUTE))
        shop.wait_for(lambda: len(school.announced()) == 2, 120, lambda: str(statuses(settings)))
    said = school.announced()
    assert said[first]["state"] == "live"
    assert json.loads(said[first]["gate"])["verdict"] == "pass"
    manifests = [school.store.open("fraud", version).manifest for version in said]
    standings = [Standing.of(manifest.trained) for manifest in manifests]
    assert standings[0].until < standings[1].until
    assert sum(standings[0].end.values()) <= sum(standings[1].end.values())
    trained = [manifest.trained["examples"] for manifest in manifests]
    assert trained[0] == pytest.approx(0.55 * len(rare(9_000, seed=1)), abs=1)
    assert sum(trained) <= len(rare(9_000, seed=1)) + len(rare(3_000, seed=2))


def test_a_candidate_that_the_gate_refuses_is_kept_with_its_reasons_and_nothing_changes(
    settings: Settings, graduate: Path
) -> None:
    school = School(settings, graduate)
    records = rare(9_000, seed=1)
    for record in records:
        record["label_hash"] = 5 if record["label"] else 0  # one label, told again and again
    school.teach(records)
    with learning(settings):
        shop.wait_for(lambda: bool(school.announced()), 120, lambda: str(statuses(settings)))
        shop.wait_for(lambda: statuses(settings)[0]["fraud"].detail["last"].get("result") == "refused", 30)
    ((version, said),) = school.announced().items()
    assert said["state"] == "refused"
    assert json.loads(said["gate"])["verdict"] == "refuse"
    assert school.live() == school.champion
    assert version in school.store.list("fraud")
    assert "an id that came before" in statuses(settings)[0]["fraud"].detail["last"]["why"]


def test_a_live_release_that_does_worse_is_taken_back_by_itself_and_marked(settings: Settings, graduate: Path) -> None:
    school = School(settings, graduate)
    worse = small_release(small_model("fraud", seed=5), school.store).version
    school.point(worse, school.champion, epoch=2)
    with learning(settings):
        for number in range(400):
            record = {
                "event_id": f"o-{number}", "task": "fraud", "target_id": f"o-{number}", "user_id": "u",
                "event_time": number, "compared_at": number, "live": f"fraud/{worse}",
                "shadow": f"fraud/{school.champion}", "candidates": [], "live_prediction": [0.9],
                "shadow_candidates": [], "shadow_prediction": [0.02], "live_decision": None, "shadow_decision": None,
                "live_us": 500, "shadow_us": 500, "failure": None,
            }  # fmt: skip
            school.send(settings.topics.shadow, f"o-{number}".encode(), record)
        innocent = [record | {"label": 0.0, "target_id": f"o-{n}"} for n, record in enumerate(frauds(400, way=1))]
        school.teach(innocent)
        shop.wait_for(lambda: school.live() == school.champion, 60, lambda: str(statuses(settings)))
    said = school.announced()[worse]
    assert said["state"] == "rolled back"
    assert json.loads(said["gate"])["action"] == "rollback"
    assert live_pointers(settings)["fraud"].epoch == 3


def test_a_pause_outlasts_the_learner_and_a_wish_is_granted_once(settings: Settings, graduate: Path) -> None:
    school = School(settings, graduate)
    command(settings, "fraud", 1, paused=True, by="ann")
    school.teach(rare(9_000, seed=1))
    with learning(settings):
        shop.wait_for(lambda: "fraud" in statuses(settings)[0], 60)
    with learning(settings):
        shop.wait_for(lambda: statuses(settings)[0]["fraud"].state == "paused", 60)
        assert school.live() == school.champion
        command(settings, "fraud", 2, paused=False)
        shop.wait_for(lambda: bool(school.announced()), 120, lambda: str(statuses(settings)))
    assert statuses(settings)[1]["fraud"].by == "ann"
