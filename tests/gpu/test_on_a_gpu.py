"""On a real card: TensorRT keeps the engine contract, agrees with torch, and refits. `make test-gpu` runs it; elsewhere
it is skipped with the reason.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import engines.tensorrt
from engines import open_engine
from engines.base import Engine
from engines.cuda import open_device
from engines.export import export
from engines.model import HeadraceConfig, HeadraceModel
from engines.parity import BOUNDS, parity
from engines.releases import Release
from engines.samples import sample
from schemas.errors import EngineError
from tests.checks_engine import BUCKETS, CHECKS
from tests.engine_releases import SMALL, TASKS, release, store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def card() -> Iterator[str]:
    """The card's name; plans are kept in a folder of the tests' own."""
    try:
        name = open_device().name
        engines.tensorrt.library()
    except EngineError as error:
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines.tensorrt, "plan_folder", lambda: Path(folder))
        yield name


def opened(made: Release, precision: str = "f32") -> Engine:
    return open_engine("tensorrt", made, precision=precision, buckets=BUCKETS, threads=1)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("task", TASKS)
def test_tensorrt_keeps_the_promises(task: str, check: str) -> None:
    CHECKS[check](lambda: opened(release(task)))


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("task", TASKS)
def test_it_agrees_with_torch(task: str, precision: str, card: str) -> None:
    engine = opened(release(task), precision)
    oracle = open_engine("eager", release(task), precision="f32", buckets=(16,), threads=2)
    report = parity(engine, oracle, sample(engine.signature, 500, catalog=200))
    print(report.as_dict())
    report.check(BOUNDS[precision])
    assert card in engine.target


def test_new_weights_are_refitted_beside_the_live_engine_in_less_time_than_a_build() -> None:
    started = time.monotonic()
    live = open_engine("tensorrt", release("fraud"), precision="bf16", buckets=(2, 32), threads=1)
    built_s = time.monotonic() - started
    torch.manual_seed(8)
    with tempfile.TemporaryDirectory() as folder:
        description = export(HeadraceModel(HeadraceConfig(task="fraud", **SMALL)), Path(folder))
        other = store().publish("fraud", Path(folder), description)
    started = time.monotonic()
    candidate = open_engine("tensorrt", other, precision="bf16", buckets=(2, 32), threads=1)
    assert time.monotonic() - started < built_s
    for engine, made in ((live, release("fraud")), (candidate, other)):
        oracle = open_engine("eager", made, precision="f32", buckets=(32,), threads=2)
        parity(engine, oracle, sample(engine.signature, 200)).check(BOUNDS["bf16"])
