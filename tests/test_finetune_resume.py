"""The same training again, and after a kill at any step: the weights are those of a run that nothing disturbed."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune import checkpoints
from finetune.checkpoints import Progress
from finetune.incremental import RATES, Recipe
from tests.finetune_examples import fitted, weights

QUICK = Recipe(steps=6, batch=16, evaluate_every=2, checkpoint_every=2)
MODES = tuple(RATES)


@pytest.fixture(autouse=True, scope="module")
def _one_thread(torch_as_it_was):
    torch.set_num_threads(1)


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
from finetune.incremental import Recipe
from tests.finetune_examples import fitted, weights
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
        for number in range(2):
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
    assert ends.count(9) == (2 * 2 + 2) * len(MODES)
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
