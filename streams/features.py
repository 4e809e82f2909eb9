"""Feature rows: what a score is computed from, as one packed numpy row of ids, counts and scalars.
A row's bytes are what `served` stores; `sequence_inputs` and the tasks' `inputs` are the only way from rows to
engine inputs, in serving and in training, so that what was served is what is trained on.

Shape suffixes: B rows of a batch, L history length, D width of the vector table.
"""

from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from streams.batch import EventBatch
from streams.state import History

Scalar = TypeVar("Scalar", bound=np.generic)

HISTORY_LENGTH = 64
MINOR_UNITS = 10_000  # per unit of currency, as in the contract's decimal(18, 4)

SEQUENCE_FIELDS: list[tuple[str, str] | tuple[str, str, tuple[int]]] = [
    ("item", "<i4", (HISTORY_LENGTH,)),  # catalogue row, 0 unknown
    ("kind", "u1", (HISTORY_LENGTH,)),  # streams.batch.KINDS, 0 padding
    ("age", "<u4", (HISTORY_LENGTH,)),  # whole seconds before the scored event
    ("value", "<f4", (HISTORY_LENGTH,)),  # units of currency
    ("quantity", "<u2", (HISTORY_LENGTH,)),
    ("now_item", "<i4"),  # the scored event itself, as it enters the history after
    ("now_kind", "u1"),
    ("now_value", "<f4"),
    ("now_quantity", "<u2"),
]

SEQUENCE = np.dtype(SEQUENCE_FIELDS)
# Of a token's scalars (gap, value, quantity, real), for all L tokens: four at a time would be a loop of four.
_SCALES_L4 = np.tile(np.array([0.1, 0.2, 1 / 3, 1.0], np.float32), HISTORY_LENGTH)
_MOST_SECONDS, _MOST_PIECES = np.iinfo(np.uint32).max, np.iinfo(np.uint16).max

Rows = NDArray[np.void]


class VectorSource(Protocol):
    """A vector table that is not an array: training's, whose vectors carry gradients."""

    def look_up(self, rows: NDArray[np.int32]) -> Any: ...

    def look_up_mean(self, rows: NDArray[np.int32]) -> Any: ...


Table = NDArray[np.float32] | VectorSource
Inputs = dict[str, NDArray[np.generic]]


def fill_sequence(rows: Rows, history: History, batch: EventBatch, index: NDArray[np.intp]) -> None:
    """Writes the part that all tasks share: the history of each scored event, and the event itself."""
    age_BL = batch.time[index][:, None] - history.time
    age_BL //= 1000
    age_BL *= history.kind > 0
    rows["item"] = history.item
    rows["kind"] = history.kind
    rows["age"] = np.minimum(age_BL, _MOST_SECONDS, out=age_BL)
    rows["value"] = history.value / MINOR_UNITS
    rows["quantity"] = np.minimum(history.quantity, _MOST_PIECES)
    entry = batch.first_entry(index)  # an event's first entry speaks for it
    rows["now_item"] = batch.entry_item[entry]
    rows["now_kind"] = batch.entry_kind[entry]
    rows["now_value"] = batch.entry_value[entry] / MINOR_UNITS
    rows["now_quantity"] = np.minimum(batch.entry_quantity[entry], _MOST_PIECES)


def with_sequences(sequences: Rows, features: np.dtype[np.void]) -> Rows:
    """Rows of a task's dtype that begin with these SEQUENCE rows and are zero after; the same array if nothing is."""
    if features == SEQUENCE:
        return sequences
    rows = np.zeros(len(sequences), features)
    bytes_of(rows)[:, : SEQUENCE.itemsize] = bytes_of(sequences)
    return rows


def bytes_of(rows: Rows) -> NDArray[np.uint8]:
    """Contiguous rows as (B, size of a row)."""
    return rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize)


def sequence_inputs(rows: Rows, table: Table) -> Inputs:
    """Engine inputs of the history and the event itself, which is the last token (the oldest entry gives way).

    history_vectors (B, L, D), history_kinds (B, L) int32, history_scalars (B, L, 4): how long after the token
    before it, value and quantity as scaled log1p, and 1 where the token is real. The scalings are fixed, so that a
    release never depends on a statistic that is not in it. Gaps, not ages, keep a token's inputs the same whichever
    later event is scored, which is what lets training use every position of one causal pass.
    """
    kind_BL = _with_now(rows["kind"], rows["now_kind"], np.int32)
    real_BL = kind_BL > 0
    age_BL = _with_now(rows["age"], 0, np.float32)
    gap_BL = age_BL[:, :-1] - age_BL[:, 1:]
    np.maximum(gap_BL, 0, out=gap_BL)
    # The columns are written in place and scaled together: log1p of all costs less than one more array operation.
    scalars = np.zeros((*kind_BL.shape, 4), np.float32)
    np.multiply(gap_BL, real_BL[:, :-1], out=scalars[:, 1:, 0])
    _put_with_now(scalars[..., 1], rows["value"], rows["now_value"])
    _put_with_now(scalars[..., 2], rows["quantity"], rows["now_quantity"])
    np.log1p(scalars, out=scalars)
    flat = scalars.reshape(len(rows), -1)
    flat *= _SCALES_L4
    scalars[..., 3] = real_BL
    return {
        "history_vectors": look_up(table, _with_now(rows["item"], rows["now_item"], np.int32)),
        "history_kinds": kind_BL,
        "history_scalars": scalars,
    }


def sequence_items(rows: Rows) -> NDArray[np.int32]:
    """(B, L) the catalogue rows of `sequence_inputs`'s tokens, 0 for none; some may be newer than the table."""
    return _with_now(rows["item"], rows["now_item"], np.int32)


def _with_now(history_BL: NDArray[Any], now_B: NDArray[Any] | int, dtype: type[Scalar]) -> NDArray[Scalar]:
    sequence = np.empty(history_BL.shape, dtype)
    _put_with_now(sequence, history_BL, now_B)
    return sequence


def _put_with_now(target_BL: NDArray[Any], history_BL: NDArray[Any], now_B: NDArray[Any] | int) -> None:
    target_BL[:, :-1] = history_BL[:, 1:]
    target_BL[:, -1] = now_B


def look_up(table: Table, rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """Vectors of catalogue rows; a row newer than the table reads as unknown (row 0, all zero)."""
    if not isinstance(table, np.ndarray):
        vectors: NDArray[np.float32] = table.look_up(rows)
        return vectors
    return table.take(known_rows(table, rows), axis=0)


def known_rows(table: NDArray[np.float32], rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """The rows, 0 for those that the table does not have yet."""
    return np.where(rows < len(table), rows, np.int32(0)) if rows.size and rows.max() >= len(table) else rows


def look_up_mean(table: Table, rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """(B, n) catalogue rows to the mean vector of the known ones (B, D); zero where none is known."""
    if not isinstance(table, np.ndarray):
        means: NDArray[np.float32] = table.look_up_mean(rows)
        return means
    known = np.maximum((rows > 0).sum(axis=1, keepdims=True), 1).astype(np.float32)
    mean: NDArray[np.float32] = look_up(table, rows).sum(axis=1) / known
    return mean


def pack(rows: Rows) -> list[bytes]:
    """Each row's bytes, little endian, in the order of its dtype: the `features` of `served`."""
    size, data = rows.dtype.itemsize, rows.tobytes()
    return [data[start : start + size] for start in range(0, len(data), size)]


def unpack(packed: list[bytes], dtype: np.dtype[np.void]) -> Rows:
    """The inverse of `pack`."""
    return np.frombuffer(b"".join(packed), dtype=dtype)
