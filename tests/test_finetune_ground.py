"""What a first training leaves in the reservoir: the examples that the label join would have made of its events."""

import numpy as np
import pytest

from bench.learning_story import Scenario, Story, tell
from finetune.examples import Examples, examples_of
from finetune.ground import fill_reservoir, learned
from finetune.problems import PROBLEMS, Recorded
from finetune.reservoir import Reservoir
from streams.tasks import make_task

LITTLE = {"fraud_rate": 0.1, "click_rate": 0.1, "ads": 30}


@pytest.fixture(scope="module", params=["fraud", "ctr"])
def story(request: pytest.FixtureRequest) -> Story:
    scenario = Scenario(request.param, 25.0, trained=6, drift=8, cycle=2, wait=0, world=LITTLE, ground=0.1, cycles=1)
    return tell(scenario, 5)


@pytest.fixture
def problem(story: Story) -> Recorded:
    return PROBLEMS[story.scenario.task](story.task, story.recording, story.catalog)


def joined(story: Story) -> Examples:
    """What came of all events, by way of the records that the learner reads."""
    return examples_of(story.task, story.catalog, [story.record(each) for each in story.arrived])[0]


def test_it_is_what_the_label_join_would_have_sent(story: Story, problem: Recorded) -> None:
    mine, theirs = learned(problem), joined(story)
    assert len(mine) > 100
    for name in ("key", "user", "time", "weight", "label", "features", "source", "observed"):
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


def test_both_kinds_of_labels_are_kept(problem: Recorded) -> None:
    kept = learned(problem)
    there = kept["weight"] > 0
    assert set(np.unique(kept["label"][there])) == {0.0, 1.0}
    assert (kept["revision"][there] >= 0).all()
    assert (kept["revision"][~there] == -1).all()


def test_a_fine_tune_finds_it_in_the_folder(problem: Recorded, tmp_path) -> None:
    count = fill_reservoir(problem, tmp_path)
    found = Reservoir(tmp_path, problem.task, rows=50_000, bytes_=64 << 20)
    assert len(found) == count == len(learned(problem))
    assert (found.share == 1).all()


def test_a_full_reservoir_keeps_no_more_than_it_may(problem: Recorded, tmp_path) -> None:
    assert fill_reservoir(problem, tmp_path, rows=60) == 60


def test_what_ranks_keeps_the_items_that_were_wanted(story: Story) -> None:
    task = make_task("recommendations")
    problem = PROBLEMS[task.name](task, story.recording, story.catalog)
    kept = learned(problem)
    assert len(kept) == (problem.label > 0).sum() > 0
    assert (kept["label"][:, 0] > 0).all()
    assert len(np.unique(kept["key"])) == len(kept)
