"""The loop that learns, on a real broker: examples to a live release and back, in whatever moment it is killed."""

import json
import shutil
import tempfile
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from engines.manifest import Description
from engines.releases import ReleaseStore
from schemas.confluent import ConfluentRegistry
from streams.config import Settings
from streams.learner.champion import Champions
from streams.learner.control import Status, command, statuses
from streams.learner.learning import Learning
from streams.learner.metrics import LearnerMetrics
from streams.learner.standing import Standing
from streams.local import LocalRegistry
from streams.pointers import live_pointers
from tests import shop
from tests.conftest import FreshSettings
from tests.finetune_examples import MINUTE, START, rare, small_model, small_release
from tests.running import running
from tests.school import LEARNING, School, graduate

FEW = 250
"""Comparisons, fewer than it takes to say that scores are spread otherwise: what is said then, labels say."""


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    made: Settings = fresh_settings(tasks=("fraud",), learning=LEARNING, learner_web={"port": 0})
    return made


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graduate(tmp_path_factory.mktemp("graduate"))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a release that knows nothing: for what is said of releases, and not learned by them."""
    store = ReleaseStore(str(tmp_path_factory.mktemp("shelf")))
    small_release(small_model("fraud"), store)
    return Path(store.url)


def learning(settings: Settings) -> AbstractContextManager[Learning]:
    return running(Learning(settings, LearnerMetrics()))


def fraud(settings: Settings) -> Status:
    """What the learner says of the task; nothing yet, at first."""
    return statuses(settings)[0].get("fraud") or Status("fraud", "", {}, 0)


def test_new_examples_become_a_live_release_that_says_what_it_learned_and_the_next_learns_only_the_rest(
    settings: Settings, taught: Path
) -> None:
    school = School(settings, taught)
    school.teach(rare(9_000, seed=1))
    with learning(settings):
        shop.wait_for(lambda: school.live() != school.champion, 300, lambda: str(statuses(settings)))
        first = school.live()
        shop.wait_for(lambda: fraud(settings).detail["champion"] == first, 30)
        school.teach(rare(3_000, seed=2, start=START + 9_100 * MINUTE))
        shop.wait_for(lambda: len(school.announced()) == 2, 300, lambda: str(statuses(settings)))
    said = school.announced()
    assert said[first]["state"] == "live"
    assert json.loads(said[first]["gate"])["verdict"] == "pass"
    manifests = [school.store.open("fraud", version).manifest for version in said]
    standings = [Standing.of(manifest.trained) for manifest in manifests]
    assert standings[0].until < standings[1].until
    assert sum(standings[0].end.values()) <= sum(standings[1].end.values())
    trained = [manifest.trained["examples"] for manifest in manifests]
    assert trained[0] == pytest.approx(0.8 * 0.55 * len(rare(9_000, seed=1)), abs=2)
    assert manifests[0].trained["held_out"] == pytest.approx(0.2 * 0.55 * len(rare(9_000, seed=1)), abs=2)
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
        shop.wait_for(lambda: bool(school.announced()), 300, lambda: str(statuses(settings)))
        shop.wait_for(lambda: fraud(settings).detail["last"].get("result") == "refused", 30)
    ((version, said),) = school.announced().items()
    assert said["state"] == "refused"
    assert json.loads(said["gate"])["verdict"] == "refuse"
    assert school.live() == school.champion
    assert version in school.store.list("fraud")
    assert "an id that came before" in fraud(settings).detail["last"]["why"]


def child(school: School, of: str, seed: int) -> str:
    """The champion again, as a release that was made from another."""
    parent = school.store.open("fraud", school.champion)
    said = parent.manifest.model_dump(include=set(Description.model_fields))
    with tempfile.TemporaryDirectory() as folder:
        for name in parent.manifest.files:
            shutil.copy(parent.file(name), Path(folder) / name)
        description = Description(**said | {"trained": {"champion": of, "seed": seed}})
        return school.store.publish("fraud", Path(folder), description, version=f"child-{seed}").version


def test_a_live_release_that_does_worse_is_taken_back_by_itself_and_marked(settings: Settings, shelf: Path) -> None:
    school = School(settings, shelf)
    worse = child(school, school.champion, 5)
    school.point(worse, school.champion, epoch=2)
    with learning(settings):
        school.compare(worse, school.champion, FEW)
        school.innocent(FEW)
        shop.wait_for(lambda: school.live() == school.champion, 60, lambda: str(statuses(settings)))
    said = school.announced()[worse]
    assert said["state"] == "rolled back"
    assert json.loads(said["gate"])["action"] == "rollback"
    assert live_pointers(settings)["fraud"].epoch == 3


def test_labels_that_come_when_another_has_taken_over_mark_the_release_that_served_and_nobody_goes_back_to_it(
    settings: Settings, shelf: Path
) -> None:
    """Of the learner that sees it happen, and of one that is started afterwards."""
    school = School(settings, shelf)
    worse = child(school, school.champion, 5)
    heir = child(school, worse, 6)
    school.point(worse, school.champion, epoch=2)
    with learning(settings):
        school.compare(worse, school.champion, FEW)
        shop.wait_for(lambda: fraud(settings).detail.get("watched") == FEW, 60)
        school.point(heir, worse, epoch=3)
        shop.wait_for(lambda: fraud(settings).detail["champion"] == heir, 60)
    school.innocent(FEW)
    with learning(settings):
        shop.wait_for(lambda: worse in school.announced(), 60, lambda: str(statuses(settings)))
        said = school.announced()[worse]
        assert (said["state"], school.live()) == ("worse", heir)
        assert json.loads(said["gate"])["labels"] > 0
        shop.wait_for(lambda: fraud(settings).detail["last"].get("result") == "worse", 60)
        assert f"what is live, {heir}, was made from it" in fraud(settings).detail["last"]["why"]
        school.compare(heir, worse, 300, failure="not finite")
        shop.wait_for(lambda: school.live() != heir, 60, lambda: str(statuses(settings)))
    assert school.live() == school.champion, "and not the one before, which is known to be worse"
    with learning(settings):
        shop.wait_for(lambda: fraud(settings).detail["champion"] == school.champion, 60)
    assert {version: each["state"] for version, each in school.announced().items()} == {
        worse: "worse", heir: "rolled back",
    }  # fmt: skip


def test_a_release_that_is_live_again_is_still_judged_by_the_labels_of_what_it_served_before(
    settings: Settings, shelf: Path
) -> None:
    school = School(settings, shelf)
    worse = child(school, school.champion, 5)
    heir = child(school, worse, 6)
    school.point(worse, heir, epoch=4)  # the heir came and went
    school.compare(worse, school.champion, FEW)
    school.innocent(FEW)
    with learning(settings):
        shop.wait_for(lambda: school.live() == school.champion, 60, lambda: str(statuses(settings)))
    assert school.announced()[worse]["state"] == "rolled back"


@pytest.mark.parametrize(
    ("said", "changed", "why"),
    [
        ((0.1, 0.1), {"live_us": 900_000}, "calls of"),
        ((0.9, 0.02), {}, "are spread otherwise than those of"),
    ],
)
def test_slow_calls_and_scores_that_are_spread_otherwise_take_a_release_back_before_any_label(
    settings: Settings, shelf: Path, said: tuple[float, float], changed: dict[str, int], why: str
) -> None:
    school = School(settings, shelf)
    other = child(school, school.champion, 5)
    school.point(other, school.champion, epoch=2)
    with learning(settings):
        school.compare(other, school.champion, 400, said, **changed)
        shop.wait_for(lambda: school.live() == school.champion, 60, lambda: str(statuses(settings)))
    assert why in " ".join(json.loads(school.announced()[other]["gate"])["reasons"])


def test_a_pinned_release_stays_whatever_is_said_of_it(
    settings: Settings, shelf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    school = School(settings, shelf)
    worse = child(school, school.champion, 5)
    school.point(worse, school.champion, epoch=2, pinned=True)
    school.teach(rare(9_000, seed=1))
    with learning(settings):
        school.compare(worse, school.champion, 300, failure="not finite")
        shop.wait_for(lambda: "is pinned: it stays" in caplog.text, 60)
        shop.wait_for(lambda: fraud(settings).state == "pinned", 60)
    assert school.live() == worse
    assert school.announced() == {}, "and no fine-tune begins from it"


def test_a_candidate_whose_champion_is_not_live_any_more_is_retired(settings: Settings, shelf: Path) -> None:
    school = School(settings, shelf)
    made, other = child(school, school.champion, 5), child(school, school.champion, 6)
    school.point(other, school.champion, epoch=2)
    with closing(ConfluentRegistry(settings.registry())) as registry:
        champions = Champions(settings, registry)
        try:
            champions.wait_current()
            states = [champions.settle("fraud", made, school.champion, passed=True, now_ms=now_ms) for now_ms in (5, 6)]
        finally:
            champions.stop()
    assert states == ["retired", "retired"]
    assert school.live() == other
    assert school.announced()[made]["announced_at"] == 5, "said once"


def test_a_pause_outlasts_the_learner_and_a_wish_is_granted_once(settings: Settings, taught: Path) -> None:
    school = School(settings, taught)
    command(settings, "fraud", 1, paused=True, by="ann")
    school.teach(rare(9_000, seed=1))
    with learning(settings):
        shop.wait_for(lambda: "fraud" in statuses(settings)[0], 60)
    with learning(settings):
        shop.wait_for(lambda: fraud(settings).state == "paused", 60)
        assert school.live() == school.champion
        command(settings, "fraud", 2, paused=False)
        shop.wait_for(lambda: bool(school.announced()), 300, lambda: str(statuses(settings)))
    assert statuses(settings)[1]["fraud"].by == "ann"
