"""The fine-tune: what it may change, what it learns from, and what it keeps of what it knew."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from engines.signatures import CONVERSION
from finetune import lora
from finetune.incremental import Recipe, fit, held_loss
from finetune.losses import tensors
from finetune.reservoir import Reservoir
from finetune.trainer import TorchTable
from schemas.errors import SettingsError, TrainingError
from streams.tasks import make_task
from tests.finetune_examples import (
    START,
    arrays,
    fitted,
    frauds,
    problem_of,
    slates,
    small_catalog,
    small_model,
    weights,
    wishes,
)

CATALOG = small_catalog()
QUICK = Recipe(steps=6, batch=16, evaluate_every=2, checkpoint_every=2)
RECORDS = {"fraud": frauds(160, way=1), "ctr": list(slates(160)), "recommendations": wishes(160)}
MODES = ("full", "lora", "head")


@pytest.fixture(autouse=True, scope="module")
def _one_thread(torch_as_it_was):
    torch.set_num_threads(1)


# -- what may change


@pytest.mark.parametrize("task", list(RECORDS))
@pytest.mark.parametrize("mode", MODES)
def test_each_mode_learns_each_task_and_leaves_a_plain_model(tmp_path, task, mode):
    recipe = replace(QUICK, mode=mode, steps=0, batch=8, rate=5e-3, checkpoint_every=100)
    model, how = fitted(tmp_path, recipe, task)
    assert how.after < how.before - 0.01
    assert model.state_dict().keys() == small_model(task).state_dict().keys()
    assert not model.training


@pytest.mark.parametrize(
    ("mode", "parts"),
    [("full", {"item_tower", "history", "read", "head"}), ("lora", {"history", "read", "head"}), ("head", {"head"})],
)
def test_a_mode_changes_its_parts_of_the_model_only(tmp_path, mode, parts):
    model, _ = fitted(tmp_path, replace(QUICK, mode=mode, rate=5e-3))
    before = weights(small_model("fraud"))
    assert {name.partition(".")[0] for name, value in weights(model).items() if value != before[name]} == parts


@pytest.mark.parametrize("mode", MODES)
def test_no_mode_changes_the_head_of_conversions_and_but_for_full_what_it_says(tmp_path, mode):
    model, _ = fitted(tmp_path, replace(QUICK, mode=mode, rate=5e-3), "ctr")
    before = small_model("ctr").eval()
    kept = {name: value for name, value in weights(before).items() if name.startswith("head.conversion.")}
    assert len(kept) > 5
    assert kept.items() <= weights(model).items()
    problem = problem_of("ctr", arrays("ctr", RECORDS["ctr"], CATALOG), CATALOG)
    outputs = []
    for each in (before, model):
        table = TorchTable(each, CATALOG)
        with torch.inference_mode():
            outputs.append(each(**tensors(problem.task.inputs(problem.examples.rows[:20], table))))
    assert not torch.equal(outputs[0]["logit"], outputs[1]["logit"])
    assert torch.equal(outputs[0][CONVERSION], outputs[1][CONVERSION]) == (mode != "full")


def test_adapters_are_few_numbers_and_merge_to_what_they_computed(tmp_path):
    _, full = fitted(tmp_path / "full", replace(QUICK, mode="full"))
    _, low = fitted(tmp_path / "low", replace(QUICK, mode="lora", rank=2))
    assert low.parameters < full.parameters / 3
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(16, 12), torch.nn.Linear(12, 1))
    given = torch.randn(5, 16)
    plain = layer(given)
    adapted = lora.adapt(torch.nn.ModuleDict({"part": layer}), ("part",), 4)
    assert torch.equal(layer(given), plain)
    with torch.no_grad():
        for each in layer.parameters():
            if each.requires_grad:
                each.add_(0.1)
    changed = layer(given)
    lora.merge(adapted)
    assert torch.allclose(layer(given), changed, atol=1e-6)
    assert not torch.allclose(changed, plain)
    assert {name for name, _ in layer.named_parameters()} == {"0.weight", "0.bias", "1.weight", "1.bias"}


# -- each new example once


def test_one_pass_takes_each_example_once(tmp_path, monkeypatch):
    problem = problem_of("fraud", arrays("fraud", RECORDS["fraud"], CATALOG), CATALOG)
    seen = []
    real = type(problem).summed

    def noted(self, model, table, batch, seed, *, training):
        if training:
            seen.extend(batch.tolist())
        return real(self, model, table, batch, seed, training=training)

    monkeypatch.setattr(type(problem), "summed", noted)
    fit(small_model("fraud"), problem, replace(QUICK, steps=0), tmp_path, "these")
    assert sorted(seen) == list(range(problem.learning))


def test_the_examples_held_out_never_reach_a_weight(tmp_path):
    examples = arrays("fraud", RECORDS["fraud"], CATALOG)
    one, other = (problem_of("fraud", examples, CATALOG) for _ in range(2))
    other.label[other.learning :] = 1 - other.label[other.learning :]
    recipe = replace(QUICK, evaluate_every=100, patience=100)
    told: list[list[float]] = [[], []]
    for number, problem in enumerate((one, other)):
        fit(
            small_model("fraud"),
            problem,
            recipe,
            tmp_path / str(number),
            "x",
            lambda *a, n=number: told[n].append(a[2]),
        )
    assert told[0] == told[1]


def test_it_stops_when_the_held_out_loss_does_not_fall_and_keeps_the_best(tmp_path):
    examples = arrays("fraud", RECORDS["fraud"], CATALOG)
    problem = problem_of("fraud", examples, CATALOG)
    problem.label[: problem.learning] = 1 - problem.label[: problem.learning]  # what it learns is wrong
    model = small_model("fraud")
    recipe = replace(QUICK, steps=0, batch=2, mode="full", rate=1e-2, evaluate_every=1, patience=3)
    how = fit(model, problem, recipe, tmp_path, "these")
    assert how.steps < 56
    assert how.steps == how.best_step + 3
    assert held_loss(model, problem, TorchTable(model, CATALOG)) == pytest.approx(how.after, rel=1e-5)


# -- weights and sampled negatives


def test_an_example_of_weight_two_counts_as_two(tmp_path):
    examples = arrays("fraud", RECORDS["fraud"][:20], CATALOG)
    heavy = examples.copy()
    heavy["weight"][:5] = 2
    model = small_model("fraud").eval()
    table = TorchTable(model, CATALOG)
    weighted = problem_of("fraud", heavy, CATALOG).summed(model, table, np.arange(10), 0, training=True)
    numbers = np.concatenate([np.arange(10), np.arange(5)])
    repeated = problem_of("fraud", examples, CATALOG).summed(model, table, numbers, 0, training=True)
    assert torch.allclose(weighted[0], repeated[0], rtol=1e-5)
    assert weighted[1] == repeated[1] == 15


def test_the_offset_learns_the_logit_of_the_whole_from_a_sample_of_the_negatives():
    """At the logit of the whole, the gradient of the loss over the sample is zero: King and Zeng's correction."""
    examples = arrays("ctr", RECORDS["ctr"], CATALOG)
    problem = problem_of("ctr", examples, CATALOG, negatives=0.2, offset=True)
    positives, negatives = 30, 270  # of the whole; 54 negatives are in the sample
    batch = np.arange(84)
    problem.label[batch], problem.weight[batch] = 0, 0
    problem.label[batch[:positives], 0] = 1
    problem.weight[batch[:positives], 0], problem.weight[batch[positives:], 0] = 1, 5
    logit = torch.full((84, 8), float(np.log(positives / negatives)), requires_grad=True)
    says_so: Any = lambda **_: {"logit": logit}  # noqa: E731 - a model
    total, weight = problem.summed(says_so, TorchTable(small_model("ctr"), CATALOG), batch, 0, training=True)
    total.backward()
    assert weight == pytest.approx(84)
    assert logit.grad is not None
    assert float(logit.grad.sum()) == pytest.approx(0, abs=1e-4)


# -- what is kept of the old


def test_replay_keeps_the_old_pattern_and_without_it_the_old_pattern_is_lost(tmp_path):
    """A low amount of another way of ordering is the new sign of fraud; of the old way it is still a high one."""
    old = arrays("fraud", frauds(2000, way=1), CATALOG)
    new = arrays("fraud", frauds(1800, way=-1, start=START + 30 * 86_400_000), CATALOG)
    before, champion = problem_of("fraud", old, CATALOG), small_model("fraud")
    first = Recipe(mode="full", batch=16, rate=6e-3, patience=100)
    for turn in range(2):
        fit(champion, before, replace(first, seed=turn), tmp_path / f"old{turn}", "old")
    kept = Reservoir(tmp_path / "kept", make_task("fraud"), rows=5000, bytes_=1 << 24)
    kept.add(old[: before.learning])
    drawn = kept.draw(1200, (0,), before=int(new["time"][0]), without=new["key"])
    replay = drawn.examples.copy()
    replay["weight"] *= drawn.weight[:, None]
    recipe = Recipe(mode="lora", batch=8, rate=1e-2, patience=100)
    loss: dict[str, tuple[float, float]] = {}
    for name, mixed_in in (("champion", None), ("alone", old[:0]), ("replay", replay)):
        model = small_model("fraud")
        model.load_state_dict(champion.state_dict())
        examples = np.concatenate([new[:1200], replay[:0] if mixed_in is None else mixed_in, new[1200:]])
        problem = problem_of("fraud", examples, CATALOG, share=(len(examples) - 600) / len(examples))
        if mixed_in is not None:
            fit(model, problem, recipe, tmp_path / name, "new")
        table = TorchTable(model, CATALOG)
        newest, unseen = np.arange(problem.judging, len(examples)), np.arange(before.learning, len(old))
        loss[name] = held_loss(model, problem, table, newest), held_loss(model, before, table, unseen)
    (new_before, old_before), alone, replayed = loss.values()
    assert max(replayed[0], alone[0]) < new_before - 1, loss
    assert replayed[1] < old_before + 0.12, loss
    assert alone[1] > old_before + 0.25, loss


# -- what is refused


@pytest.mark.parametrize("wrong", [{"mode": "some"}, {"batch": 0}, {"rate": 2.0}, {"dropout": 1.0}, {"seed": -1}])
def test_a_recipe_that_cannot_be_followed_is_refused(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Recipe(**wrong)


def test_a_part_without_examples_is_refused():
    with pytest.raises(TrainingError, match="no examples to stop by"):
        problem_of("fraud", arrays("fraud", RECORDS["fraud"][:1], CATALOG), CATALOG, share=1.0)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    problem = problem_of("fraud", arrays("fraud", RECORDS["fraud"], CATALOG), CATALOG)
    model = small_model("fraud")
    with torch.no_grad():
        next(model.head.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss of fraud is nan at step 1"):
        fit(model, problem, QUICK, tmp_path, "these")


def test_an_item_that_is_sold_out_is_not_learned_to_be_wanted(tmp_path):
    catalog = small_catalog()
    examples = arrays("recommendations", RECORDS["recommendations"], catalog)
    gone = int(examples["label"][0, 0])
    catalog.withdraw(0, f"i{gone}")
    problem = problem_of("recommendations", examples, catalog)
    assert ((problem.weight > 0) == (examples["label"][:, 0] != gone)).all()
    model = small_model("recommendations")
    fit(model, problem, replace(QUICK, batch=1, steps=3), tmp_path, "these")
    sold_out = np.flatnonzero(problem.weight == 0)[:1]
    total, weight = problem.summed(model, TorchTable(model, catalog), sold_out, 0, training=True)
    assert total.item() == weight.item() == 0
