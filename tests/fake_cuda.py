"""A CUDA device that is none: work on a stream is done at `wait` and no sooner, and recorded work again at each launch.
It refuses what a real one would: a call outside the device, a copy of another size, work on a stream being recorded.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from engines.base import Array
from engines.cuda import Graph, Memory, Stream
from schemas.errors import EngineError

Work = Callable[[], None]


class FakeMemory:
    def __init__(self, device: "FakeDevice", size: int) -> None:
        self.bytes = np.full(max(size, 1), 0xA5, np.uint8)  # memory of a device is not zero
        self.address = device.next_address
        device.next_address += len(self.bytes) + 256
        device.heap[self.address] = self


class FakeGraph:
    def __init__(self, stream: "FakeStream", work: list[Work]) -> None:
        self._stream, self._work = stream, work

    def launch(self) -> None:
        self._stream.device.launches += 1
        for each in self._work:
            self._stream.do(each)


class FakeStream:
    def __init__(self, device: "FakeDevice", handle: int) -> None:
        self.device, self.handle = device, handle
        self._pending: list[Work] = []
        self._recorded: list[Work] | None = None

    def do(self, work: Work) -> None:
        assert self.device.depth, "a call outside the device"
        (self._pending if self._recorded is None else self._recorded).append(work)

    def copy_in(self, memory: Memory, array: Array) -> None:
        target = self.device.heap[memory.address]
        assert array.nbytes == len(target.bytes)
        assert array.flags.c_contiguous
        self.do(lambda: np.copyto(target.bytes, array.reshape(-1).view(np.uint8)))

    def copy_out(self, array: Array, memory: Memory) -> None:
        source = self.device.heap[memory.address]
        assert array.nbytes == len(source.bytes)
        self.do(lambda: np.copyto(array.reshape(-1).view(np.uint8), source.bytes))

    def wait(self) -> None:
        assert self._recorded is None, "a stream that is recorded cannot be waited for"
        pending, self._pending = self._pending, []
        for work in pending:
            work()

    def record(self, work: Work) -> Graph:
        if self.device.refuses_graphs:
            raise EngineError("cuStreamBeginCapture_v2 answered 900", where="CUDA")
        self._recorded = []
        try:
            work()
            return FakeGraph(self, self._recorded)
        finally:
            self._recorded = None


class FakeDevice:
    """name, driver: what another machine would have."""

    def __init__(self, name: str = "FAKE H100 sm_90", driver: str = "13000") -> None:
        self.name, self.driver = name, driver
        self.heap: WeakValueDictionary[int, FakeMemory] = WeakValueDictionary()
        self.streams: WeakValueDictionary[int, FakeStream] = WeakValueDictionary()
        self.next_address, self.depth, self.launches = 0x7F0000000000, 0, 0
        self.next_handle, self.refuses_graphs = 0, False

    def __enter__(self) -> "FakeDevice":
        self.depth += 1
        return self

    def __exit__(self, *error: object) -> None:
        self.depth -= 1

    def memory(self, size: int) -> Memory:
        assert self.depth, "a call outside the device"
        return FakeMemory(self, size)

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        assert self.depth, "a call outside the device"
        made: Array = np.zeros(shape, dtype)
        return made

    def stream(self) -> Stream:
        assert self.depth, "a call outside the device"
        self.next_handle += 1
        made: Any = FakeStream(self, self.next_handle)
        self.streams[made.handle] = made
        return made  # type: ignore[no-any-return]  # it is seen as what it stands for
