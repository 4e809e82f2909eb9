"""The engine contract: named arrays in, named arrays out, in fixed buckets of rows. What is common to all
backends is here once (checking, choosing the bucket, padding, cutting); a backend adds `_run`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EngineError

Array = NDArray[Any]
Arrays = Mapping[str, Array]
ALIGNMENT = 64  # bytes; a cache line, and what vector units load without a penalty
MAX_BUCKET = 4096


class Gather:
    """An input that is not there yet: rows of a table, taken straight into the engine's own memory.

    The largest input by far; made as an array and then copied it would cross memory twice (B = 512, 64 tokens of
    width 64: 0.27 against 0.64 µs a row). `rows` must all be in the table (V, D).
    """

    __slots__ = ("dtype", "ndim", "rows", "shape", "table")

    def __init__(self, table: Array, rows: Array) -> None:
        self.table, self.rows = table, rows
        self.shape: tuple[int, ...] = (*rows.shape, table.shape[1])
        self.dtype, self.ndim = table.dtype, rows.ndim + 1

    def into(self, out: Array) -> None:
        # "clip" never clips here: the default mode takes into an array of its own first, to be able to raise.
        self.table.take(self.rows, axis=0, out=out, mode="clip")


Given = Mapping[str, Array | Gather]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. `dims[0]` is "B" (rows of the batch, padded to a bucket) or "N" (catalogue rows,
    never padded to a bucket); other dims are numbers. An "N" input with fewer than `least` rows is filled up
    with `pad`.
    """

    name: str
    dtype: str
    dims: tuple[int | str, ...]
    least: int = 0
    pad: float = 0.0

    @property
    def batched(self) -> bool:
        return self.dims[0] == "B"

    def shape(self, rows: int) -> tuple[int, ...]:
        return (rows, *(int(dim) for dim in self.dims[1:]))

    def fits(self, array: Array | Gather) -> bool:
        return array.ndim == len(self.dims) and array.shape[1:] == self.dims[1:] and array.dtype == self.dtype


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a graph, in its order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Inference:
    """Outputs by name, cut to the rows that were given, the caller's own; and the bucket they ran in."""

    outputs: dict[str, Array]
    bucket: int


@dataclass(slots=True)
class Buffers:
    """Aligned input arrays of one bucket, filled again for each call. Rows past the batch are zero."""

    arrays: dict[str, Array]
    filled: int = field(default=0)

    @classmethod
    def of(cls, inputs: Sequence[TensorSpec], bucket: int) -> "Buffers":
        return cls({spec.name: aligned(spec.shape(bucket), spec.dtype) for spec in inputs if spec.batched})

    def fill(self, inputs: Given, rows: int) -> None:
        for name, buffer in self.arrays.items():
            given = inputs[name]
            if isinstance(given, Gather):
                given.into(buffer[:rows])
            else:
                buffer[:rows] = given
            if rows < self.filled:
                buffer[rows : self.filled] = 0
        self.filled = rows


class Engine(ABC):
    """Runs one release's graph.

    Guarantees: a row's result does not depend on the other rows, nor on its place, of the same bucket;
    outputs are copies. Inputs beyond the signature are ignored. Call `infer` from one thread at a time. An
    "N" input (the catalogue) is taken over once and recognised by identity, so it must not be changed in
    place: pass a new array.
    """

    name: ClassVar[str]
    precision: str
    target: str
    buckets: tuple[int, ...]

    def __init__(self, signature: Signature, buckets: Sequence[int]) -> None:
        self.signature, self.buckets = signature, checked_buckets(buckets)
        self._buffers = {bucket: Buffers.of(signature.inputs, bucket) for bucket in self.buckets}
        self._batched = tuple(spec for spec in signature.inputs if spec.batched)
        self._shared = tuple(spec for spec in signature.inputs if not spec.batched)
        self._given: dict[str, Array] = {}

    def infer(self, inputs: Given) -> Inference:
        """Raises EngineError for no rows, more than the largest bucket, or another shape or dtype."""
        rows = self._rows(inputs)
        bucket = next(bucket for bucket in self.buckets if bucket >= rows)
        for spec in self._shared:
            self._share(spec, inputs)
        buffers = self._buffers[bucket]
        buffers.fill(inputs, rows)
        outputs = self._run(bucket, buffers.arrays)
        return Inference({name: array[:rows].copy() for name, array in outputs.items()}, bucket)

    def answer(self, rows: int, inputs: Callable[[], Given]) -> Inference:
        """As `infer`, of inputs for so many rows that are made only if the engine reads any."""
        return self.infer(inputs())

    def warm(self, shared: Arrays | None = None) -> None:
        """Runs each bucket once on zeros, with the given catalogue, so that the first call is fast."""
        zeros = {spec.name: np.zeros(spec.shape(max(spec.least, 1)), spec.dtype) for spec in self._shared}
        for bucket in self.buckets:
            rows = {spec.name: np.zeros(spec.shape(bucket), spec.dtype) for spec in self._batched}
            self.infer({**zeros, **(shared or {}), **rows})

    @abstractmethod
    def _run(self, bucket: int, arrays: dict[str, Array]) -> Arrays:
        """Outputs of a whole bucket. They may be views of memory that the next call overwrites."""

    @abstractmethod
    def _take(self, name: str, array: Array) -> None:
        """Takes over an "N" input, contiguous and with enough rows, to use until the next one."""

    @abstractmethod
    def close(self) -> None:
        """Frees what the engine holds. `infer` afterwards raises EngineError. May be called twice."""

    def _rows(self, inputs: Given) -> int:
        rows = -1
        for spec in self._batched:
            array = inputs.get(spec.name)
            if array is None or not spec.fits(array) or rows not in (-1, array.shape[0]):
                raise misfit(spec, array, rows)
            rows = array.shape[0]
        if not 1 <= rows <= self.buckets[-1]:
            raise EngineError(
                f"a batch of {rows} rows",
                where=f"engine {self.name}",
                expected=f"1 to {self.buckets[-1]} rows",
                todo="split the batch, or add a larger bucket to engine.buckets",
            )
        return rows

    def _share(self, spec: TensorSpec, inputs: Given) -> None:
        array = inputs.get(spec.name)
        if array is not None and array is self._given.get(spec.name):
            return
        if array is None or isinstance(array, Gather) or not spec.fits(array):
            raise misfit(spec, array, -1)
        self._take(spec.name, filled_up(spec, array))
        self._given[spec.name] = array


def checked_buckets(buckets: Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(sorted(set(buckets)))
    if not chosen or chosen[0] < 1 or chosen[-1] > MAX_BUCKET:
        raise EngineError(
            f"buckets {list(buckets)} cannot be used",
            where="engine.buckets",
            expected=f"numbers from 1 to {MAX_BUCKET}",
        )
    return chosen


def aligned(shape: tuple[int, ...], dtype: str) -> Array:
    """Zeros whose first byte lies on a multiple of ALIGNMENT."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def filled_up(spec: TensorSpec, array: Array) -> Array:
    """The array, contiguous, with at least `spec.least` rows; it is copied only where it has to be."""
    if array.shape[0] >= spec.least:
        return np.ascontiguousarray(array)
    whole = np.full(spec.shape(spec.least), spec.pad, spec.dtype)
    whole[: array.shape[0]] = array
    return whole


def misfit(spec: TensorSpec, array: Array | Gather | None, rows: int) -> EngineError:
    got = "is missing" if array is None else f"is {array.dtype} {array.shape}"
    first = spec.dims[0] if rows < 0 else rows
    return EngineError(
        f"input {spec.name!r} {got}",
        where="engine.infer",
        expected=f"{spec.dtype} ({', '.join(str(dim) for dim in (first, *spec.dims[1:]))})",
    )
