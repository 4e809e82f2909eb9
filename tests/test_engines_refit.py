"""A fine-tuned model's graphs are its champion's with other numbers: they answer bit by bit as graphs traced anew."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from engines.export import export
from engines.model import HeadraceConfig, HeadraceModel
from engines.openvino import OpenVinoEngine
from engines.refit import TRACED_FROM, refit
from engines.releases import Release, ReleaseStore
from engines.samples import sample
from engines.tables import ItemTower
from tests.engine_releases import SMALL, TASKS, release


def other(task: str, **sizes: int) -> HeadraceModel:
    torch.manual_seed(17)
    made = HeadraceModel(HeadraceConfig(task=task, **(SMALL | sizes)))
    made.eval()
    return made


def published(folder: Path, store: Path, champion: Release | None, task: str) -> Release:
    return ReleaseStore(str(store)).publish(task, folder, export(other(task), folder, champion))


@pytest.mark.parametrize("task", TASKS)
def test_a_refit_graph_answers_bit_by_bit_as_one_that_is_traced(task: str, tmp_path: Path) -> None:
    refitted = published(tmp_path / "a", tmp_path / "store-a", release(task), task)
    traced = published(tmp_path / "b", tmp_path / "store-b", None, task)
    inputs = sample(traced.manifest.signature, 64, catalog=200)
    answers = []
    for each in (refitted, traced):
        engine = OpenVinoEngine(each, precision="f32", buckets=(64,), threads=1)
        answers.append(engine.infer(inputs).outputs)
        engine.close()
    for name, array in answers[0].items():
        np.testing.assert_array_equal(array, answers[1][name])
    draw = np.random.default_rng(0)
    text = draw.standard_normal((8, SMALL["text_width"])).astype(np.float32)
    items = text, draw.random((8, 2)).astype(np.float32), draw.integers(0, 2, 8).astype(np.int32)
    np.testing.assert_array_equal(ItemTower(refitted)(*items), ItemTower(traced)(*items))


def test_nothing_of_the_champion_is_left_in_a_refit_graph(tmp_path: Path) -> None:
    champion, learner = release("fraud"), other("fraud")
    assert refit(champion, learner, tmp_path)
    weights, found = learner.state_dict(), set[str]()
    for name in ("model.onnx", "item_tower.onnx"):
        for held in onnx.load(tmp_path / name).graph.initializer:
            if held.name in weights:
                np.testing.assert_array_equal(onnx.numpy_helper.to_array(held), weights[held.name].numpy())
                found.add(held.name)
    assert found >= {name for name, _ in learner.named_parameters()}


def test_a_model_of_other_sizes_is_traced(tmp_path: Path) -> None:
    assert not refit(release("fraud"), other("fraud", hidden=2 * SMALL.get("hidden", 32)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_graph_that_other_code_traced_is_not_taken(tmp_path: Path) -> None:
    champion = release("fraud")
    shutil.copytree(champion.folder, tmp_path / "older")
    path = tmp_path / "older" / "model.onnx"
    graph = onnx.load(path)
    (said,) = [each for each in graph.metadata_props if each.key == TRACED_FROM]
    said.value = "0" * 64
    onnx.save(graph, path)
    older = Release(champion.manifest, tmp_path / "older", champion.digest)
    (tmp_path / "out").mkdir()
    assert not refit(older, other("fraud"), tmp_path / "out")
