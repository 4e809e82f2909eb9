"""TensorRT's module without a GPU: the calls that Headrace makes, with the real names and arguments, over `FakeDevice`.
A plan holds the ONNX graph and OpenVINO runs it, so results are true; `test_engines_tensorrt.py` compares the calls
with the real bindings.
"""

import json
from enum import IntEnum
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from engines.compiled import core
from tests.fake_cuda import FakeDevice


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(IntEnum):
    TF32 = 1
    STRICT_NANS = 2
    REFIT = 3


class Logger:
    WARNING = 2

    def __init__(self, min_severity: int = WARNING) -> None: ...


class ParserError:
    def __init__(self, text: str) -> None:
        self.text = text

    def desc(self) -> str:
        return self.text


class INetworkDefinition:
    model = b""


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        assert all(low <= usual <= high for low, usual, high in zip(min, opt, max, strict=True))
        self.shapes[input] = [list(min), list(opt), list(max)]


class IBuilderConfig:
    def __init__(self) -> None:
        self.flags, self.profiles = {BuilderFlag.TF32}, list[dict[str, list[list[int]]]]()

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: Logger) -> None:
        self._network, self._errors = network, list[ParserError]()

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse(self, model: bytes, path: str | None = None) -> bool:
        try:
            onnx.checker.check_model(onnx.load_from_string(model))
        except Exception as error:  # noqa: BLE001  a fake of what answers False to anything
            self._errors.append(ParserError(str(error)))
            return False
        self._network.model = model
        return True


class FakeTensorRt:
    """The module, for one device. built, refitted: how many there were; refuses_refit: a weight is always missing."""

    NetworkDefinitionCreationFlag, BuilderFlag, Logger, OnnxParser = (
        NetworkDefinitionCreationFlag, BuilderFlag, Logger, OnnxParser,
    )  # fmt: skip

    def __init__(self, device: FakeDevice, version: str = "11.2.0") -> None:
        self.device, self.__version__ = device, version
        self.built = self.refitted = 0
        self.refuses_refit = False

    def Builder(self, logger: Any) -> Any:
        return Builder(self)

    def Runtime(self, logger: Any) -> Any:
        return Runtime(self)

    def Refitter(self, engine: Any, logger: Any) -> Any:
        return Refitter(self, engine)

    def OnnxParserRefitter(self, refitter: Any, logger: Any) -> Any:
        return OnnxParserRefitter(refitter)


class Builder:
    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt = trt

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        self._trt.built += 1
        head = {
            "device": self._trt.device.name,
            "profiles": config.profiles,
            "refit": BuilderFlag.REFIT in config.flags,
        }
        return json.dumps(head).encode() + b"\0" + network.model


class Runtime:
    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt = trt

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine | None":
        head, _, model = serialized_engine.partition(b"\0")
        try:
            said = json.loads(head)
        except ValueError:
            return None
        return ICudaEngine(self._trt, said, model) if said["device"] == self._trt.device.name else None


class ICudaEngine:
    def __init__(self, trt: FakeTensorRt, head: dict[str, Any], model: bytes) -> None:
        self.trt, self.profiles, self.refittable, self.model = trt, head["profiles"], head["refit"], model

    def create_execution_context(self) -> "IExecutionContext":
        return IExecutionContext(self)


class Refitter:
    def __init__(self, trt: FakeTensorRt, engine: ICudaEngine) -> None:
        assert engine.refittable
        self.trt, self.engine, self.model = trt, engine, b""

    def get_missing_weights(self) -> list[str]:
        return ["layers.0.weight"] if self.trt.refuses_refit else []

    def refit_cuda_engine(self) -> bool:
        if self.get_missing_weights():
            return False
        self.engine.model = self.model
        self.trt.refitted += 1
        return True


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter) -> None:
        self._refitter = refitter

    def refit_from_bytes(self, model: bytes, path: str | None = None) -> bool:
        held, new = (
            {tensor.name: list(tensor.dims) for tensor in onnx.load_from_string(data).graph.initializer}
            for data in (self._refitter.engine.model, model)
        )
        self._refitter.model = model
        return held == new


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine, self._profile = engine, -1
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._compiled: tuple[bytes, Any] = (b"", None)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        return 0 <= profile_index < len(self._engine.profiles)

    def set_input_shape(self, name: str, shape: Any) -> bool:
        least, _, most = self._engine.profiles[self._profile][name]
        self._shapes[name] = tuple(shape)
        return all(low <= dim <= high for low, dim, high in zip(least, shape, most, strict=True))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        shapes, addresses = dict(self._shapes), dict(self._addresses)  # as they are when the work is recorded
        stream = self._engine.trt.device.streams[stream_handle]
        stream.do(lambda: self._compute(shapes, addresses))
        return True

    def _compute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        request, heap = self._request(), self._engine.trt.device.heap
        graph = onnx.load_from_string(self._engine.model).graph
        inputs = {}
        for value in graph.input:
            kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            inputs[value.name] = heap[addresses[value.name]].bytes.view(kind).reshape(shapes[value.name])
        found = request.infer(inputs)
        for value in graph.output:
            heap[addresses[value.name]].bytes[:] = np.ascontiguousarray(found[value.name]).reshape(-1).view(np.uint8)

    def _request(self) -> Any:
        if self._compiled[0] != self._engine.model:
            model = core().read_model(self._engine.model)
            settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
            self._compiled = (self._engine.model, core().compile_model(model, "CPU", settings).create_infer_request())
        return self._compiled[1]


def weights(model: bytes) -> dict[str, Any]:
    """Initialisers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(model).graph.initializer}
