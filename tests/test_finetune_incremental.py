"""The fine-tune: what it may change, what it keeps, and that no kill at any step leaves a trace in the weights."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune import checkpoints, lora
from finetune.checkpoints import Progress
from finetune.incremental import Fitted, Recipe, fit, held_loss
from finetune.trainer import TorchTable
from schemas.errors import SettingsError, TrainingError
from tests.finetune_examples import START, arrays, frauds, problem_of, slates, small_catalog, small_model, wishes

CATALOG = small_catalog()
QUICK = Recipe(steps=6, batch=16, evaluate_every=2, checkpoint_every=2)
RECORDS = {"fraud": frauds(160, way=1), "ctr": list(slates(160)), "recommendations": wishes(160)}
MODES = ("full", "lora", "head")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fitted(folder: Path, recipe: Recipe = QUICK, task: str = "fraud", told=None):
    model = small_model(task)
    problem = problem_of(task, arrays(task, RECORDS[task], CATALOG), CATALOG)
    return model, fit(model, problem, recipe, folder, "these", told)


def weights(model) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


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
    old, later = arrays("fraud", frauds(900, way=1), CATALOG), START + 30 * 86_400_000
    new = arrays("fraud", frauds(600, way=-1, start=later), CATALOG)
    recipe = Recipe(mode="full", batch=16, rate=6e-3, evaluate_every=10, patience=100)
    champion = small_model("fraud")
    before = problem_of("fraud", old, CATALOG)
    for turn in range(3):
        fit(champion, before, replace(recipe, seed=turn), tmp_path / f"old{turn}", "old")
    kept = champion.state_dict()
    unseen = np.arange(before.learning, len(old))  # old examples that nothing was trained on
    loss: dict[str, tuple[float, float, Fitted]] = {}
    for name, replay in (("alone", old[:0]), ("replay", old[:400])):
        model = small_model("fraud")
        model.load_state_dict(kept)
        examples = np.concatenate([new[:400], replay, new[400:]])
        problem = problem_of("fraud", examples, CATALOG, share=(400 + len(replay)) / len(examples))
        how = fit(model, problem, recipe, tmp_path / name, "new")
        table = TorchTable(model, CATALOG)
        judged = held_loss(model, problem, table, np.arange(problem.judging, len(examples)))
        loss[name] = (judged, held_loss(model, before, table, unseen), how)
    champion_old = held_loss(champion, before, TorchTable(champion, CATALOG), unseen)
    champion_new = held_loss(
        champion, problem, TorchTable(champion, CATALOG), np.arange(problem.judging, len(examples))
    )
    told = {name: [round(each, 3) for each in figures[:2]] for name, figures in loss.items()}
    assert loss["replay"][0] < champion_new - 0.3, (told, champion_new)
    assert loss["alone"][0] < champion_new - 0.3, (told, champion_new)
    assert loss["replay"][1] < champion_old + 0.1, (told, champion_old)
    assert loss["alone"][1] > champion_old + 0.3, (told, champion_old)


# -- the same again, and after a kill


@pytest.mark.parametrize("mode", MODES)
def test_equal_seeds_give_equal_weights_and_others_do_not(tmp_path, mode):
    recipe = replace(QUICK, mode=mode, dropout=0.1)
    one, other, third = (
        weights(fitted(tmp_path / name, replace(recipe, seed=seed))[0])
        for name, seed in (("one", 1), ("other", 1), ("third", 2))
    )
    assert one == other
    assert one != third


def test_checkpoints_change_nothing(tmp_path):
    one, _ = fitted(tmp_path / "one", QUICK)
    other, _ = fitted(tmp_path / "other", replace(QUICK, checkpoint_every=1000))
    assert weights(one) == weights(other)


KILLED = """
import hashlib, os, signal, sys
from pathlib import Path
from typing import Any
from tests.test_finetune_incremental import fitted, weights, Recipe
import torch
torch.set_num_threads(1)

def child(folder, mode, kill_at, call):
    recipe = Recipe(mode=mode, steps=12, batch=8, dropout=0.1, evaluate_every=3, checkpoint_every=2)
    left = [call]
    def told(step, steps, loss):
        if step == kill_at and not call:
            os.kill(os.getpid(), signal.SIGKILL)
    def counted(real):
        def one(*arguments):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)
        return one
    if call:
        os.replace, os.fsync = counted(os.replace), counted(os.fsync)
    model, how = fitted(Path(folder), recipe, told=told)
    digest = hashlib.sha256(repr(sorted(weights(model).items())).encode()).hexdigest()
    Path(folder, "done").write_text(f"{digest} {how.resumed_from} {how.steps} {how.best_step} {how.after!r}")

for line in sys.stdin:
    folder, mode, kill_at, call = line.split()
    pid = os.fork()
    if not pid:
        child(folder, mode, int(kill_at), int(call))
        os._exit(0)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


def test_a_kill_at_any_step_or_write_leaves_the_weights_of_an_undisturbed_run(tmp_path):
    """Real processes and a real SIGKILL; some are killed more than once. They are forked, to import torch once."""
    rng = np.random.default_rng()
    plan: list[tuple[str, list[tuple[int, int]]]] = [(f"{mode}-whole", [(0, 0)]) for mode in MODES]
    for mode in MODES:
        for number in range(3):
            steps = sorted(rng.choice(np.arange(1, 13), 2, replace=False).tolist())
            plan.append((f"{mode}-step{number}", [(steps[0], 0), (steps[1], 0), (0, 0)]))
        for number in range(2):
            plan.append((f"{mode}-write{number}", [(0, int(rng.integers(1, 37))), (0, 0)]))
    lines = [f"{tmp_path / name} {name.partition('-')[0]} {step} {call}" for name, runs in plan for step, call in runs]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends = list(map(int, done.stdout.split()))
    assert len(ends) == len(lines)
    results = {name: (tmp_path / name / "done").read_text().split() for name, _ in plan}
    resumed = 0
    for name, _ in plan:
        digest, start, *rest = results[name]
        whole, _, *expected = results[f"{name.partition('-')[0]}-whole"]
        assert (digest, rest) == (whole, expected), (name, plan)
        resumed += int(start) > 0
    assert ends.count(9) == (2 * 3 + 2) * len(MODES)
    assert resumed > len(MODES)


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_there(tmp_path):
    tensors = {"weight.a": torch.arange(4.0)}
    checkpoints.write(tmp_path, "this", Progress(step=2, losses=[0.5]), tensors)
    found = checkpoints.read(tmp_path, "this")
    assert found is not None
    assert found[0] == Progress(step=2, losses=[0.5])
    assert torch.equal(found[1]["weight.a"], tensors["weight.a"])
    assert checkpoints.read(tmp_path, "other") is None
    checkpoints.write(tmp_path, "this", Progress(step=4), tensors)
    assert [each.name for each in tmp_path.glob("*.safetensors")] == ["checkpoint-4.safetensors"]
    path = tmp_path / "checkpoint-4.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert checkpoints.read(tmp_path, "this") is None
    (tmp_path / "checkpoint.json").write_text(json.dumps({"format": 1}))
    assert checkpoints.read(tmp_path, "this") is None


def test_another_recipe_does_not_go_on_from_the_checkpoint(tmp_path):
    fitted(tmp_path, replace(QUICK, steps=4))
    assert fitted(tmp_path, replace(QUICK, steps=4, rate=1e-4))[1].resumed_from == 0
    assert fitted(tmp_path, replace(QUICK, steps=4, rate=1e-4))[1].resumed_from == 4


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
    assert float(total) == float(weight) == 0
