"""The columns of user state: fixed arrays in which a user is a row.
What is valid in a row is a function of the absorbed events alone, not of how they were batched.

A row takes, with the default shape (history 64, ring 128, ids 64, tokens 20, page 256):
    entries  128 x 48 B  6,144     the history and room to append
    ids       64 x 12 B    768     event ids for dedupe, and their times
    tokens    20 x 24 B    480
    sums, marks, the rest  170     and about 200 more of Python's for the name
together 7.7 KB, so 65,536 rows take 0.5 GB when all are in use; 3 KB more for each topic on which a user has
sent more in a day than the ids' ring holds. The arrays are zero pages until a row is first used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from schemas.errors import SettingsError
from streams.state.overflow import Overflow

# One line of a history. What an event adds to the totals (amount to impressions) stands on its last line.
ENTRY: Final = np.dtype(
    [
        ("time", "<i8"),
        ("id", "<u8"),
        ("value", "<i8"),
        ("amount", "<i8"),
        ("item", "<i4"),
        ("quantity", "<i4"),
        ("units", "<i4"),
        ("kind", "u1"),
        ("clicks", "u1"),
        ("orders", "u1"),
        ("impressions", "u1"),
    ]
)
LINE: Final = np.dtype(f"V{ENTRY.itemsize}")  # the same bytes without fields: numpy moves them much faster

# Columns of `sums` (integer sums, and one minimum) and of `marks` (maxima), each int64.
TOTALS: Final = slice(0, 5)
COUNTED: Final = 5  # and two more: ids ever remembered, per topic; the next one's place in its ring follows from it
SEEN: Final = 8  # entries ever absorbed
FIRST: Final = 9  # event_time of the user's first event, 0 if none
SUMS: Final = 10
REACHED: Final = 3  # marks: newest offset per topic, then the greatest event_time per topic; -1 if none
MARKS: Final = 6


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is kept per user. Rows packed with another `ids`, or with more of the rest, cannot be read."""

    history: int = 64
    """Newest entries that features see."""
    ring: int = 128
    """Places for entries: the history and what can be appended before it is moved to the front again."""
    ids: int = 64
    """Newest event ids: half of the places for clicks, a quarter each for orders and impressions."""
    tokens: int = 20
    """Hashes of cards, devices, addresses, emails and ips."""
    page: int = 256
    """More event ids of a user and topic that array operations reach, where a day holds more than `ids`."""

    def __post_init__(self) -> None:
        if not (self.history >= 1 and self.ring > self.history and self.ids >= 4 and self.ids % 4 == 0):
            raise SettingsError(
                f"state of {self}", expected="history >= 1, ring > history, ids a multiple of 4 and >= 4"
            )
        if self.page < self.ids // 2:
            raise SettingsError(f"state with a page of {self.page} ids", expected=f"{self.ids // 2} or more")
        if not 5 <= self.tokens <= 255:
            raise SettingsError(f"state with {self.tokens} tokens", expected="5 (an order's) to 255")

    @property
    def id_rings(self) -> tuple[tuple[int, int], ...]:
        """(first place, places) of each topic's ids."""
        half, quarter = self.ids // 2, self.ids // 4
        return (0, half), (half, quarter), (half + quarter, quarter)


@dataclass(slots=True)
class Bytes:
    """Byte views of the arrays: slicing these costs a tenth of indexing those."""

    sums: memoryview
    marks: memoryview
    entries: memoryview
    ids: memoryview
    seconds: memoryview
    token_hash: memoryview
    token_first: memoryview
    token_stamp: memoryview


@dataclass
class Columns:
    """n rows. `ring` may differ from the shape's: a copy holds histories only."""

    shape: Shape
    ring: int
    sums: NDArray[np.int64]  # (n, SUMS)
    marks: NDArray[np.int64]  # (n, MARKS)
    partition: NDArray[np.int32]  # (n,)
    end: NDArray[np.int64]  # (n,) where the history ends in the row's ring
    entries: NDArray[np.void]  # (n * ring,) ENTRY; the history is [end - history, end), zeros where it is short
    ids: NDArray[np.uint64]  # (n, shape.ids) event ids as rings, one per topic
    seconds: NDArray[np.uint32]  # (n, shape.ids) how far the topic's event time had come at each id
    token_hash: NDArray[np.uint64]  # (n, shape.tokens) 0 where none
    token_first: NDArray[np.int64]  # event_time of the first use
    token_stamp: NDArray[np.int64]  # grows with every use; 0 where none
    overflow: Overflow  # ids that have left the rings of `ids`

    @classmethod
    def empty(cls, rows: int, shape: Shape) -> Self:
        """All zero: a row must be reset before use."""
        ids, tokens = (rows, shape.ids), (rows, shape.tokens)
        return cls(
            shape,
            shape.ring,
            np.zeros((rows, SUMS), np.int64),
            np.zeros((rows, MARKS), np.int64),
            np.zeros(rows, np.int32),
            np.zeros(rows, np.int64),
            np.zeros(rows * shape.ring, ENTRY),
            np.zeros(ids, np.uint64),
            np.zeros(ids, np.uint32),
            np.zeros(tokens, np.uint64),
            np.zeros(tokens, np.int64),
            np.zeros(tokens, np.int64),
            Overflow.empty(rows, shape.page),
        )

    def windows(self) -> NDArray[np.void]:
        """Overlapping views of `history` lines each, one starting at every line."""
        return windows_of(self.entries, self.shape.history)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Makes rows those of users without events. (Of `ids` only as many count as `sums` says.)"""
        self.sums[rows] = 0
        self.marks[rows] = -1
        self.end[rows] = self.shape.history
        lines = self.entries.view(np.uint64).reshape(len(self.end), -1)
        lines[rows, : self.shape.history * ENTRY.itemsize // 8] = 0
        self.token_hash[rows] = 0
        self.token_stamp[rows] = 0
        self.overflow.release(rows)

    def erase(self, row: int) -> None:
        """Nothing of its user is left in its places, also what no longer counts. It must be reset before use."""
        self.entries[row * self.ring : (row + 1) * self.ring] = np.zeros((), ENTRY)
        of_tokens = self.token_hash, self.token_first, self.token_stamp
        for column in (self.sums, self.marks, self.ids, self.seconds, *of_tokens):
            column[row] = 0
        self.overflow.release(np.array([row]))

    def copy(self, rows: NDArray[np.int64]) -> "Columns":
        """Copies of rows, in the order given, with their histories only."""
        history = self.shape.history
        starts = rows * self.ring + self.end[rows] - history
        return Columns(
            self.shape,
            history,
            self.sums[rows],
            self.marks[rows],
            self.partition[rows],
            np.full(len(rows), history, np.int64),
            self.windows()[starts].view(ENTRY),
            self.ids[rows],
            self.seconds[rows],
            self.token_hash[rows],
            self.token_first[rows],
            self.token_stamp[rows],
            self.overflow.copy(rows),
        )

    @cached_property
    def rings(self) -> tuple[tuple[int, int], ...]:
        """Shape.id_rings, kept at hand."""
        return self.shape.id_rings

    @cached_property
    def bytes(self) -> Bytes:
        arrays: Sequence[NDArray[Any]] = (
            *(self.sums, self.marks, self.entries, self.ids, self.seconds),
            *(self.token_hash, self.token_first, self.token_stamp),
        )
        return Bytes(*(array.reshape(-1).view(np.uint8).data for array in arrays))


def windows_of(lines: NDArray[np.void], length: int) -> NDArray[np.void]:
    """Overlapping views of `length` lines each, one starting at every line of a contiguous array."""
    count, size = len(lines) - length + 1, ENTRY.itemsize
    return np.ndarray((count,), f"V{length * size}", buffer=lines.data, strides=(size,))
