"""The GPU engine: the release's graph as a TensorRT plan, with the copies in and out of a bucket recorded as one CUDA
graph. A new release of a known architecture builds nothing: its weights are refitted into an engine that is idle.
"""

import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from engines.base import Array, Arrays, Buffers, Engine
from engines.cuda import Device, Graph, Memory, open_device
from engines.openvino import GRAPH
from engines.plans import MOST_ROWS, Plan, PlanKey, Plans, build
from engines.releases import Release
from engines.typed import TypedGraph, typed
from schemas.errors import EngineError

log = logging.getLogger(__name__)


def library() -> Any:
    """TensorRT's module. Raises EngineError where it is not installed."""
    try:
        import tensorrt
    except ImportError as error:
        raise EngineError(
            f"a GPU needs TensorRT: {error}", where="TensorRT", todo="install Headrace's extra gpu, or choose openvino"
        ) from error
    return tensorrt


def plan_folder() -> Path:
    """`$XDG_CACHE_HOME` or `~/.cache`, then `headrace/plans`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "plans"


@cache
def logger_of(trt: Any) -> Any:
    """TensorRT takes one logger a process, and keeps it."""
    return trt.Logger(trt.Logger.WARNING)


class Body:
    """A deserialised engine, and the weights that are in it now."""

    def __init__(self, trt: Any, plan: Plan) -> None:
        self._trt, self.weights = trt, plan.weights
        self._runtime = trt.Runtime(logger_of(trt))
        self.engine = self._runtime.deserialize_cuda_engine(plan.data)
        if self.engine is None:
            raise EngineError("TensorRT cannot load the plan", where="TensorRT", todo="see the log for its own words")

    def refit(self, graph: TypedGraph) -> None:
        """Takes the graph's weights. Raises EngineError: then the weights are neither the old nor the new ones."""
        if graph.weights == self.weights:
            return
        self.weights = ""
        trt, logger = self._trt, logger_of(self._trt)
        refitter = trt.Refitter(self.engine, logger)
        parser = trt.OnnxParserRefitter(refitter, logger)
        if not parser.refit_from_bytes(graph.model) or not refitter.refit_cuda_engine():
            missing = ", ".join(refitter.get_missing_weights()[:3]) or "none"
            raise EngineError(f"the weights cannot be refitted; missing: {missing}", where="TensorRT")
        self.weights = graph.weights


class Idle:
    """Bodies that no engine runs on, by key, one each: the live one is never refitted, its neighbour is."""

    def __init__(self) -> None:
        self._lock, self._bodies = Lock(), dict[PlanKey, Body]()

    def take(self, key: PlanKey) -> Body | None:
        with self._lock:
            return self._bodies.pop(key, None)

    def give(self, key: PlanKey, body: Body) -> None:
        with self._lock:
            self._bodies[key] = body


idle = Idle()


class TensorRtEngine(Engine):
    """One execution context, one set of buffers and one CUDA graph a bucket, all on one stream.

    `threads` is not used. address: the number of the GPU.
    """

    name: ClassVar[str] = "tensorrt"

    def __init__(
        self, release: Release, *, precision: str, buckets: Sequence[int], threads: int, address: str = "0"
    ) -> None:
        graph = typed(release.file(GRAPH), precision)
        super().__init__(release.manifest.signature, buckets)
        trt, self._device = library(), open_device(device_number(address))
        self.precision, self.target = precision, f"{self._device.name}, TensorRT {trt.__version__}"
        self._key = PlanKey(
            self._device.name, self._device.driver, str(trt.__version__), graph.structure, precision, self.buckets
        )
        with self._device:
            self._body: Body | None = body_for(trt, self._key, graph, release, self.buckets)
            self._stream = self._device.stream()
            self._lanes = {
                bucket: Lane(self, self._device, self._body, number, bucket)
                for number, bucket in enumerate(self.buckets)
            }
        for bucket, lane in self._lanes.items():
            self._buffers[bucket] = Buffers(lane.inputs)
        self._taken: dict[str, tuple[Array, Memory]] = {}

    def _run(self, bucket: int, arrays: dict[str, Array]) -> Arrays:
        if self._body is None:
            raise EngineError("the engine was closed", where=f"engine {self.name}", todo="take the slot's live engine")
        lane = self._lanes[bucket]
        with self._device:
            lane.run(self._stream, self._taken)
        return lane.outputs

    def _take(self, name: str, array: Array) -> None:
        if len(array) > MOST_ROWS:
            raise EngineError(
                f"a catalogue of {len(array)} rows", where=f"engine {self.name}", expected=f"at most {MOST_ROWS}"
            )
        with self._device:
            memory = self._device.memory(array.nbytes)
            self._stream.copy_in(memory, array)
            self._stream.wait()
            self._taken[name] = (array, memory)
        for lane in self._lanes.values():
            lane.forget()

    def close(self) -> None:
        body, self._body = self._body, None
        if body is None:
            return
        with self._device:
            self._lanes.clear()
            self._taken.clear()
        if body.weights:
            idle.give(self._key, body)


class Lane:
    """What one bucket needs. The first run after a new catalogue is direct and then recorded, the others launch."""

    def __init__(self, engine: Engine, device: Device, body: Body, number: int, bucket: int) -> None:
        self._signature, self._bucket, self._graph = engine.signature, bucket, None
        self._fresh = False
        stream = device.stream()
        self._context = body.engine.create_execution_context()
        if self._context is None or not self._context.set_optimization_profile_async(number, stream.handle):
            raise EngineError("the device has no room for the engine", where=f"engine {engine.name}, bucket {bucket}")
        stream.wait()
        self.inputs = pinned(device, engine.signature.inputs, bucket)
        self.outputs = pinned(device, engine.signature.outputs, bucket)
        self._memory = {name: device.memory(array.nbytes) for name, array in {**self.inputs, **self.outputs}.items()}

    _graph: Graph | None

    def forget(self) -> None:
        """The recorded work reads a catalogue that is gone."""
        self._graph, self._fresh = None, False

    def run(self, stream: Any, taken: dict[str, tuple[Array, Memory]]) -> None:
        if self._graph is not None:
            self._graph.launch()
        elif not self._fresh:
            self._bind(taken)
            self._enqueue(stream)  # TensorRT wants one run before it can be recorded
            self._fresh = True
        else:
            self._graph = stream.record(lambda: self._enqueue(stream))
            self._graph.launch()
        stream.wait()

    def _bind(self, taken: dict[str, tuple[Array, Memory]]) -> None:
        for spec in self._signature.inputs:
            array, memory = (
                taken[spec.name] if spec.name in taken else (self.inputs[spec.name], self._memory[spec.name])
            )
            self._said(self._context.set_input_shape(spec.name, array.shape), spec.name)
            self._said(self._context.set_tensor_address(spec.name, memory.address), spec.name)
        for spec in self._signature.outputs:
            self._said(self._context.set_tensor_address(spec.name, self._memory[spec.name].address), spec.name)

    def _enqueue(self, stream: Any) -> None:
        for name, array in self.inputs.items():
            stream.copy_in(self._memory[name], array)
        self._said(self._context.execute_async_v3(stream.handle), "execute")
        for name, array in self.outputs.items():
            stream.copy_out(array, self._memory[name])

    def _said(self, fine: bool, what: str) -> None:
        if not fine:
            raise EngineError(
                f"inference failed: TensorRT refuses {what}", where=f"engine tensorrt, bucket {self._bucket}"
            )


def pinned(device: Device, specs: Sequence[Any], bucket: int) -> dict[str, Array]:
    return {spec.name: device.pinned(spec.shape(bucket), spec.dtype) for spec in specs if spec.batched}


def body_for(trt: Any, key: PlanKey, graph: TypedGraph, release: Release, buckets: Sequence[int]) -> Body:
    """An engine with the graph's weights: an idle one refitted, else from the kept plan, else built."""
    spare = idle.take(key)
    try:
        if spare is not None:
            spare.refit(graph)
            return spare
        plan = Plans(plan_folder()).get(key)
        if plan is not None:
            body = Body(trt, plan)
            body.refit(graph)
            return body
    except EngineError as error:
        log.warning("%s/%s is built anew: %s", release.task, release.version, error)
    plan = build(trt, logger_of(trt), graph, release.manifest.signature, buckets)
    try:
        Plans(plan_folder()).put(key, plan)
    except EngineError as error:
        log.warning("%s", error)  # slower at the next start, and no worse
    return Body(trt, plan)


def device_number(address: str) -> int:
    if not address.isdigit():
        raise EngineError(f"GPU {address!r}", where="engine.backend", expected="tensorrt, or tensorrt:NUMBER")
    return int(address)
