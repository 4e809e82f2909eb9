"""The search for a training plan: it sees no test span, goes on where it stopped, and what it finds trains."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune import search as searching
from finetune.first import GROUND, PLANS, trained_model
from finetune.history import Examples, Recording
from finetune.plans import read_plans, write_plan
from finetune.problems import PROBLEMS
from finetune.search import Search, Span, spans
from finetune.trainer import Plan
from schemas.errors import SettingsError, TrainingError
from streams.catalog import Catalogue
from streams.tasks import make_task
from tests.small_shop import FEW, small_shop

GROUND_PLAN = FEW["recommendations"]
Shop = tuple[Recording, Catalogue]
USUAL = replace(FEW["ctr"], steps=6, frozen=GROUND)


@pytest.fixture(scope="module")
def shop(torch_as_it_was):
    torch.set_num_threads(1)
    return small_shop()


class Counting(Search):
    """Each plan's figure is made up of its rate and the span: what is trained is not looked at here."""

    asked: list[tuple[Plan, Span]]

    def figure(self, plan: Plan, span: Span) -> float:
        self.asked = [*getattr(self, "asked", []), (plan, span)]
        return abs(np.log(plan.rate / 3e-3)) + 0.01 * self.spans.index(span) if span in self.spans else 7.0


def counting(shop: Shop, journal: Path, **more: Any) -> Counting:
    how: dict[str, Any] = {"usual": USUAL, "ground": GROUND_PLAN, "folds": 2} | more
    return Counting("ctr", shop[0], shop[1], journal, **how)


# -- what it looks at


def test_spans_are_later_and_later_and_the_test_span_is_after_all_of_them():
    validation, test = spans(np.arange(1000), folds=3, test=0.2)
    edges = [each.border for each in validation] + [test.border, test.end]
    assert edges == sorted(edges)
    assert edges[0] == pytest.approx(0.55 * 800, abs=2)
    assert test == Span(800, 1000)
    assert [each.end for each in validation] == [each.border for each in [*validation[1:], test]]


def test_no_trial_is_judged_on_the_test_span_or_learns_from_it(shop, tmp_path):
    search = counting(shop, tmp_path / "journal")
    found = search.run(6)
    judged, last = search.asked[:-2], search.asked[-2:]
    assert all(span.end <= search.tested.border for _, span in judged)
    assert [span for _, span in last] == [search.tested] * 2
    assert found.test == found.usual_test == 7.0


def test_what_is_learned_from_ends_at_the_border(shop, tmp_path):
    search = Search("ctr", shop[0], shop[1], tmp_path / "journal", usual=USUAL, folds=2)
    border = search.spans[0].border
    assert search._problem(border).examples.time.max() < border


def test_nothing_after_a_span_changes_its_figure(shop, tmp_path):
    """What the search does not see, it cannot have used: later events are turned around."""
    recording, catalog = shop
    search = Search("ctr", recording, catalog, tmp_path / "one", usual=USUAL, ground=GROUND_PLAN, folds=1)
    span = search.spans[0]
    late = recording.examples["ctr"].time >= span.end
    before = recording.examples["ctr"]
    rows = before.rows.copy()
    rows[late] = rows[late][::-1]
    other = replace(recording, examples={**recording.examples, "ctr": _with_rows(before, rows)})
    again = Search("ctr", other, catalog, tmp_path / "two", usual=USUAL, ground=GROUND_PLAN, folds=1)
    assert again.spans == search.spans
    assert again.figure(USUAL, span) == search.figure(USUAL, span)


# -- the study


def test_the_first_trial_is_the_usual_plan_and_the_best_is_no_worse(shop, tmp_path):
    search = counting(shop, tmp_path / "journal")
    found = search.run(8)
    plan, _ = search.asked[0]
    assert (plan.rate, plan.weight_decay, plan.dropout) == pytest.approx((USUAL.rate, USUAL.weight_decay, 0.0))
    assert plan.frozen == GROUND
    assert found.value <= found.usual
    assert found.trials == 8


def test_a_search_that_was_stopped_goes_on_where_it_was(shop, tmp_path):
    told = []
    counting(shop, tmp_path / "journal").run(4)
    search = counting(shop, tmp_path / "journal")
    search.run(7, lambda number, state, value: told.append(number))
    assert told == [4, 5, 6]
    whole = counting(shop, tmp_path / "other")
    whole.run(7)
    rates = [[trial.params["rate"] for trial in each.study.trials] for each in (search, whole)]
    assert rates[0] == rates[1], "a stop changes nothing of what is drawn"


def test_other_spans_or_another_usual_plan_begin_another_study(shop, tmp_path):
    first = counting(shop, tmp_path / "journal")
    first.run(3)
    for other in ({"folds": 3}, {"usual": replace(USUAL, steps=7)}, {"test": 0.3}):
        assert not counting(shop, tmp_path / "journal", **other).study.trials
    assert len(counting(shop, tmp_path / "journal").study.trials) == 3


def test_trials_that_others_beat_are_ended_early(shop, tmp_path):
    search = counting(shop, tmp_path / "journal", folds=3)
    search.run(20)
    states = [trial.state.name for trial in search.study.trials]
    assert states.count("PRUNED") > 0
    assert len(search.asked) < 3 * 20 + 2


def test_what_is_drawn_are_plans_that_a_training_takes(shop, tmp_path):
    search = counting(shop, tmp_path / "journal")
    search.run(12)
    plans = [plan for plan, _ in search.asked]
    assert {plan.frozen for plan in plans} == {(), GROUND}
    for plan in plans:
        assert set(plan.sizes) == (set() if plan.frozen else {"width", "layers", "hidden"})
        assert 0 <= plan.dropout <= 0.5


@pytest.mark.parametrize("task", list(FEW))
def test_each_task_is_searched_in_earnest(shop, tmp_path, task, monkeypatch):
    monkeypatch.setattr(searching, "WIDTHS", (32,))
    usual = replace(FEW[task], steps=4, frozen=() if task == "recommendations" else GROUND, sizes={"width": 32})
    ground = replace(GROUND_PLAN, steps=4, sizes={"width": 32})
    search = Search(task, shop[0], shop[1], tmp_path / "journal", usual=usual, ground=ground, folds=1)
    found = search.run(2)
    assert found.measure == searching.MEASURES[task][0]
    assert all(np.isfinite([found.value, found.usual, found.test, found.usual_test]))
    if task == "fraud":
        assert 1 <= found.plan.loss_weights["positive"] <= 10


def test_a_record_too_short_and_a_strange_task_are_refused(shop, tmp_path):
    with pytest.raises(SettingsError, match="no search for 'toy'"):
        Search("toy", shop[0], shop[1], tmp_path / "journal")
    with pytest.raises(TrainingError, match="2 examples"):
        spans(np.arange(2), 3, 0.2)
    with pytest.raises(TrainingError, match="all of one time"):
        spans(np.zeros(50, np.int64), 3, 0.2)


# -- the file of plans


def test_plans_are_read_as_they_were_written_beside_those_of_other_tasks(tmp_path):
    path = tmp_path / "plans.toml"
    fraud = replace(PLANS["fraud"], rate=1e-5, loss_weights={"positive": 3.5}, frozen=(), sizes={"width": 32})
    write_plan(path, "fraud", fraud, "for a test")
    write_plan(path, "ctr", replace(PLANS["ctr"], steps=77), "for a test")
    found = read_plans(path)
    assert found["fraud"] == fraud
    assert found["ctr"].steps == 77
    assert found["recommendations"] == PLANS["recommendations"]
    assert list(found) == list(PLANS), "the ground is trained first"


def test_a_file_that_names_a_few_fields_leaves_the_others(tmp_path):
    path = tmp_path / "plans.toml"
    path.write_text("[fraud]\nrate = 0.01\n")
    assert read_plans(path)["fraud"] == replace(PLANS["fraud"], rate=0.01)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[fraud\n", "cannot be read"),
        ("[toy]\nrate = 0.1\n", "no task named 'toy'"),
        ("[fraud]\nspeed = 1\n", "fraud.speed"),
        ("[fraud]\nrate = -1\n", "fraud.rate"),
        ("[fraud]\nsteps = 0\n", "fraud.steps"),
        ("[fraud]\nfrozen = ['nose']\n", "fraud.frozen"),
        ("[fraud.sizes]\nwidth = 0\n", "fraud.sizes.width"),
        ("[fraud.loss_weights]\npositive = 0\n", "fraud.loss_weights.positive"),
    ],
)
def test_a_file_that_says_something_else_is_refused_by_name(tmp_path, text, said):
    path = tmp_path / "plans.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        read_plans(path)


def test_a_model_of_other_sizes_than_the_ground_begins_without_it(shop):
    recording, catalog = shop
    problems = {name: PROBLEMS[name](make_task(name), recording, catalog) for name in ("recommendations", "ctr")}
    ground, _ = trained_model(problems["recommendations"], replace(GROUND_PLAN, steps=2), None)
    same, _ = trained_model(problems["ctr"], replace(USUAL, steps=2), ground)
    other, _ = trained_model(problems["ctr"], replace(USUAL, steps=2, sizes={"width": 32, "hidden": 64}), ground)
    name = "history.vector.weight"
    assert torch.equal(same.state_dict()[name], ground.state_dict()[name])
    assert other.state_dict()[name].shape == (32, 32)


def _with_rows(examples: Examples, rows: np.ndarray) -> Examples:
    return Examples(rows, examples.events, examples.time, examples.place)
