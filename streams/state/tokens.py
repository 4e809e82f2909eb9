"""Which card, device, address, email and ip a user has ordered with before, and since when.
At most `tokens` hashes a user; the least recently used one gives way, judged by offsets of the orders topic.
"""

import numpy as np
from numpy.typing import NDArray

from streams.state.columns import Columns
from streams.state.runs import Flags, Ints

PER_ORDER = 5
_FEW = 6  # up to this many orders, one at a time is faster than array operations

Hashes = NDArray[np.uint64]


class Tokens:
    """K orders in processing order, each user's side by side; `tokens` (K, 5), 0 where there is none."""

    def __init__(self, columns: Columns) -> None:
        self._hash, self._first, self._stamp = columns.token_hash, columns.token_first, columns.token_stamp

    def use(self, slot: Ints, tokens: Hashes, time: Ints, offset: Ints) -> Flags:
        """(K, 5): the user had used the token at an event_time before the order's. Their own uses are noted.

        An order first finds its tokens, then adds new ones, so that none of its own makes room for another.
        """
        known = np.empty(tokens.shape, np.bool_)
        stamp = _stamp(offset)
        one_by_one = list(range(len(slot)))
        if len(slot) > _FEW:
            first = np.empty(len(slot), np.bool_)  # of its user; the others depend on it
            first[:1] = True
            np.not_equal(slot[1:], slot[:-1], out=first[1:])
            known[first] = self._use_many(slot[first], tokens[first], time[first], stamp[first])
            one_by_one = np.flatnonzero(~first).tolist()
        for number in one_by_one:
            known[number] = self._use(int(slot[number]), tokens[number].tolist(), int(time[number]), int(stamp[number]))
        return known

    def _use(self, slot: int, tokens: list[int], time: int, stamp: int) -> list[bool]:
        hashes, firsts, stamps = self._hash[slot], self._first[slot], self._stamp[slot]
        held = hashes.tolist()
        places = [held.index(token) if token and token in held else -1 for token in tokens]
        known = [place >= 0 and int(firsts[place]) < time for place in places]
        new = []
        for column, place in enumerate(places):
            if place >= 0:
                stamps[place] = stamp + column
                if firsts[place] > time:
                    firsts[place] = time
            elif tokens[column]:
                new.append(column)
        if new:
            for column, place in zip(new, stamps.argsort(kind="stable").tolist(), strict=False):
                hashes[place], firsts[place], stamps[place] = tokens[column], time, stamp + column
        return known

    def _use_many(self, slot: Ints, tokens: Hashes, time: Ints, stamp: Ints) -> Flags:
        """`_use` for K different users. Shapes: (K, 5) over columns, (K, 5, T) over a user's T tokens."""
        equal = (self._hash[slot][:, None, :] == tokens[:, :, None]) & (tokens != 0)[:, :, None]
        held = equal.any(axis=2)
        place = equal.argmax(axis=2)
        slots = np.broadcast_to(slot[:, None], held.shape)
        times = np.broadcast_to(time[:, None], held.shape)
        stamps = stamp[:, None] + np.arange(PER_ORDER)
        known: Flags = held & (self._first[slots, place] < times)
        at = slots[held], place[held]
        self._stamp[at] = stamps[held]
        self._first[at] = np.minimum(self._first[at], times[held])
        new = (tokens != 0) & ~held
        if new.any():
            oldest = self._stamp[slot].argsort(axis=1, kind="stable")[:, :PER_ORDER]
            nth = np.maximum(new.cumsum(axis=1) - 1, 0)
            at = slots[new], np.take_along_axis(oldest, nth, axis=1)[new]
            self._hash[at], self._first[at], self._stamp[at] = tokens[new], times[new], stamps[new]
        return known


def _stamp(offset: Ints) -> Ints:
    """Plus the column: greater for every later use; above 0, which marks an empty place."""
    return (offset + 1) * 8
