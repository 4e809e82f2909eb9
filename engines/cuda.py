"""A CUDA device behind one thin typed interface: memory, pinned arrays, streams and graphs, made by pycuda.
It knows no TensorRT. pycuda has no graphs, so their five calls go to the driver itself; tests put a fake in its place.
"""

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from engines.base import Array
from schemas.errors import EngineError

THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE: what other threads do meanwhile does not spoil the capture


class Memory(Protocol):
    """Bytes on the device, freed with the object."""

    @property
    def address(self) -> int: ...


class Graph(Protocol):
    """Work that was recorded once; its memory and arrays must stay alive and in place."""

    def launch(self) -> None: ...


class Stream(Protocol):
    """Work in order. Copies return at once; their arrays must be pinned, and left alone until `wait`."""

    @property
    def handle(self) -> int: ...
    def copy_in(self, memory: Memory, array: Array) -> None: ...
    def copy_out(self, array: Array, memory: Memory) -> None: ...
    def wait(self) -> None: ...
    def record(self, work: Callable[[], None]) -> Graph:
        """Runs `work`, whose calls on this stream are recorded and not done. Raises EngineError if one cannot be."""


class Device(Protocol):
    """name: of the card, with its compute capability. driver: its version. Enter it around each use: a thread has to
    say which device it means.
    """

    name: str
    driver: str

    def __enter__(self) -> "Device": ...
    def __exit__(self, *error: object) -> None: ...
    def memory(self, size: int) -> Memory: ...
    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Zeros in host memory that the device reads itself, at twice the speed."""

    def stream(self) -> Stream: ...


def open_device(number: int = 0) -> Device:
    """The machine's GPU. Raises EngineError where there is none, or no pycuda."""
    try:
        import pycuda.driver as driver
    except ImportError as error:
        raise EngineError(
            f"a GPU needs pycuda: {error}",
            where="CUDA",
            todo="install Headrace's extra gpu, or choose backend openvino",
        ) from error
    try:
        driver.init()
        return PyCudaDevice(driver, number)
    except driver.Error as error:
        raise EngineError(
            f"there is no GPU to use: {error}", where="CUDA", todo="check nvidia-smi, or choose backend openvino"
        ) from error


class PyCudaDevice:
    """The primary context of a card, which torch and TensorRT share."""

    def __init__(self, driver: Any, number: int) -> None:
        self._driver, device = driver, driver.Device(number)
        major, minor = device.compute_capability()
        self.name = f"{device.name()} sm_{major}{minor}"
        self.driver = str(driver.get_driver_version())
        self._context = device.retain_primary_context()
        self._library = ctypes.CDLL("libcuda.so.1")

    def __enter__(self) -> "PyCudaDevice":
        self._context.push()
        return self

    def __exit__(self, *error: object) -> None:
        self._driver.Context.pop()

    def memory(self, size: int) -> Memory:
        return PyCudaMemory(self, self._driver.mem_alloc(max(size, 1)))

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        array: Array = self._driver.pagelocked_zeros(shape, np.dtype(dtype))
        return array

    def stream(self) -> Stream:
        return PyCudaStream(self._driver, self._library, self._driver.Stream())


class PyCudaMemory:
    def __init__(self, device: AbstractContextManager[Any], allocation: Any) -> None:
        self.address = int(allocation)
        self._device, self._allocation = device, allocation

    def __del__(self) -> None:
        with self._device:
            self._allocation.free()


class PyCudaStream:
    def __init__(self, driver: Any, library: ctypes.CDLL, stream: Any) -> None:
        self._driver, self._library, self._stream = driver, library, stream
        self.handle: int = stream.handle

    def copy_in(self, memory: Memory, array: Array) -> None:
        self._driver.memcpy_htod_async(memory.address, array, self._stream)

    def copy_out(self, array: Array, memory: Memory) -> None:
        self._driver.memcpy_dtoh_async(array, memory.address, self._stream)

    def wait(self) -> None:
        try:
            self._stream.synchronize()
        except self._driver.Error as error:
            raise EngineError(f"the device failed: {error}", where="CUDA") from error

    def record(self, work: Callable[[], None]) -> Graph:
        graph, call = ctypes.c_void_p(), self._call
        call("cuStreamBeginCapture_v2", ctypes.c_void_p(self.handle), ctypes.c_int(THREAD_LOCAL))
        try:
            work()
        finally:  # a stream that goes on capturing does nothing else any more
            call("cuStreamEndCapture", ctypes.c_void_p(self.handle), ctypes.byref(graph))
        made = ctypes.c_void_p()
        call("cuGraphInstantiateWithFlags", ctypes.byref(made), graph, ctypes.c_ulonglong(0))
        call("cuGraphDestroy", graph)
        return DriverGraph(call, made, self.handle)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise EngineError(f"{name} answered {status}", where="CUDA")


class DriverGraph:
    def __init__(self, call: Callable[..., None], graph: ctypes.c_void_p, stream: int) -> None:
        self._call, self._graph, self._stream = call, graph, ctypes.c_void_p(stream)

    def launch(self) -> None:
        self._call("cuGraphLaunch", self._graph, self._stream)

    def __del__(self) -> None:
        self._call("cuGraphExecDestroy", self._graph)
