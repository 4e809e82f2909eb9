"""The CPU engine: the release's ONNX graph compiled by OpenVINO once per bucket, with fixed shapes. Fixed
shapes are faster than one dynamic graph (1.2 times at 8 rows, 1.6 at one), and 60 ms a bucket to compile.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from engines.base import Array, Arrays, Engine
from engines.compiled import Build, built, shared, supported, version
from engines.processor import processor
from engines.releases import Release
from schemas.errors import EngineError

GRAPH = "model.onnx"
INT8_GRAPH = "model.int8.xml"  # and its weights beside it, .bin


class OpenVinoEngine(Engine):
    """One infer request a bucket, bound once to its input buffers and to the catalogue's own memory."""

    name: ClassVar[str] = "openvino"

    def __init__(self, release: Release, *, precision: str, buckets: Sequence[int], threads: int) -> None:
        super().__init__(release.manifest.signature, buckets)
        self.precision = supported(precision)
        self.target = f"{processor()}, OpenVINO {version()}"
        models = built(release, self.builds(release, precision=self.precision, buckets=self.buckets, threads=threads))
        self._requests = {
            bucket: self._request(bucket, model) for bucket, model in zip(self.buckets, models, strict=True)
        }
        self._taken: dict[str, Array] = {}

    @classmethod
    def builds(cls, release: Release, *, precision: str, buckets: Sequence[int], threads: int) -> list[Build]:
        """What is compiled for an engine of these arguments, a bucket each, the smallest first."""
        precision, inputs = supported(precision), release.manifest.signature.inputs
        file = INT8_GRAPH if precision == "int8" else GRAPH
        return [
            Build(file, precision, threads, {spec.name: spec.shape(bucket if spec.batched else -1) for spec in inputs})
            for bucket in sorted(set(buckets))
        ]

    def _request(self, bucket: int, model: Any) -> Any:
        request = model.create_infer_request()
        for name, buffer in self._buffers[bucket].arrays.items():
            request.set_tensor(name, shared(buffer))
        return request

    def _run(self, bucket: int, arrays: dict[str, Array]) -> Arrays:
        if not self._requests:
            raise EngineError("the engine was closed", where=f"engine {self.name}", todo="take the slot's live engine")
        request = self._requests[bucket]
        try:
            request.infer()
        except RuntimeError as error:
            raise EngineError(f"inference failed: {error}", where=f"engine {self.name}, bucket {bucket}") from error
        return {spec.name: request.get_tensor(spec.name).data for spec in self.signature.outputs}

    def _take(self, name: str, array: Array) -> None:
        tensor = shared(array)
        for request in self._requests.values():
            request.set_tensor(name, tensor)
        self._taken[name] = array

    def close(self) -> None:
        self._requests.clear()
        self._taken.clear()
