"""A pool's engine: the release's graph on a Triton server, over gRPC in the KServe protocol v2 (any server of it does).
The server needs the model beforehand: `engines/triton_repository.py` writes its repository. Nothing is kept there
between calls, so a task that ranks a catalogue sends it with each batch.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype

from engines.base import Array, Arrays, Engine, Signature
from engines.releases import Release
from engines.triton_repository import PRECISION, VERSION, model_name
from schemas.errors import EngineError

TIMEOUT_S = 10.0
REMEDY = "check that the server runs and has the release (python -m engines.triton_repository)"


class TritonEngine(Engine):
    """One connection. `threads` is the server's business. address: host:port of its gRPC door."""

    name: ClassVar[str] = "triton"
    precision = PRECISION

    def __init__(
        self, release: Release, *, precision: str, buckets: Sequence[int], threads: int, address: str = "127.0.0.1:8001"
    ) -> None:
        super().__init__(release.manifest.signature, buckets)
        if precision != PRECISION:
            raise EngineError(f"precision {precision!r}", where="engine.precision", expected=f"{PRECISION} with triton")
        self._model, self._where = model_name(release.task, release.version), f"triton {address}"
        self._taken: dict[str, Array] = {}
        self._client: Any = grpc.InferenceServerClient(address)
        try:
            server = self._client.get_server_metadata(client_timeout=TIMEOUT_S)
            found = self._client.get_model_metadata(self._model, VERSION, client_timeout=TIMEOUT_S)
        except InferenceServerException as error:
            self.close()
            raise EngineError(
                f"the model {self._model} is not served: {error.message()}", where=self._where, todo=REMEDY
            ) from error
        self.target = f"{found.platform} on {server.name} {server.version} at {address}"
        try:
            check_metadata(found, self.signature, self._where)
        except EngineError:
            self.close()
            raise

    def _run(self, bucket: int, arrays: dict[str, Array]) -> Arrays:
        if self._client is None:
            raise EngineError("the engine was closed", where=f"engine {self.name}", todo="take the slot's live engine")
        given = [as_input(name, array) for name, array in {**arrays, **self._taken}.items()]
        wanted = [grpc.InferRequestedOutput(spec.name) for spec in self.signature.outputs]
        try:
            answer = self._client.infer(self._model, given, VERSION, outputs=wanted, client_timeout=TIMEOUT_S)
        except InferenceServerException as error:
            raise EngineError(
                f"inference failed: {error.message()}", where=f"{self._where}, bucket {bucket}"
            ) from error
        found = {spec.name: answer.as_numpy(spec.name) for spec in self.signature.outputs}
        for spec in self.signature.outputs:
            array = found[spec.name]
            if array is None or array.shape != spec.shape(bucket) or array.dtype != spec.dtype:
                raise EngineError(f"the answer has no {spec.name!r} of its shape", where=self._where, todo=REMEDY)
        return found

    def _take(self, name: str, array: Array) -> None:
        self._taken[name] = array

    def close(self) -> None:
        client, self._client = self._client, None
        self._taken.clear()
        if client is not None:
            client.close()


def as_input(name: str, array: Array) -> Any:
    made = grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def check_metadata(found: Any, signature: Signature, where: str) -> None:
    """Raises EngineError where the served model takes or gives something else: it is another release's, or none."""
    for specs, said in ((signature.inputs, found.inputs), (signature.outputs, found.outputs)):
        served = {tensor.name: (np.dtype(triton_to_np_dtype(tensor.datatype)), list(tensor.shape)) for tensor in said}
        for spec in specs:
            expected = (np.dtype(spec.dtype), [-1, *spec.dims[1:]])
            if served.get(spec.name) != expected:
                raise EngineError(
                    f"the served model's {spec.name!r} is {served.get(spec.name, 'missing')}",
                    where=where, expected=f"{expected[0]} {expected[1]}", todo=REMEDY,
                )  # fmt: skip
