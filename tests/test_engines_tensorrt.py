"""The TensorRT engine without a GPU: its logic over a fake device, its network parsed and built by TensorRT-RTX ahead
of time, and each of its calls compared with the real bindings. What only a GPU can say is in tests/gpu.
"""

import inspect
import re
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import engines.tensorrt
from engines import open_engine
from engines.base import Engine
from engines.cuda import open_device
from engines.export import export
from engines.model import HeadraceConfig, HeadraceModel
from engines.parity import BOUNDS, parity
from engines.plans import Plan, PlanKey, Plans, build
from engines.releases import Release
from engines.samples import sample
from engines.typed import typed
from schemas.errors import EngineError
from tests import fake_tensorrt as fake
from tests.checks_engine import assert_equal
from tests.engine_backends import fake_tensorrt
from tests.engine_releases import SMALL, TASKS, release, store
from tests.fake_cuda import FakeDevice
from tests.fake_tensorrt import FakeTensorRt

BUCKETS = (4, 16)
KEY = PlanKey("card sm_90", "13000", "11.2", "structure", "f32", (1, 8))


@pytest.fixture
def trt() -> Iterator[FakeTensorRt]:
    with fake_tensorrt() as module:
        yield module


@pytest.fixture(scope="module")
def other() -> Release:
    """A fraud release of the same architecture and other weights."""
    torch.manual_seed(8)
    with tempfile.TemporaryDirectory() as folder:
        description = export(HeadraceModel(HeadraceConfig(task="fraud", **SMALL)), Path(folder))
        return store().publish("fraud", Path(folder), description)


def opened(made: Release, precision: str = "f32") -> Engine:
    return open_engine("tensorrt", made, precision=precision, buckets=BUCKETS, threads=1)


def eager(made: Release) -> Engine:
    return open_engine("eager", made, precision="f32", buckets=BUCKETS, threads=1)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("task", TASKS)
def test_the_typed_graph_agrees_with_torch(task: str, precision: str, trt: FakeTensorRt) -> None:
    engine = opened(release(task), precision)
    report = parity(engine, eager(release(task)), sample(engine.signature, 100, catalog=100))
    report.check(BOUNDS[precision])
    if precision == "bf16":
        assert report.max_difference > 1e-4  # products are in bfloat16


def test_a_bucket_is_recorded_once_and_launched_from_then_on(trt: FakeTensorRt) -> None:
    engine = opened(release("recommendations"))
    inputs = sample(engine.signature, 3, catalog=40)
    found = [engine.infer(inputs).outputs for _ in range(4)]
    assert trt.device.launches == 3  # a new catalogue: one direct run, then the recorded ones
    for each in found[1:]:
        assert_equal(each, found[0])


def test_another_catalogue_is_recorded_anew(trt: FakeTensorRt) -> None:
    engine, expected = opened(release("recommendations")), eager(release("recommendations"))
    for rows in (40, 55, 40):
        inputs = sample(engine.signature, 3, catalog=rows, seed=rows)
        for _ in range(3):
            found = engine.infer(inputs).outputs["rows"]
        assert (found == expected.infer(inputs).outputs["rows"]).mean() > 0.9


def test_a_plan_is_built_once_and_read_from_then_on(trt: FakeTensorRt) -> None:
    first = opened(release("fraud"))
    inputs = sample(first.signature, 5)
    second = opened(release("fraud"))
    assert trt.built == 1
    assert_equal(second.infer(inputs).outputs, first.infer(inputs).outputs)


@pytest.mark.parametrize("change", ["device", "driver", "version"])
def test_another_gpu_driver_or_version_builds_its_own(
    change: str, trt: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(release("fraud"))
    device = FakeDevice("FAKE A10 sm_86") if change == "device" else FakeDevice(driver="13010")
    if change == "version":
        device = trt.device
    elsewhere = FakeTensorRt(device, "11.3.0" if change == "version" else trt.__version__)
    monkeypatch.setattr(engines.tensorrt, "library", lambda: elsewhere)
    monkeypatch.setattr(engines.tensorrt, "open_device", lambda number: device)
    opened(release("fraud"))
    assert (trt.built, elsewhere.built) == (1, 1)


def test_a_release_of_other_weights_is_refitted_and_not_built(trt: FakeTensorRt, other: Release) -> None:
    live = opened(release("fraud"))
    inputs = sample(live.signature, 9)
    before = live.infer(inputs).outputs
    candidate = opened(other)
    assert (trt.built, trt.refitted) == (1, 1)
    parity(candidate, eager(other), sample(live.signature, 100)).check(BOUNDS["f32"])
    assert_equal(live.infer(inputs).outputs, before)  # what serves is not what was refitted


def test_a_closed_engines_body_is_the_next_ones(trt: FakeTensorRt, other: Release) -> None:
    engine = opened(release("fraud"))
    body = engine._body  # type: ignore[attr-defined]  # which of two it is cannot be seen from outside
    engine.close()
    after = opened(other)
    assert after._body is body  # type: ignore[attr-defined]  # as above
    parity(after, eager(other), sample(after.signature, 100)).check(BOUNDS["f32"])


def test_weights_that_cannot_be_refitted_are_built(
    trt: FakeTensorRt, other: Release, caplog: pytest.LogCaptureFixture
) -> None:
    opened(release("fraud"))
    trt.refuses_refit = True
    engine = opened(other)
    assert trt.built == 2
    assert "layers.0.weight" in caplog.text
    parity(engine, eager(other), sample(engine.signature, 100)).check(BOUNDS["f32"])


@pytest.mark.parametrize("damage", ["cut", "foreign", "no header"])
def test_a_plan_that_is_damaged_or_foreign_is_said_and_built_anew(
    damage: str, trt: FakeTensorRt, caplog: pytest.LogCaptureFixture
) -> None:
    opened(release("fraud"))
    (path,) = engines.tensorrt.plan_folder().glob("*.plan")
    data = path.read_bytes()
    changed = {"cut": data[:-100], "foreign": data.replace(b"H100", b"A100"), "no header": b"\x00\xff plan"}
    path.write_bytes(changed[damage])
    opened(release("fraud"))
    assert trt.built == 2
    assert "is built anew" in caplog.text
    assert path.name in caplog.text


def test_a_plan_for_another_gpu_is_refused_by_name(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    plans.put(KEY, Plan(b"plan", "weights"))
    assert plans.get(KEY) == Plan(b"plan", "weights")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b"sm_90", b"sm_86"))
    with pytest.raises(EngineError, match=r"plan is for device card sm_86.*expected card sm_90"):
        plans.get(KEY)


def test_a_folder_that_cannot_be_written_costs_only_the_next_start(
    trt: FakeTensorRt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(engines.tensorrt, "plan_folder", lambda: tmp_path / "file" / "plans")
    engine = opened(release("fraud"))
    assert "the plan cannot be" in caplog.text
    engine.infer(sample(engine.signature, 1))


def test_a_machine_without_a_gpu_says_so() -> None:
    if find_spec("pycuda") is None:
        with pytest.raises(EngineError, match=r"pycuda.*extra gpu"):
            open_device()
    if find_spec("tensorrt") is None:
        with pytest.raises(EngineError, match=r"TensorRT.*extra gpu"):
            opened(release("fraud"))


def test_a_gpu_that_is_no_number_is_refused(trt: FakeTensorRt) -> None:
    with pytest.raises(EngineError, match=r"tensorrt:NUMBER"):
        open_engine("tensorrt:first", release("fraud"), precision="f32", buckets=BUCKETS, threads=1)


def test_a_graph_that_tensorrt_cannot_read_is_refused_in_its_words(trt: FakeTensorRt) -> None:
    graph = typed(release("fraud").file("model.onnx"), "f32")
    broken = type(graph)(b"\x08\x08 no graph", graph.structure, graph.weights)
    with pytest.raises(EngineError, match="TensorRT cannot read the graph: "):
        build(trt, None, broken, release("fraud").manifest.signature, BUCKETS)


def test_a_typed_graph_has_one_structure_and_its_own_weights(other: Release) -> None:
    one, same, another = (
        typed(made.file("model.onnx"), "bf16") for made in (release("fraud"), release("fraud"), other)
    )
    assert one == same
    assert one.structure == another.structure
    assert one.weights != another.weights


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("task", TASKS)
def test_tensorrt_rtx_builds_the_network_for_a_card_that_is_not_here(task: str, precision: str) -> None:
    rtx = pytest.importorskip("tensorrt_rtx_bindings")
    made, logger = release(task), rtx.Logger(rtx.Logger.ERROR)
    graph = typed(made.file("model.onnx"), precision)
    card = rtx.ComputeCapability.SM86
    plan = build(rtx, logger, graph, made.manifest.signature, (1, 16), refit=False, capabilities=[card])
    assert len(plan.data) > 10_000


CALLS = {
    "Builder": ("create_network", "create_builder_config", "create_optimization_profile", "build_serialized_network"),
    "OnnxParser": ("parse", "get_error"),
    "ParserError": ("desc",),
    "IBuilderConfig": ("set_flag", "clear_flag", "add_optimization_profile"),
    "IOptimizationProfile": ("set_shape",),
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": ("create_execution_context",),
    "IExecutionContext": (
        "set_optimization_profile_async", "set_input_shape", "set_tensor_address", "execute_async_v3",
    ),
    "Refitter": ("get_missing_weights", "refit_cuda_engine"),
    "OnnxParserRefitter": ("refit_from_bytes",),
}  # fmt: skip
FLAGS = ("TF32", "STRICT_NANS", "REFIT")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in CALLS.items() for name in names])
def test_a_call_of_the_fake_is_one_of_the_real_bindings(kind: str, name: str) -> None:
    """Its name, how many arguments it takes, and which of them may be left out."""
    rtx = pytest.importorskip("tensorrt_rtx_bindings")
    mine = list(inspect.signature(getattr(getattr(fake, kind), name)).parameters.values())[1:]
    fits = [signature for signature in signatures(getattr(getattr(rtx, kind), name)) if takes(signature, mine)]
    assert fits, getattr(getattr(rtx, kind), name).__doc__


def signatures(method: Any) -> list[list[tuple[str, bool]]]:
    """(name, may be left out) of each argument but self, of each overload, as pybind11 writes them into the doc."""
    found = []
    for line in method.__doc__.splitlines():
        if called := re.match(rf"(?:\d+\. )?{method.__name__}\(self: [^,)]+(?:, (.*))?\) -> ", line):
            arguments = re.findall(r"(?:^|, )(\w+): [^,=]*[^,= ]( = [^,]+)?", called[1] or "")
            found.append([(name, bool(default)) for name, default in arguments])
    return found


def takes(signature: list[tuple[str, bool]], mine: list[inspect.Parameter]) -> bool:
    needed = sum(not optional for _, optional in signature)
    own = sum(each.default is inspect.Parameter.empty for each in mine)
    return needed <= len(mine) <= len(signature) and needed <= own


def test_the_real_library_has_each_name() -> None:
    """The bindings of TensorRT itself load only beside its 0.7 GB; their names are read from the file."""
    spec = find_spec("tensorrt_bindings")
    if spec is None or spec.origin is None:
        pytest.skip("tensorrt_bindings is not installed")
    data = (Path(spec.origin).parent / "tensorrt.so").read_bytes()
    names = {*CALLS, *FLAGS, "STRONGLY_TYPED", *(name for names in CALLS.values() for name in names)}
    assert not [name for name in sorted(names) if name.encode() + b"\0" not in data]


@pytest.mark.parametrize("flag", FLAGS)
def test_the_flags_are_real(flag: str) -> None:
    rtx = pytest.importorskip("tensorrt_rtx_bindings")
    assert hasattr(rtx.BuilderFlag, flag)
