"""int8: quantised from real inputs, served where its certificate allows, and else the next safer precision, said."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines import open_engine
from engines.certified import open_certified
from engines.compiled import supported
from engines.eager import EagerEngine
from engines.manifest import Description
from engines.openvino import INT8_GRAPH
from engines.parity import BOUNDS, Bounds, outputs
from engines.probe import PROBE, thresholds, write_probe
from engines.releases import Release, ReleaseStore
from engines.samples import sample
from finetune.quantise import quantise
from schemas.errors import EngineError, ReleaseError
from tests.checks_engine import BUCKETS, CHECKS
from tests.engine_releases import TASKS, release

WIDE = Bounds(max_difference=2, mean_difference=0.5, rank_correlation=0.9, flips=0.2, overlap=0.5)
"""Of models with random weights, whose scores are nearly equal: int8 cannot keep their order."""
Quantised = Callable[[str], Release]


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Quantised:
    """A release with an int8 graph and a probe, by task."""
    pytest.importorskip("nncf")
    made: dict[str, Release] = {}

    def make(task: str) -> Release:
        if task not in made:
            plain, folder = release(task), tmp_path_factory.mktemp("quantised")
            for name in plain.manifest.files:
                (folder / name).write_bytes(plain.file(name).read_bytes())
            signature = plain.manifest.signature
            quantise(folder, signature, sample(signature, 64, catalog=100, seed=5))
            inputs = sample(signature, 40, catalog=50)
            write_probe(folder, inputs, outputs(EagerEngine(plain, precision="f32", buckets=(64,), threads=1), inputs))
            description = Description(**{name: getattr(plain.manifest, name) for name in Description.model_fields})
            made[task] = ReleaseStore(str(tmp_path_factory.mktemp("store"))).publish(task, folder, description)
        return made[task]

    return make


@pytest.mark.parametrize("task", TASKS)
def test_int8_keeps_the_promises_of_the_contract(task: str, quantised: Quantised) -> None:
    for check in CHECKS.values():
        check(lambda: open_engine("openvino", quantised(task), precision="int8", buckets=BUCKETS, threads=1))


@pytest.mark.parametrize("task", TASKS)
def test_int8_is_served_where_its_certificate_allows(
    task: str, quantised: Quantised, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BOUNDS, "int8", WIDE)
    engine, report = open_certified("openvino", quantised(task), precision="int8", buckets=(64,), threads=1)
    assert engine.precision == "int8"
    assert report is not None
    assert (report.precision, report.rows) == ("int8", 40)
    assert report.max_difference > 0  # it is not the float graph under another name


def test_int8_outside_its_bounds_is_refused_and_the_next_safer_is_taken(
    quantised: Quantised, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    strict = dataclasses.replace(WIDE, max_difference=0)
    monkeypatch.setitem(BOUNDS, "int8", strict)
    engine, _ = open_certified("openvino", quantised("fraud"), precision="int8", buckets=(64,), threads=1)
    assert engine.precision == supported("bf16")
    assert "is not served in int8 but in bf16" in caplog.text
    assert "max_difference" in caplog.text
    monkeypatch.setitem(BOUNDS, "bf16", strict)
    engine, _ = open_certified("openvino", quantised("fraud"), precision="int8", buckets=(64,), threads=1)
    assert engine.precision == "f32"


def test_where_not_even_f32_passes_the_build_is_refused(quantised: Quantised, monkeypatch: pytest.MonkeyPatch) -> None:
    for precision in BOUNDS:
        monkeypatch.setitem(BOUNDS, precision, dataclasses.replace(WIDE, rank_correlation=1.1))
    with pytest.raises(EngineError, match="rank_correlation"):
        open_certified("openvino", quantised("fraud"), precision="int8", buckets=(64,), threads=1)


def test_a_release_without_an_int8_graph_or_probe_is_served_in_bf16(caplog: pytest.LogCaptureFixture) -> None:
    engine, report = open_certified("openvino", release("fraud"), precision="int8", buckets=(8,), threads=1)
    assert (engine.precision, report) == (supported("bf16"), None)
    assert PROBE in caplog.text


def test_an_int8_graph_that_is_not_there_is_named() -> None:
    with pytest.raises(ReleaseError, match=INT8_GRAPH):
        open_engine("openvino", release("fraud"), precision="int8", buckets=(8,), threads=1)


def test_a_backend_that_is_missing_is_not_tried_at_each_precision(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EngineError, match="backend 'tensorflow'"):
        open_certified("tensorflow", release("fraud"), precision="int8", buckets=(8,), threads=1)
    assert "not served" not in caplog.text


def test_a_graph_that_is_none_cannot_be_quantised(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    signature = release("fraud").manifest.signature
    with pytest.raises(EngineError, match=r"model\.onnx"):
        quantise(tmp_path, signature, sample(signature, 16))


def test_flips_are_counted_at_the_thresholds_in_use_before_calibration() -> None:
    plain = release("fraud")
    decides = plain.manifest.model_copy(update={"settings": {"review": 0.3, "block": 0.8}})
    found = thresholds(dataclasses.replace(plain, manifest=decides))
    logits = [np.log(each / (1 - each)) for each in found]
    calibrated = [1 / (1 + np.exp(-(0.9 * logit - 0.1))) for logit in logits]
    assert calibrated == pytest.approx([0.3, 0.8])
    assert thresholds(plain) == (0.5,)  # a release that says none
