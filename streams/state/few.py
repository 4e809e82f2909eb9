"""Absorbs a few events one after the other, where array operations cost nearly as much as for twenty.
It takes only the plain case: no user twice, nothing late, no id that may be a repeat, no event of very many lines.

`UserState.absorb` takes every case by array operations; where both can, they do the same.
"""

from struct import Struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.batch import ORDERS, EventBatch
from streams.state.absorbed import Absorbed
from streams.state.columns import COUNTED, ENTRY, FIRST, MARKS, REACHED, SEEN, SUMS, TOTALS, Columns
from streams.state.dedupe import Dedupe
from streams.state.history import Histories, Lines
from streams.state.runs import Ints
from streams.state.tokens import PER_ORDER, Tokens

FEW: Final = 16
"""Most events that go this way. It takes 31 µs for one, 38 for 3, 49 for 8, 81 for 16; the other 62, 66, 72 and 95."""

_KEY: Final = Struct("<qQ")  # an entry's time and id
_LINE: Final = ENTRY.itemsize


class Few:
    """The plain way, over bytes of the same columns."""

    def __init__(self, columns: Columns, dedupe: Dedupe, histories: Histories, tokens: Tokens) -> None:
        self._columns, self._dedupe, self._histories, self._tokens = columns, dedupe, histories, tokens
        view = columns.bytes
        self._entries, self._sums, self._marks = view.entries, view.sums.cast("q"), view.marks.cast("q")
        self._end = columns.end.data

    def absorb(
        self, batch: EventBatch, ids: NDArray[np.uint64], slot: Ints, topic: Ints, number: int
    ) -> Absorbed | None:
        """Events of different users, whose rows `slot` names, as batch `number`. None: it is not the plain case,
        and nothing has changed.
        """
        if self._dedupe.suspect(slot, slot * 3 + topic, ids).any():
            return None
        lines = Lines.of(batch, ids)
        window = self._append(slot, batch.time.tolist(), ids.tolist(), lines)
        if window is None:
            return None
        held = self._columns.sums.take(slot, axis=0)
        cut, second, counted = self._add(batch, held, slot, lines.count.tolist())
        self._dedupe.remember(slot, topic, ids, second, counted, None)
        known = np.zeros((len(slot), PER_ORDER), np.bool_)
        orders = (topic == ORDERS).nonzero()[0]
        if len(orders):
            place, time, offset = slot[orders], batch.time[orders], batch.offset[orders]
            known[orders] = self._tokens.use(place, batch.tokens[orders], time, offset)
        fresh, late = np.ones(len(slot), np.bool_), np.zeros(len(slot), np.bool_)
        return Absorbed(fresh, late, cut, held[:, TOTALS], held[:, FIRST], known, window, number)

    def _append(self, slot: Ints, times: list[int], ids: list[int], lines: Lines) -> Ints | None:
        """Puts the lines behind the histories; the windows before them. None if not all can be: then none is."""
        end_of, entries, ring, length = self._end, self._entries, self._columns.ring, self._columns.shape.history
        rows, counts = slot.tolist(), lines.count.tolist()
        for row, time, hashed, count in zip(rows, times, ids, counts, strict=True):
            newest = _KEY.unpack_from(entries, (row * ring + end_of[row] - 1) * _LINE)
            if newest >= (time, hashed) or count > ring - length:
                return None
        self._histories.make_room(slot, lines.count)
        windows, new, start = [], lines.lines.tobytes(), 0
        for row, count in zip(rows, counts, strict=True):
            end = row * ring + end_of[row]
            entries[end * _LINE : (end + count) * _LINE] = new[start : start + count * _LINE]
            end_of[row] += count
            start += count * _LINE
            windows.append(end - length)
        return np.array(windows)

    def _add(self, batch: EventBatch, held: Ints, slot: Ints, counts: list[int]) -> tuple[Ints, Ints, Ints]:
        """Moves marks and sums (`held`, before) on. Cuts, seconds reached, and ids that were ever remembered before."""
        marks, sums = self._marks, self._sums
        seconds, counted = [], []
        columns = zip(
            *(slot.tolist(), held.tolist(), batch.topic.tolist(), batch.offset.tolist(), batch.time.tolist()),
            *(counts, batch.increments.tolist()),
            strict=True,
        )
        for row, before, topic, offset, time, count, added in columns:
            at = row * MARKS + topic
            if offset > marks[at]:
                marks[at] = offset
            reached = marks[at + REACHED]
            if time > reached:
                marks[at + REACHED] = reached = time
            seconds.append(reached // 1000)
            at = row * SUMS
            for column, more in enumerate(added):
                if more:
                    sums[at + column] = before[column] + more
            sums[at + COUNTED + topic] = before[COUNTED + topic] + 1
            sums[at + SEEN] = before[SEEN] + count
            if not before[FIRST]:  # else it is earlier: nothing here is late
                sums[at + FIRST] = time
            counted.append(before[COUNTED + topic])
        return self._columns.marks.take(slot, axis=0)[:, :REACHED], np.array(seconds), np.array(counted)
