"""ONNX graphs compiled by OpenVINO: the one place that knows its properties and maps its errors. Precision is
always pinned, for the default differs between processors; what is not supported is said, not hidden.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import openvino as ov

from schemas.errors import EngineError

PRECISIONS = {"f32": "f32", "bf16": "bf16", "int8": "bf16"}  # of what is not quantised, where it is int8
log = logging.getLogger(__name__)


@cache
def core() -> Any:
    return ov.Core()


def supported(precision: str) -> str:
    """The precision to run in: bf16 only where the processor has it, else f32, with a warning."""
    if precision not in PRECISIONS:
        raise EngineError(
            f"precision {precision!r}", where="engine.precision", expected=f"one of {', '.join(PRECISIONS)}"
        )
    if precision == "bf16" and "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        log.warning("this processor has no bfloat16 arithmetic: the engine runs in f32, at about half the speed")
        return "f32"
    return precision


def read(path: Path) -> Any:
    """The graph of an ONNX file. Raises EngineError if it cannot be read."""
    try:
        return core().read_model(path)
    except (RuntimeError, ValueError) as error:
        raise EngineError(
            f"the graph cannot be read: {brief(error)}", where=str(path), expected="an ONNX graph"
        ) from error


def compile_graph(
    graph: Any, *, precision: str, threads: int, shapes: Mapping[str, Sequence[int]] | None = None
) -> Any:
    """Compiles for calls from one thread that wait for the answer. shapes: what is fixed; -1 stays open.

    No pinning: the machine's cores are shared with the broker.
    """
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    try:
        if shapes:
            graph = graph.clone()
            graph.reshape({name: ov.PartialShape(list(dims)) for name, dims in shapes.items()})
        return core().compile_model(graph, "CPU", properties)
    except (RuntimeError, ValueError, TypeError) as error:
        raise EngineError(
            f"the graph cannot be compiled: {brief(error)}",
            where="OpenVINO",
            expected="a graph of this release",
        ) from error


def shared(array: Any) -> Any:
    """A tensor on the array's own memory, which must stay alive, contiguous and in place."""
    return ov.Tensor(array, shared_memory=True)


def version() -> str:
    return str(ov.__version__).partition("-")[0]


def brief(error: Exception) -> str:
    """The last line that says something: OpenVINO's messages begin with a place in its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
