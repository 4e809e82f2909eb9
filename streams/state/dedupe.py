"""An event counts once: recognises event ids that a user has already sent on the same topic.
The newest ids of a topic are remembered as long as its ring has room, older ones for 24 hours of event time.

Both are judged by the user's own sequence of the topic: where in it the id came, and how far event time had
come then. So what counts as a repeat does not depend on how topics interleave or on how events are batched.
"""

import numpy as np
from numpy.typing import NDArray

from streams.state.columns import COUNTED, Columns
from streams.state.packing import HORIZON_S
from streams.state.runs import Flags, Ints

IDS = NDArray[np.uint64]


class Dedupe:
    """Arrays are in processing order. `second`: event time reached in the event's topic, in s."""

    def __init__(self, columns: Columns, per_user: int) -> None:
        """`per_user`: the most ids remembered of a user and topic; at least the ring's and the page's."""
        self._columns, self._overflow = columns, columns.overflow
        self._ids, self._seconds = columns.ids.reshape(-1), columns.seconds.reshape(-1)
        self._base = np.array([first for first, _ in columns.shape.id_rings], np.int64)
        self._places = np.array([places for _, places in columns.shape.id_rings], np.int64)
        self._limit = np.maximum(per_user, self._places + columns.shape.page)
        self._room = self._limit - self._places - columns.shape.page
        self.evicted = 0  # ids forgotten within 24 hours because a user had too many

    def fresh(self, slot: Ints, topic: Ints, ids: IDS, second: Ints, single: bool) -> Flags:
        """Per event, whether its id is new. `single`: no user occurs twice. Nothing is remembered yet."""
        stream = slot * 3 + topic
        suspect = self.suspect(slot, stream, ids)
        if not single:
            ordered = np.sort(ids)
            twice = ordered[1:][ordered[1:] == ordered[:-1]]
            if len(twice):
                suspect |= np.isin(ids, twice)
        fresh = np.ones(len(slot), np.bool_)
        if suspect.any():
            for key in np.unique(stream[suspect]).tolist():
                members = np.flatnonzero(stream == key)
                fresh[members] = self._walk(key, ids[members].tolist(), second[members].tolist())
        return fresh

    def suspect(self, slot: Ints, stream: Ints, ids: IDS) -> Flags:
        """Per event, whether its user has sent this id, on any topic and however long ago."""
        suspect: Flags = (self._columns.ids.take(slot, axis=0) == ids[:, None]).any(axis=1)
        if self._overflow.used:
            suspect |= self._overflow.holds(stream, ids)
        return suspect

    def _walk(self, key: int, ids: list[int], second: list[int]) -> list[bool]:
        """One user's events of one topic, one after the other: exact where any of them may be a repeat."""
        slot, topic = divmod(key, 3)
        start = counted = int(self._columns.sums[slot, COUNTED + topic])
        here: dict[int, tuple[int, int]] = {}
        fresh = []
        for hashed, now in zip(ids, second, strict=True):
            known = here.get(hashed) or self._known(slot, topic, hashed, start)
            repeat = known is not None and self._remembered(topic, counted - known[0], known[1], now)
            if not repeat:
                here[hashed] = counted, now
                counted += 1
            fresh.append(not repeat)
        return fresh

    def _known(self, slot: int, topic: int, hashed: int, counted: int) -> tuple[int, int] | None:
        """The newest place of an id in the topic's sequence and its second, as of before the batch."""
        first, places = self._columns.shape.id_rings[topic]
        live = min(counted, places)
        ring = self._columns.ids[slot, first : first + live]
        found = np.flatnonzero(ring == np.uint64(hashed))
        if len(found):
            ages = (counted - 1 - found) % places
            newest = int(found[ages.argmin()])
            return counted - 1 - int(ages.min()), int(self._columns.seconds[slot, first + newest])
        return self._overflow.find(slot * 3 + topic, hashed, counted - places)

    def _remembered(self, topic: int, age: int, second: int, now: int) -> bool:
        return age <= self._places[topic] or bool(age <= self._limit[topic] and second >= now - HORIZON_S)

    def remember(self, slot: Ints, topic: Ints, ids: IDS, second: Ints, counted: Ints, rank: Ints | None) -> None:
        """Notes fresh events. `counted`: ids of the user and topic before each; `rank`: how many of those are
        of this batch, None if none is."""
        if rank is None:
            self._put(slot, topic, ids, second, counted)
        else:
            lap = rank // self._places[topic]  # a ring takes one lap at a time
            for number in range(int(lap.max()) + 1):
                part = lap == number
                self._put(slot[part], topic[part], ids[part], second[part], counted[part])
        if self._overflow.queues:
            floor, room = second - HORIZON_S, self._room[topic]
            self.evicted += self._overflow.trim(slot * 3 + topic, floor, room)

    def _put(self, slot: Ints, topic: Ints, ids: IDS, second: Ints, counted: Ints) -> None:
        places = self._places[topic]
        at = slot * self._columns.shape.ids + self._base[topic] + counted % places
        out = (counted >= places).nonzero()[0]
        if len(out):
            left, stream = at[out], slot[out] * 3 + topic[out]
            number, floor = counted[out] - places[out], second[out] - HORIZON_S
            self._overflow.push(stream, number, self._ids[left], self._seconds[left], floor)
        self._ids[at] = ids
        self._seconds[at] = second
