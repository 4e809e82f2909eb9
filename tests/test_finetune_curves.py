"""Curves: TensorBoard finds in the file what the training did, and looking at it changes nothing of what is learned."""

import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from finetune.curves import Curves
from finetune.first import trained_model
from finetune.incremental import Recipe, fit
from finetune.problems import PROBLEMS
from finetune.trainer import TorchTable
from schemas.errors import SettingsError
from streams.tasks import make_task
from tests.finetune_examples import arrays, frauds, problem_of, small_catalog, small_model, weights
from tests.small_shop import FEW, small_shop

Scalars = dict[str, list[tuple[int, Any]]]


def records(path: Path) -> list[Event]:
    """Of an event file: length, its checksum, the event, its checksum (TensorFlow's record format)."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        said, body = int.from_bytes(data[at + 8 : at + 12], "little"), data[at + 12 : at + 12 + size]
        assert said == masked_crc32c(data[at : at + 8])
        assert int.from_bytes(data[at + 12 + size : at + 16 + size], "little") == masked_crc32c(body)
        found.append(Event.FromString(body))
        at += 16 + size
    return found


def scalars(folder: Path) -> Scalars:
    """As TensorBoard shows them: files in order, and a restart takes back what an earlier file says of later steps."""
    out: Scalars = {}
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns):
        for event in records(path):
            if event.HasField("session_log"):
                out = {tag: [point for point in points if point[0] < event.step] for tag, points in out.items()}
            for value in event.summary.value:
                out.setdefault(value.tag, []).append((event.step, value.simple_value))
    return out


@pytest.fixture(scope="module")
def shop():
    return small_shop()


def test_the_file_holds_what_was_told_and_how_fast_it_was(tmp_path):
    clock = count(0, 2.0)
    curves = Curves(tmp_path, now=lambda: next(clock))
    curves.begin()
    for step in (1, 2):
        curves.step(step, loss=1 / step, rate=0.01 * step, examples=50)
    curves.held(2, {"pr_auc": 0.25})
    curves.close()
    found = scalars(tmp_path)
    assert found["training/loss"] == [(1, 1.0), (2, 0.5)]
    assert found["training/rate"] == [(1, pytest.approx(0.01)), (2, pytest.approx(0.02))]
    assert found["training/examples_per_s"] == [(1, 25.0), (2, 25.0)]
    assert found["held_out/pr_auc"] == [(2, 0.25)]


def test_without_a_folder_nothing_is_written_and_no_library_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    curves = Curves()
    curves.begin()
    curves.step(1, loss=1.0, rate=0.1, examples=1)
    curves.held(1, {"loss": 1.0})
    curves.close()
    with pytest.raises(SettingsError, match="curves need tensorboardX"):
        Curves(tmp_path)


@pytest.mark.parametrize("task", list(FEW))
def test_a_first_training_draws_its_steps_and_held_out_figures_and_learns_as_without(tmp_path, shop, task):
    recording, catalog = shop
    problem = PROBLEMS[task](make_task(task), recording, catalog)
    plan = replace(FEW[task], dropout=0.1)
    plain, loss = trained_model(problem, plan, None)
    told = []
    drawn, _ = trained_model(
        problem, plan, None, lambda step, _, value: told.append((step, value)), curves=Curves(tmp_path)
    )
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), drawn.parameters(), strict=True))
    found = scalars(tmp_path)
    assert found["training/loss"] == [(step, pytest.approx(value)) for step, value in told]
    assert loss == pytest.approx(np.mean([value for _, value in told[-2:]]))
    rates = [value for _, value in found["training/rate"]]
    assert max(rates) == pytest.approx(plan.rate)
    assert rates.index(max(rates)) == 3  # a fifth of the steps rise
    table = TorchTable(drawn, catalog)
    table.freeze()
    measured = {tag for tag in found if tag.startswith("held_out/")}
    assert measured == {f"held_out/{name.replace('@', '_at_')}" for name in problem.held()(drawn, table)}
    assert [step for step, _ in found[min(measured)]] == list(range(2, 21, 2))


def test_a_fine_tune_that_was_killed_goes_on_with_its_curves(tmp_path):
    problem = problem_of("fraud", arrays("fraud", frauds(160, way=1), small_catalog()), small_catalog())
    recipe = Recipe(steps=6, batch=16, checkpoint_every=2)

    class Killed(Exception):
        pass

    def die(step: int, steps: int, loss: float) -> None:
        if step == 5:
            raise Killed

    model = small_model("fraud")
    with pytest.raises(Killed):
        fit(model, problem, recipe, tmp_path / "one", "these", die, Curves(tmp_path / "curves"))
    model = small_model("fraud")
    fit(model, problem, recipe, tmp_path / "one", "these", curves=Curves(tmp_path / "curves"))
    other = small_model("fraud")
    told = []
    fit(other, problem, recipe, tmp_path / "two", "these", lambda step, _, loss: told.append((step, loss)))
    found = scalars(tmp_path / "curves")
    assert found["training/loss"] == [(step, pytest.approx(loss)) for step, loss in told]
    assert [step for step, _ in found["held_out/loss"]] == list(range(1, 7))
    assert weights(model) == weights(other)
