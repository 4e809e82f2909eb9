"""Histories: the newest entries of each user by (event_time, event id), and what of them each event may see.
Events in order are appended for the whole batch at once; a user with a late event, or with more than fits,
goes through a scratch area. An event sees what was absorbed before it and is older than it, nothing else.

A window is `history` consecutive lines, zeros on the left where a user has fewer. It is named by the line
that it starts at: in the rows if 0 or more, in the scratch if below 0 (there at -1 - name), which begins with
a zero window.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.batch import EventBatch
from streams.state.columns import ENTRY, LINE, Columns, windows_of
from streams.state.runs import Flags, Ints, Runs

NOTHING: Final = -1  # the window without entries
_ADDED: Final = ("clicks", "orders", "impressions", "amount", "units")  # as batch.INCREMENTS


@dataclass(frozen=True, slots=True)
class History:
    """B windows of L entries, oldest first, the newest at L - 1; kind 0 and all zero where there is none."""

    entries: NDArray[np.void]  # (B, L) ENTRY

    @property
    def item(self) -> NDArray[np.int32]:
        """(B, L) catalogue row."""
        return self.entries["item"]

    @property
    def kind(self) -> NDArray[np.uint8]:
        """(B, L) a number of batch.KINDS."""
        return self.entries["kind"]

    @property
    def time(self) -> NDArray[np.int64]:
        """(B, L) event_time, ms."""
        return self.entries["time"]

    @property
    def value(self) -> NDArray[np.int64]:
        """(B, L) minor units."""
        return self.entries["value"]

    @property
    def quantity(self) -> NDArray[np.int32]:
        """(B, L)"""
        return self.entries["quantity"]


@dataclass(slots=True)
class Lines:
    """A batch's entries as they will be stored, in the batch's order, and where each event's are."""

    lines: NDArray[np.void]  # (M,) ENTRY
    first: Ints  # (N,)
    count: Ints  # (N,)
    event: NDArray[np.int32]  # (M,)

    @classmethod
    def of(cls, batch: EventBatch, ids: NDArray[np.uint64]) -> "Lines":
        event, total = batch.entry_event, len(batch.entry_event)
        lines = np.empty(total, ENTRY)
        if total == len(batch):  # one entry an event
            first = np.arange(total)
            count = np.ones(total, np.int64)
            last = first
            lines["time"], lines["id"] = batch.time, ids
            for number, name in enumerate(_ADDED):
                lines[name] = batch.increments[:, number]
        else:
            count = np.bincount(event, minlength=len(batch))
            last = count.cumsum() - 1
            first = last + 1 - count
            lines["time"], lines["id"] = batch.time[event], ids[event]
            for number, name in enumerate(_ADDED):
                column = lines[name]
                column[:] = 0
                column[last] = batch.increments[:, number]
        lines["kind"], lines["item"] = batch.entry_kind, batch.entry_item
        lines["value"], lines["quantity"] = batch.entry_value, batch.entry_quantity
        return cls(lines, first, count, event)


@dataclass(slots=True)
class Appended:
    """Per event, in processing order: its window, if it was late, what later events had added by then."""

    window: Ints
    late: Flags
    later: dict[int, list[int]]  # event -> five sums; late events only


@dataclass(slots=True)
class _Sequence:
    """Events in processing order; `event` are their places in the batch."""

    slot: Ints
    time: Ints
    ids: NDArray[np.uint64]
    event: NDArray[np.intp]
    lines: Lines


class Histories:
    """The histories of all rows of `columns`."""

    def __init__(self, columns: Columns) -> None:
        self._columns, self._length = columns, columns.shape.history
        self._raw = columns.entries.view(LINE)
        self._time, self._id = columns.entries["time"], columns.entries["id"]
        self._windows = columns.windows()
        self._scratch = np.zeros(4 * self._length, ENTRY)
        self._used = self._length

    def append(
        self,
        slot: Ints,
        runs: Runs,
        time: Ints,
        ids: NDArray[np.uint64],
        event: NDArray[np.intp],
        lines: Lines,
    ) -> Appended:
        """Absorbs entries of fresh events, given in processing order. Windows hold until the next append."""
        self._used = self._length
        columns, ring, length = self._columns, self._columns.ring, self._length
        count = lines.count[event]
        start = slot * ring + columns.end[slot]
        newest_time = runs.previous(time, self._time[start - 1])
        newest_id = runs.previous(ids, self._id[start - 1])
        in_order = (time > newest_time) | ((time == newest_time) & (ids > newest_id))
        total = runs.total(count)
        simple = runs.every(in_order) & (total <= ring - length)
        if self.make_room(runs.heads(slot)[simple], total[simple]):
            start = slot * ring + columns.end[slot]
        target = start + runs.earlier_sum(count)
        appended = Appended(target - length, ~in_order, {})
        if simple.all():
            self._write(event, target, lines)
            columns.end[runs.heads(slot)] += total
        else:
            here = runs.spread(simple)
            self._write(event[here], target[here], lines)
            columns.end[runs.heads(slot)[simple]] += total[simple]
            sequence = _Sequence(slot, time, ids, event, lines)
            self._one_by_one(sequence, runs, (~simple).nonzero()[0], appended)
        return appended

    def make_room(self, slot: Ints, total: Ints) -> bool:
        """Moves histories to the front of their ring where `total` new lines would not fit behind."""
        columns, length = self._columns, self._length
        full = slot[columns.end[slot] + total > columns.ring]
        if not len(full):
            return False
        rows = self._raw.reshape(-1, columns.ring)
        moved = self._windows[full * columns.ring + columns.end[full] - length]
        rows[full, :length] = moved.view(LINE).reshape(-1, length)
        columns.end[full] = length
        return True

    def _write(self, event: NDArray[np.intp], target: Ints, lines: Lines) -> None:
        """Puts the lines of events at their places in the rows."""
        raw = lines.lines.view(LINE)
        if len(event) == len(lines.lines):  # every event of the batch, one line each
            self._raw[target] = raw[event]
            return
        place = np.full(len(lines.first), -1, np.int64)
        place[event] = target
        at = place[lines.event]
        if len(event) < len(lines.first):
            kept = (at >= 0).nonzero()[0]
            self._raw[at[kept] + kept - lines.first[lines.event[kept]]] = raw[kept]
        else:
            self._raw[at + np.arange(len(at)) - lines.first[lines.event]] = raw

    def _one_by_one(self, sequence: _Sequence, runs: Runs, which: NDArray[np.intp], appended: Appended) -> None:
        """Users whose events cannot be appended blindly: late ones, or more than fits their ring."""
        for number in which.tolist():
            first, last = (number, number) if runs.single else (int(runs.head[number]), int(runs.tail[number]))
            part = slice(first, last + 1)
            self._reserve(sequence, part)
            if appended.late[part].any():
                top = self._insert(sequence, part, appended)
            else:
                top = self._extend(sequence, part, appended)
            slot, length = int(sequence.slot[first]), self._length
            start = slot * self._columns.ring
            self._raw[start : start + length] = self._scratch.view(LINE)[top - length : top]
            self._columns.end[slot] = length
            self._used = top

    def _reserve(self, sequence: _Sequence, part: slice) -> None:
        """Makes the scratch large enough for a user's events, and begins it with the user's history."""
        lines = int(sequence.lines.count[sequence.event[part]].sum())
        needed = self._used + self._length * (1 + 2 * (part.stop - part.start)) + lines
        if needed > len(self._scratch):
            grown = np.empty(2 * needed, ENTRY)
            grown.view(LINE)[: self._used] = self._scratch.view(LINE)[: self._used]
            self._scratch = grown
        slot = int(sequence.slot[part.start])
        end = slot * self._columns.ring + int(self._columns.end[slot])
        raw = self._scratch.view(LINE)
        raw[self._used : self._used + self._length] = self._raw[end - self._length : end]

    def _extend(self, sequence: _Sequence, part: slice, appended: Appended) -> int:
        """Appends a user's events in order; returns where the history ends in the scratch."""
        lines, event = sequence.lines, sequence.event[part]
        count = lines.count[event]
        before = count.cumsum() - count
        appended.window[part] = -1 - (self._used + before)
        total = int(count.sum())
        source = np.arange(total) + np.repeat(lines.first[event] - before, count)
        start = self._used + self._length
        self._scratch.view(LINE)[start : start + total] = lines.lines.view(LINE)[source]
        return start + total

    def _insert(self, sequence: _Sequence, part: slice, appended: Appended) -> int:
        """Absorbs a user's events of which some are late; returns where the history ends in the scratch.

        A late event gets a window of its own; behind it the history goes on, copied, with the event in place.
        """
        length, raw = self._length, self._scratch.view(LINE)
        source, lines = sequence.lines.lines.view(LINE), sequence.lines
        top = self._used + length
        keys = self._keys(self._used)
        events = sequence.event[part]
        for number, time, hashed, first, count in zip(
            range(part.start, part.stop),
            sequence.time[part].tolist(),
            sequence.ids[part].tolist(),
            lines.first[events].tolist(),
            lines.count[events].tolist(),
            strict=True,
        ):
            key = (time, hashed)
            new = source[first : first + count]
            late = key <= keys[-1]
            appended.late[number] = late
            if not late:
                appended.window[number] = length - top - 1
                raw[top : top + count] = new
                top += count
                keys += [key] * count
                continue
            keys = keys[-length:]
            older = bisect_left(keys, key)
            history = raw[top - length : top]
            appended.later[number] = self._added(top - length + older, top)
            appended.window[number] = -1 - top
            raw[top : top + length - older] = raw[: length - older]
            raw[top + length - older : top + length] = history[:older]
            place = top + length + older
            raw[top + length : place] = history[:older]
            raw[place : place + count] = new
            raw[place + count : place + count + length - older] = history[older:]
            top += 2 * length + count
            keys[older:older] = [key] * count
        return top

    def _keys(self, start: int) -> list[tuple[int, int]]:
        """(time, id) of a window in the scratch."""
        part = self._scratch[start : start + self._length]
        return list(zip(part["time"].tolist(), part["id"].tolist(), strict=True))

    def _added(self, start: int, stop: int) -> list[int]:
        """What the events in a stretch of the scratch added to the totals."""
        part = self._scratch[start:stop]
        return [sum(part[name].tolist()) for name in _ADDED]

    def gather(self, window: Ints) -> History:
        """The windows named, as a copy."""
        if len(window) and window.min() < 0:
            lines = np.empty(len(window), self._windows.dtype)
            scratch = window < 0
            lines[scratch] = windows_of(self._scratch, self._length)[-1 - window[scratch]]
            lines[~scratch] = self._windows[window[~scratch]]
        else:
            lines = self._windows[window]
        return History(lines.view(ENTRY).reshape(-1, self._length))
