"""The loop that learns, on a real broker: examples to a live release and back, in whatever moment it is killed."""

import json
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from streams.config import Settings
from streams.learner.control import command, statuses
from streams.learner.learning import Learning
from streams.learner.metrics import LearnerMetrics
from streams.learner.standing import Standing
from streams.local import LocalRegistry
from streams.pointers import live_pointers
from tests import shop
from tests.conftest import FreshSettings
from tests.finetune_examples import MINUTE, START, frauds, rare, small_model, small_release
from tests.running import running
from tests.school import LEARNING, School, graduate


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    made: Settings = fresh_settings(tasks=("fraud",), learning=LEARNING, learner_web={"port": 0})
    return made


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graduate(tmp_path_factory.mktemp("graduate"))


def learning(settings: Settings) -> AbstractContextManager[Learning]:
    return running(Learning(settings, LearnerMetrics()))


def test_new_examples_become_a_live_release_that_says_what_it_learned_and_the_next_learns_only_the_rest(
    settings: Settings, taught: Path
) -> None:
    school = School(settings, taught)
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
    assert trained[0] == pytest.approx(0.8 * 0.55 * len(rare(9_000, seed=1)), abs=1)
    assert manifests[0].trained["held_out"] == pytest.approx(0.2 * 0.55 * len(rare(9_000, seed=1)), abs=1)
    assert [manifest.trained["held_back"] for manifest in manifests] == [0, 0]
    assert sum(trained) <= len(rare(9_000, seed=1)) + len(rare(3_000, seed=2))


def test_a_candidate_that_the_gate_refuses_is_kept_with_its_reasons_and_nothing_changes(
    settings: Settings, taught: Path
) -> None:
    school = School(settings, taught)
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


def test_a_live_release_that_does_worse_is_taken_back_by_itself_and_marked(settings: Settings, taught: Path) -> None:
    school = School(settings, taught)
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


def test_a_pause_outlasts_the_learner_and_a_wish_is_granted_once(settings: Settings, taught: Path) -> None:
    school = School(settings, taught)
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
