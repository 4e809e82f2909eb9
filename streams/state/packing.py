"""The packed form of a row: what is valid of it and nothing else, so that equal bytes mean equal state.
Little-endian copies of the arrays, behind a head whose first byte is the format.

    head      format, tokens, entries, id places, partition, ids in the overflow by topic       22 bytes
    numbers   sums and marks, int64                                                              128
    entries   oldest first                                                                       48 each
    ids       per topic: ids in the order of their ring, then their seconds                      12 each
    tokens    hashes, first uses, stamps                                                         24 each
    overflow  per topic: ids oldest first, then their seconds                                    12 each

About 2 KB for a user with 20 events.
"""

import struct
import sys
from typing import Final

import numpy as np

from schemas.errors import StateError
from streams.state.columns import COUNTED, ENTRY, MARKS, SEEN, SUMS, Columns

HORIZON_S: Final = 86_400  # how long an event id is remembered at least, in event time

FORMAT: Final = 1
_HEAD: Final = struct.Struct("<BBHHi3I")
_COUNTED: Final = struct.Struct("<3q")
_FIXED: Final = _HEAD.size + (SUMS + MARKS) * 8
_LINE, _TOKEN, _ID = ENTRY.itemsize, 24, 12

assert sys.byteorder == "little", "packed rows are copies of the arrays"


def pack(columns: Columns, row: int) -> bytes:
    """The row's packed form."""
    view, shape = columns.bytes, columns.shape
    sums = columns.sums[row].tolist()
    lines = min(sums[SEEN], shape.history)
    tokens = int(np.count_nonzero(columns.token_stamp[row]))
    lengths, beyond = [0, 0, 0], list[bytes]()
    if columns.overflow.used and columns.overflow.page[row * 3 : row * 3 + 3].any():
        lengths, beyond = _beyond(columns, row, sums)
    end = (row * columns.ring + int(columns.end[row])) * _LINE
    pieces: list[bytes | memoryview] = [
        _HEAD.pack(FORMAT, tokens, lines, shape.ids, int(columns.partition[row]), *lengths),
        view.sums[row * SUMS * 8 : (row + 1) * SUMS * 8],
        view.marks[row * MARKS * 8 : (row + 1) * MARKS * 8],
        view.entries[end - lines * _LINE : end],
    ]
    for topic, (first, places) in enumerate(columns.rings):
        if count := min(sums[COUNTED + topic], places):
            start = row * shape.ids + first
            pieces.append(view.ids[start * 8 : (start + count) * 8])
            pieces.append(view.seconds[start * 4 : (start + count) * 4])
    if tokens:
        span = slice(row * shape.tokens * 8, (row * shape.tokens + tokens) * 8)
        pieces += (view.token_hash[span], view.token_first[span], view.token_stamp[span])
    return b"".join([*pieces, *beyond])


def _beyond(columns: Columns, row: int, sums: list[int]) -> tuple[list[int], list[bytes]]:
    """Counts by topic, and pieces, of the overflowing ids that are not too old for the topic's newest."""
    lengths, pieces = [0, 0, 0], []
    for topic, (first, places) in enumerate(columns.rings):
        if columns.overflow.page[row * 3 + topic]:
            counted = sums[COUNTED + topic]
            ids, seconds = columns.overflow.all(row * 3 + topic, counted - places)
            newest = int(columns.seconds[row, first + (counted - 1) % places])
            kept = int(seconds.searchsorted(newest - HORIZON_S))
            pieces += [ids[kept:].tobytes(), seconds[kept:].tobytes()]
            lengths[topic] = len(ids) - kept
    return lengths, pieces


def unpack(columns: Columns, row: int, packed: bytes) -> None:
    """Fills a row that was reset. StateError if `packed` is no row of this shape: the row is as it was."""
    tokens, lines, partition, lengths, counted = _head(columns, packed)
    view, shape, rest = columns.bytes, columns.shape, memoryview(packed)
    at = _HEAD.size

    def move(target: memoryview, start: int, size: int) -> None:
        nonlocal at
        target[start : start + size] = rest[at : at + size]
        at += size

    columns.partition[row] = partition
    move(view.sums, row * SUMS * 8, SUMS * 8)
    move(view.marks, row * MARKS * 8, MARKS * 8)
    move(view.entries, (row * columns.ring + shape.history - lines) * _LINE, lines * _LINE)
    for topic, (first, places) in enumerate(columns.rings):
        if count := min(counted[topic], places):
            start = row * shape.ids + first
            move(view.ids, start * 8, count * 8)
            move(view.seconds, start * 4, count * 4)
    if tokens:
        start, size = row * shape.tokens * 8, tokens * 8
        move(view.token_hash, start, size)
        move(view.token_first, start, size)
        move(view.token_stamp, start, size)
    for topic, length in enumerate(lengths):
        if length:
            ids = np.frombuffer(packed, np.uint64, length, at)
            seconds = np.frombuffer(packed, np.uint32, length, at + 8 * length)
            columns.overflow.restore(row * 3 + topic, counted[topic] - columns.rings[topic][1], ids, seconds)
            at += length * _ID


Counts = tuple[int, int, int]


def _head(columns: Columns, packed: bytes) -> tuple[int, int, int, Counts, Counts]:
    """Tokens, lines, partition, ids in the overflow and ids counted, checked against shape and length."""
    shape = columns.shape
    if len(packed) < _FIXED or packed[0] != FORMAT:
        raise _unreadable(f"format {packed[0] if packed else 'none'}, {len(packed)} bytes")
    _, tokens, lines, ids, partition, first, second, third = _HEAD.unpack_from(packed)
    counted: Counts = _COUNTED.unpack_from(packed, _HEAD.size + COUNTED * 8)
    if ids != shape.ids or lines > shape.history or tokens > shape.tokens or min(counted) < 0:
        raise _unreadable(f"{lines} entries, {ids} id places, {tokens} tokens where the state is of {shape}")
    held = first + second + third
    for count, (_, places) in zip(counted, columns.rings, strict=True):
        held += min(count, places)
    size = _FIXED + lines * _LINE + tokens * _TOKEN + held * _ID
    if len(packed) != size:
        raise _unreadable(f"{len(packed)} bytes where its head says {size}")
    return tokens, lines, partition, (first, second, third), counted


def packed_partition(packed: bytes) -> int:
    """The partition that a packed row names."""
    return int(_HEAD.unpack_from(packed)[4])


def _unreadable(what: str) -> StateError:
    return StateError(
        f"a packed user row that cannot be read: {what}",
        expected=f"format {FORMAT}, of the shape it was written with",
        todo="start the version of headrace that wrote it, or rebuild the state from the input topics",
    )
