"""The benchmark of learning: what is measured when, and that a perfect model would pass."""

from itertools import pairwise

import numpy as np
import pytest

from bench.learning import Outcome, summed_up
from bench.learning_figures import Period, click_figures, fraud_figures, regained
from bench.learning_story import CLICKS, FRAUD, Scenario, Story, tell
from finetune.example_files import read_examples, write_examples


@pytest.fixture(scope="module")
def story() -> Story:
    world = {"fraud_rate": 0.15, "browse": 0.05, "guests": 0.0}
    return tell(Scenario("fraud", 30.0, trained=10, drift=14, cycle=4, wait=28, world=world), 1)


@pytest.mark.parametrize("scenario", [FRAUD, CLICKS])
def test_two_fine_tunes_count_and_their_labels_have_matured(scenario: Scenario) -> None:
    counted = [day for day in scenario.fine_tunes if day >= scenario.counted]
    assert len(counted) == scenario.cycles == 2
    assert counted[0] - scenario.wait > scenario.drift
    assert scenario.fine_tunes[0] > scenario.trained + scenario.wait
    assert scenario.end == counted[-1] + scenario.cycle


def test_the_new_fraud_comes_with_the_drift(story: Story) -> None:
    new = story.examples.time[story.kind == "reshipping"]
    assert len(new)
    assert new.min() >= story.scenario.moment(story.scenario.drift)


def test_labels_arrive_as_they_mature(story: Story) -> None:
    arrived, time = story.arrived, story.examples.time
    assert all(a.matured_at <= b.matured_at for a, b in pairwise(arrived))
    silent = [each for each in arrived if not each.source]
    assert all(each.matured_at - time[each.example] == 28 * 86_400_000 for each in silent)
    assert {each.example for each in arrived} == set(range(len(time)))


def test_a_record_is_of_the_contract(story: Story, tmp_path) -> None:
    records = [story.record(each) for each in story.arrived[:20]]
    digest = write_examples(tmp_path / "some.avro", records)
    assert list(read_examples(tmp_path / "some.avro", digest)) == records


def test_who_knows_the_chances_is_calibrated(story: Story) -> None:
    found = Period(story, 0, story.scenario.end).of_truth()
    assert 0.5 < found["predicted"] < 2.0
    assert found["all"] > story.truth.mean()


def test_kinds_are_told_apart_by_who_struck() -> None:
    label, kind = np.array([1.0, 1.0, 0.0, 0.0]), np.array(["reshipping", "bust_out", "", ""])
    found = fraud_figures(np.array([0.1, 0.9, 0.2, 0.3]), label, kind, np.zeros(4))
    assert found["old"] == 1.0
    assert found["new"] < 0.5


def test_an_innocent_order_that_looks_like_the_new_kind_says_nothing_of_the_old_ones() -> None:
    label, kind = np.array([1.0, 0.0, 0.0]), np.array(["bust_out", "", ""])
    chance = np.array([0.5, 0.9, 0.2])
    assert fraud_figures(chance, label, kind, np.zeros(3))["old"] == 0.5
    assert fraud_figures(chance, label, kind, np.array([0.0, 0.3, 0.0]))["old"] == 1.0


def test_the_mean_chance_has_an_entropy_of_one() -> None:
    true = np.array([0.01, 0.05, 0.2])
    assert click_figures(np.full(3, true.mean()), true)["all"] == pytest.approx(1.0)
    assert click_figures(true, true)["all"] < 1.0


def test_half_of_the_way_back_is_half_regained() -> None:
    assert regained(0.5, 0.4, 0.6) == pytest.approx(0.5)
    assert regained(0.96, 1.0, 0.92) == pytest.approx(0.5)  # where lower is better


def test_a_loop_that_regains_all_has_nothing_left_to_regain() -> None:
    last, first = FRAUD.fine_tunes[-1], FRAUD.drift
    good, bad = {"all": 0.6, "old": 0.6, "new": 0.6}, {"all": 0.3, "old": 0.6, "new": 0.1}
    outcome = Outcome(good, good, {first: bad, last: bad}, {first: bad, last: good}, {last: good}, [{"passed": True}])
    said, targets = summed_up(FRAUD, [outcome, outcome])
    assert said["fraud_left"] == pytest.approx(0)
    assert said["fraud_regained_off"] == pytest.approx(0)
    assert said["fraud_forgotten"] == pytest.approx(0)
    assert targets.keys() == {"fraud_left", "fraud_regained_off", "fraud_forgotten"}
