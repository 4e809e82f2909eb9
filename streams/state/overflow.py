"""Event ids of heavy users: those that have left the ring of a user and topic but must still be remembered.
First a page, a wider ring that array operations reach; what leaves the page goes to a queue of its own.

A stream is `row * 3 + topic`. The ids of a stream are numbered as they come; here are those before number
`end`, where its ring begins, without a gap. Times never fall, so what is too old is always at the front.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Ids = NDArray[np.uint64]
Seconds = NDArray[np.uint32]

_NONE: Final = 0  # the page that no stream has


class Queue:
    """Ids of one stream in two growing arrays, 12 bytes an id: a search compares all. Oldest first."""

    __slots__ = ("_ids", "_seconds", "_start", "_stop")

    def __init__(self, ids: Ids, seconds: Seconds) -> None:
        self._ids, self._seconds, self._start, self._stop = ids, seconds, 0, len(ids)

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def ids(self) -> Ids:
        return self._ids[self._start : self._stop]

    @property
    def seconds(self) -> Seconds:
        return self._seconds[self._start : self._stop]

    def push(self, hashed: np.uint64, second: np.uint32) -> None:
        if self._stop == len(self._ids):
            count = len(self)
            ids, seconds = np.empty(2 * count + 64, np.uint64), np.empty(2 * count + 64, np.uint32)
            ids[:count], seconds[:count] = self.ids, self.seconds
            self._ids, self._seconds, self._start, self._stop = ids, seconds, 0, count
        self._ids[self._stop] = hashed
        self._seconds[self._stop] = second
        self._stop += 1

    def trim(self, floor: int, room: int) -> int:
        """Forgets ids of before second `floor`, then the oldest beyond `room`; returns how many of those."""
        while self._start < self._stop and self._seconds[self._start] < floor:
            self._start += 1
        evicted = max(0, len(self) - room)
        self._start += evicted
        return evicted


@dataclass
class Overflow:
    """Pages and queues of the streams of `rows` rows. Page memory is touched when a stream first needs it."""

    width: int
    page: NDArray[np.int32]  # (rows * 3,) the stream's page, 0 where it has none
    ids: Ids  # (pages, width)
    seconds: Seconds  # (pages, width)
    first: Ints  # (pages,) number of the first id that was put on the page
    unused: int = _NONE + 1  # this page and those after it were never used
    free: list[int] = field(default_factory=list)  # used before
    queues: dict[int, Queue] = field(default_factory=dict)

    @classmethod
    def empty(cls, rows: int, width: int) -> "Overflow":
        pages = rows + 1
        return cls(
            width,
            np.zeros(rows * 3, np.int32),
            np.zeros((pages, width), np.uint64),
            np.zeros((pages, width), np.uint32),
            np.zeros(pages, np.int64),
        )

    @property
    def used(self) -> bool:
        return self.unused - len(self.free) > _NONE + 1

    def holds(self, stream: Ints, ids: Ids) -> NDArray[np.bool_]:
        """Per event, whether its id is here, too old or not."""
        found = np.zeros(len(stream), np.bool_)
        heavy = self.page[stream].nonzero()[0]
        if len(heavy):
            pages = self.ids.take(self.page[stream[heavy]], axis=0)
            found[heavy] = (pages == ids[heavy, None]).any(axis=1)
            if self.queues:
                for number in heavy.tolist():
                    if (queue := self.queues.get(int(stream[number]))) is not None:
                        found[number] |= (queue.ids == ids[number]).any()
        return found

    def find(self, stream: int, hashed: int, end: int) -> tuple[int, int] | None:
        """Number and second of the newest such id of a stream; None if there is none."""
        page = int(self.page[stream])
        if page == _NONE:
            return None
        found = np.flatnonzero(self.ids[page] == np.uint64(hashed))
        if len(found):
            numbers = end - 1 - (end - 1 - found) % self.width
            newest = int(numbers.argmax())
            if numbers[newest] >= self.first[page]:
                return int(numbers[newest]), int(self.seconds[page, found[newest]])
        ids, seconds = self.all(stream, end)
        place = np.flatnonzero(ids == np.uint64(hashed))
        return (end - len(ids) + int(place[-1]), int(seconds[place[-1]])) if len(place) else None

    def push(self, stream: Ints, number: Ints, ids: Ids, seconds: Seconds, floor: Ints) -> None:
        """Takes ids that leave their rings, in order; ids of before second `floor` need not be kept.

        At most `width` of a stream at once.
        """
        page = self.page[stream]
        new = ((page == _NONE) & (seconds >= floor)).nonzero()[0]
        if len(new):
            for key, start in zip(stream[new].tolist(), number[new].tolist(), strict=True):
                if self.page[key] == _NONE:
                    self._open(key, start)
            page = self.page[stream]
        kept = page.nonzero()[0]
        if not len(kept):  # what most users send in a day fits their rings
            return
        page, number, floor = page[kept], number[kept], floor[kept]
        at = page * np.int64(self.width) + number % self.width
        flat_ids, flat_seconds = self.ids.reshape(-1), self.seconds.reshape(-1)
        leaving = (number - self.width >= self.first[page]) & (flat_seconds[at] >= floor)
        for place in leaving.nonzero()[0].tolist():
            key = int(stream[kept[place]])
            if key not in self.queues:
                self.queues[key] = Queue(np.empty(0, np.uint64), np.empty(0, np.uint32))
            self.queues[key].push(flat_ids[at[place]], flat_seconds[at[place]])
        flat_ids[at], flat_seconds[at] = ids[kept], seconds[kept]

    def _open(self, stream: int, start: int) -> int:
        """A page for a stream that has none, whose first id will be number `start`."""
        if self.free:
            page = self.free.pop()
        else:
            if self.unused == len(self.first):
                self._grow()
            page = self.unused
            self.unused += 1
        self.page[stream] = page
        self.first[page] = start
        return page

    def _grow(self) -> None:
        """More pages: users with several heavy topics have taken more than one each."""
        count = len(self.first)
        for name in ("ids", "seconds", "first"):
            old = getattr(self, name)
            grown = np.zeros((2 * count, *old.shape[1:]), old.dtype)
            grown[:count] = old
            setattr(self, name, grown)

    def trim(self, stream: Ints, floor: Ints, room: Ints) -> int:
        """Trims the queues of streams (see Queue.trim); returns how many ids had to go for want of room."""
        evicted = 0
        if self.queues:
            for key, oldest, most in zip(stream.tolist(), floor.tolist(), room.tolist(), strict=True):
                if (queue := self.queues.get(key)) is not None:
                    evicted += queue.trim(oldest, most)
                    if not len(queue):
                        del self.queues[key]
        return evicted

    def all(self, stream: int, end: int) -> tuple[Ids, Seconds]:
        """Ids and seconds of a stream, oldest first, the last one number `end` - 1."""
        page = int(self.page[stream])
        if page == _NONE:
            return self.ids[_NONE, :0], self.seconds[_NONE, :0]
        start = max(int(self.first[page]), end - self.width)
        ids, seconds = self._span(self.ids[page], start, end), self._span(self.seconds[page], start, end)
        queue = self.queues.get(stream)
        if queue is None:
            return ids, seconds
        return np.concatenate([queue.ids, ids]), np.concatenate([queue.seconds, seconds])

    def _span(self, ring: NDArray[Any], start: int, end: int) -> NDArray[Any]:
        """Numbers `start` to `end` of a page's ring, at most all of it."""
        first, last = start % self.width, end % self.width
        if start == end or first < last:
            return ring[first:last]
        return np.concatenate([ring[first:], ring[:last]])

    def restore(self, stream: int, end: int, ids: Ids, seconds: Seconds) -> None:
        """The inverse of `all`, for a stream without any."""
        beyond = max(0, len(ids) - self.width)
        start = end - len(ids) + beyond
        page = self._open(stream, start)
        self._put(self.ids[page], start, ids[beyond:])
        self._put(self.seconds[page], start, seconds[beyond:])
        if beyond:
            self.queues[stream] = Queue(ids[:beyond].copy(), seconds[:beyond].copy())

    def _put(self, ring: NDArray[Any], start: int, values: NDArray[Any]) -> None:
        first = start % self.width
        until = self.width - first
        ring[first : first + len(values)] = values[:until]
        ring[: max(0, len(values) - until)] = values[until:]

    def release(self, rows: Ints) -> None:
        """Forgets all of these rows."""
        if not self.used:
            return
        streams = (rows[:, None] * 3 + np.arange(3)).reshape(-1)
        heavy = streams[self.page[streams] > 0]
        for key in heavy.tolist():
            self.queues.pop(key, None)
        self.free += self.page[heavy].tolist()
        self.page[heavy] = _NONE

    def copy(self, rows: Ints) -> "Overflow":
        """Copies of what these rows have, as rows 0, 1 and so on."""
        streams = (rows[:, None] * 3 + np.arange(3)).reshape(-1)
        page = self.page[streams]
        heavy = page.nonzero()[0]
        pages = np.concatenate([[_NONE], page[heavy]])
        own = np.zeros(len(streams), np.int32)
        own[heavy] = np.arange(1, len(pages))
        first = self.first[pages]
        copied = Overflow(self.width, own, self.ids[pages], self.seconds[pages], first, len(first))
        if self.queues:
            for number, key in zip(heavy.tolist(), streams[heavy].tolist(), strict=True):
                if (queue := self.queues.get(key)) is not None:
                    copied.queues[number] = Queue(queue.ids.copy(), queue.seconds.copy())
        return copied
