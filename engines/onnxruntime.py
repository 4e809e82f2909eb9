"""The release's graph run by ONNX Runtime on the CPU, for machines where OpenVINO is not wanted, and a second opinion.
f32 only: its CPU kernels have no bfloat16, and a precision that would be served in another is refused by name.
"""

from collections.abc import Sequence
from typing import ClassVar

import onnxruntime as ort

from engines.base import Array, Arrays, Engine
from engines.openvino import GRAPH
from engines.processor import processor
from engines.releases import Release
from schemas.errors import EngineError


class OnnxRuntimeEngine(Engine):
    """One session for all buckets: the graph keeps its open dimensions."""

    name: ClassVar[str] = "onnxruntime"
    precision = "f32"

    def __init__(self, release: Release, *, precision: str, buckets: Sequence[int], threads: int) -> None:
        super().__init__(release.manifest.signature, buckets)
        if precision != self.precision:
            raise EngineError(f"precision {precision!r}", where="engine.precision", expected="f32 with onnxruntime")
        self.target = f"{processor()}, ONNX Runtime {ort.__version__}"
        path = release.file(GRAPH)
        try:
            self._session: ort.InferenceSession | None = session(path.read_bytes(), threads)
        except Exception as error:
            raise EngineError(
                f"the graph cannot be read: {error}", where=str(path), expected="an ONNX graph of this release"
            ) from error
        self._taken: dict[str, Array] = {}

    def _run(self, bucket: int, arrays: dict[str, Array]) -> Arrays:
        if self._session is None:
            raise EngineError("the engine was closed", where=f"engine {self.name}", todo="take the slot's live engine")
        names = [spec.name for spec in self.signature.outputs]
        try:
            found = self._session.run(names, {**arrays, **self._taken})
        except Exception as error:
            raise EngineError(f"inference failed: {error}", where=f"engine {self.name}, bucket {bucket}") from error
        return dict(zip(names, found, strict=True))

    def _take(self, name: str, array: Array) -> None:
        self._taken[name] = array

    def close(self) -> None:
        self._session = None
        self._taken.clear()


def session(graph: bytes, threads: int) -> ort.InferenceSession:
    """Threads sleep between calls: spinning ones would take the cores that the broker and the worker need."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
