"""Export: the compiled graphs compute what torch computes, and carry the release's signature."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from engines import open_engine
from engines.compiled import compile_graph, read
from engines.export import export
from engines.model import HeadraceConfig, HeadraceModel
from engines.openvino import OpenVinoEngine
from engines.parity import BOUNDS, parity
from engines.samples import sample
from engines.tables import CHUNK, ItemTower
from schemas.errors import EngineError
from tests.engine_releases import SMALL, TASKS, model, release

BUCKETS = (1, 8, 64)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("task", TASKS)
def test_the_compiled_engine_agrees_with_torch(task: str, precision: str) -> None:
    oracle = open_engine("eager", release(task), precision="f32", buckets=BUCKETS, threads=1)
    compiled = open_engine("openvino", release(task), precision=precision, buckets=BUCKETS, threads=1)
    inputs = sample(compiled.signature, 300, catalog=200)
    parity(compiled, oracle, inputs).check(BOUNDS[compiled.precision])


@pytest.mark.parametrize("task", TASKS)
def test_the_graph_has_the_signature_and_open_rows(task: str) -> None:
    graph = onnx.load(release(task).file("model.onnx")).graph
    signature = release(task).manifest.signature
    for values, specs in ((graph.input, signature.inputs), (graph.output, signature.outputs)):
        assert [value.name for value in values] == [spec.name for spec in specs]
        for value, spec in zip(values, specs, strict=True):
            first, *others = value.type.tensor_type.shape.dim
            assert first.dim_param
            assert [dim.dim_value for dim in others] == list(spec.dims[1:])


def test_the_graph_keeps_its_weights_inside() -> None:
    for task in TASKS:
        graph = onnx.load(release(task).file("model.onnx"), load_external_data=False).graph
        assert not any(tensor.external_data for tensor in graph.initializer)


def test_the_exported_item_tower_agrees_with_torch() -> None:
    tower = ItemTower(release("fraud"))
    draw = np.random.default_rng(0)
    rows = CHUNK + 3
    text = draw.standard_normal((rows, SMALL["text_width"])).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    scalars = draw.random((rows, 2)).astype(np.float32)
    kinds = draw.integers(0, 2, rows).astype(np.int32)
    with torch.inference_mode():
        expected = model("fraud").item_tower(*(torch.from_numpy(array) for array in (text, scalars, kinds)))
    np.testing.assert_allclose(tower(text, scalars, kinds), expected.numpy(), atol=1e-5)


def test_export_leaves_a_model_in_training_as_it_was(tmp_path: Path) -> None:
    learner = HeadraceModel(HeadraceConfig(task="fraud", **SMALL)).train()
    export(learner, tmp_path)
    assert learner.training
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json", "item_tower.onnx", "model.onnx", "model.safetensors",
    ]  # fmt: skip


def test_the_description_carries_what_was_said_of_the_model() -> None:
    manifest = release("fraud").manifest
    assert manifest.calibration == {"a": 0.9, "b": -0.1}
    assert manifest.settings == {"mean": 0.1}
    assert manifest.config["task"] == "fraud"
    assert {name: manifest.config[name] for name in SMALL} == SMALL


def test_a_file_that_is_no_graph_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"model\.onnx"):
        read(tmp_path / "model.onnx")


def test_a_graph_of_another_shape_is_refused() -> None:
    graph = read(release("fraud").file("model.onnx"))
    with pytest.raises(EngineError, match="cannot be compiled"):
        compile_graph(graph, precision="f32", threads=1, shapes={"fields": (4, 99)})


def test_a_processor_without_bfloat16_is_said_and_served_in_f32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class OldProcessor:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "INT8"]

    from engines import compiled

    real = compiled.core()
    monkeypatch.setattr(compiled, "core", OldProcessor)
    assert compiled.supported("bf16") == "f32"
    assert "no bfloat16" in caplog.text
    monkeypatch.setattr(compiled, "core", lambda: real)
    assert OpenVinoEngine(release("ctr"), precision="f32", buckets=(1,), threads=1).precision == "f32"
