"""What each backend needs to run in a test: a device that is none for TensorRT, a server for Triton, else nothing."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import engines.tensorrt
from engines.triton_repository import CPU, write_model
from tests.engine_releases import TASKS, release
from tests.fake_cuda import FakeDevice
from tests.fake_tensorrt import FakeTensorRt


@contextmanager
def at_hand(backend: str) -> Iterator[str]:
    """The backend's name with the address to open it by. Skips where its library is not installed."""
    if backend == "tensorrt":
        with fake_tensorrt():
            yield backend
    elif backend == "triton":
        pytest.importorskip("tritonclient.grpc")
        with small_server() as address:
            yield f"triton:{address}"
    else:
        if backend == "onnxruntime":
            pytest.importorskip("onnxruntime")
        yield backend


@contextmanager
def fake_tensorrt() -> Iterator[FakeTensorRt]:
    """TensorRT over a device that is none, with a folder of plans and idle engines of its own."""
    device = FakeDevice()
    trt = FakeTensorRt(device)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines.tensorrt, "library", lambda: trt)
        patch.setattr(engines.tensorrt, "open_device", lambda number: device)
        patch.setattr(engines.tensorrt, "plan_folder", lambda: Path(folder))
        patch.setattr(engines.tensorrt, "idle", engines.tensorrt.Idle())
        yield trt


@contextmanager
def small_server() -> Iterator[str]:
    """The address of a server that has the small releases of all tasks."""
    pytest.importorskip("onnxruntime")
    from tests.kserve_server import serving

    with tempfile.TemporaryDirectory() as folder:
        for task in TASKS:
            write_model(release(task), Path(folder), kind=CPU)
        with serving(Path(folder)) as address:
            yield address
