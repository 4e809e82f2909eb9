"""ONNX graphs compiled by OpenVINO: the one place that knows its properties and maps its errors. Precision is
always pinned, for the default differs between processors; what is not supported is said, not hidden.
"""

import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import openvino as ov

from schemas.errors import EngineError

if TYPE_CHECKING:
    from engines.releases import Release

PRECISIONS = {"f32": "f32", "bf16": "bf16", "int8": "bf16"}  # of what is not quantised, where it is int8
log = logging.getLogger(__name__)


class Build(NamedTuple):
    """One of a release's graphs in one precision and in fixed shapes (-1 stays open): what OpenVINO compiles."""

    file: str
    precision: str
    threads: int
    shapes: Mapping[str, Sequence[int]]

    @property
    def name(self) -> str:
        """Its key among what a release brings compiled."""
        shapes = ",".join(f"{name}={list(dims)}" for name, dims in sorted(self.shapes.items()))
        return f"{self.file} {self.precision} {self.threads} {shapes}"


@cache
def core() -> Any:
    return ov.Core()


def built(release: "Release", builds: Iterable[Build]) -> list[Any]:
    """Compiled models in the order asked for; what the release brings compiled already is only loaded."""
    graphs: dict[str, Any] = {}
    models = []
    for build in builds:
        if (blob := release.compiled.get(build.name)) is not None:
            models.append(load_blob(blob, precision=build.precision, threads=build.threads))
            continue
        if build.file not in graphs:
            graphs[build.file] = read(release.file(build.file))
        graph = graphs[build.file]
        models.append(compile_graph(graph, precision=build.precision, threads=build.threads, shapes=build.shapes))
    return models


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
    """Compiles for calls from one thread that wait for the answer. shapes: what is fixed; -1 stays open."""
    try:
        if shapes:
            graph = graph.clone()
            graph.reshape({name: ov.PartialShape(list(dims)) for name, dims in shapes.items()})
        return core().compile_model(graph, "CPU", properties(precision, threads))
    except (RuntimeError, ValueError, TypeError) as error:
        raise EngineError(
            f"the graph cannot be compiled: {brief(error)}",
            where="OpenVINO",
            expected="a graph of this release",
        ) from error


def load_blob(blob: bytes, *, precision: str, threads: int) -> Any:
    """What another process of this machine compiled (`export_model`). Takes less than half of a compilation's time."""
    try:
        return core().import_model(io.BytesIO(blob), "CPU", properties(precision, threads))
    except (RuntimeError, ValueError, TypeError) as error:
        raise EngineError(
            f"a compiled graph cannot be loaded: {brief(error)}",
            where="OpenVINO",
            expected=f"what OpenVINO {version()} compiled on this machine",
        ) from error


def properties(precision: str, threads: int) -> dict[str, Any]:
    """No pinning: the machine's cores are shared with the broker."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }


def shared(array: Any) -> Any:
    """A tensor on the array's own memory, which must stay alive, contiguous and in place."""
    return ov.Tensor(array, shared_memory=True)


def version() -> str:
    return str(ov.__version__).partition("-")[0]


def brief(error: Exception) -> str:
    """The last line that says something: OpenVINO's messages begin with a place in its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
