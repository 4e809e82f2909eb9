"""A small inference server of the KServe protocol v2 over gRPC: it serves a Triton model repository by ONNX Runtime.
The protocol is the real one, by the stubs that tritonclient ships; the server is not Triton.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from engines.onnxruntime import session

TYPES = {"tensor(float)": "FP32", "tensor(int32)": "INT32", "tensor(int64)": "INT64"}


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated, without types
    def __init__(self, repository: Path) -> None:
        self._repository, self._sessions = repository, dict[str, Any]()

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerMetadataResponse(name="kserve-test", version="1")

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        model = self._model(request.name, request.version, context)
        answer = service_pb2.ModelMetadataResponse(name=request.name, versions=["1"], platform="onnxruntime_onnx")
        for said, values in ((answer.inputs, model.get_inputs()), (answer.outputs, model.get_outputs())):
            for value in values:
                shape = [dim if isinstance(dim, int) else -1 for dim in value.shape]
                said.add(name=value.name, datatype=TYPES[value.type], shape=shape)
        return answer

    def ModelInfer(self, request: Any, context: Any) -> Any:
        model = self._model(request.model_name, request.model_version, context)
        inputs = {}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            inputs[tensor.name] = np.frombuffer(raw, triton_to_np_dtype(tensor.datatype)).reshape(tensor.shape)
        names = [output.name for output in request.outputs]
        try:
            found = model.run(names, inputs)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller is told
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        for name, array in zip(names, found, strict=True):
            answer.outputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
            answer.raw_output_contents.append(np.ascontiguousarray(array).tobytes())
        return answer

    def _model(self, name: str, version: str, context: Any) -> Any:
        path = self._repository / name / (version or "1") / "model.onnx"
        if not (self._repository / name / "config.pbtxt").is_file():
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        if name not in self._sessions:
            self._sessions[name] = session(path.read_bytes(), 1)
        return self._sessions[name]


@contextmanager
def serving(repository: Path) -> Iterator[str]:
    """The address of a server of the repository, until left."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(2), options=options)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(repository), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
