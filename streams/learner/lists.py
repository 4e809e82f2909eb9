"""How good the lists are that are served now: of how many something was taken up, and how far up it stood.
A list counts when its time for an answer is over; which lists are kept until then is drawn by their ids.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass
from math import log2
from typing import NamedTuple

import numpy as np
import xxhash

from streams.events import Record

NEWEST = 5_000
KEPT = 50_000
TOP = 10
SHOWN_RELEASES = 3


@dataclass(frozen=True, slots=True)
class ListFigures:
    """hit_rate: share of the lists of which one of the first TOP was taken up. ndcg: mean of 1 / log2(1 + place) of the
    highest that was, 0 where none was (Järvelin and Kekäläinen 2002, with one wanted item). NaN of no lists.
    """

    lists: int
    hits: int
    hit_rate: float
    ndcg: float


class _Waiting(NamedTuple):
    time: int
    release: str
    items: tuple[str, ...]


class Lists:
    """Of one task, used from one thread. window_ms: of event time, after which a list counts as it is then."""

    def __init__(self, window_ms: int, *, kept: int = KEPT, newest: int = NEWEST) -> None:
        self._window_ms, self._kept, self._most = window_ms, kept, newest
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._gain: dict[str, float] = {}
        self._share, self._newest = 1.0, -(2**62)
        self._done: OrderedDict[str, deque[float]] = OrderedDict()

    def served(self, record: Record) -> None:
        """A served record."""
        self._newest = max(self._newest, record["event_time"])
        target = record["target_id"]
        if self._drawn(target):
            items = tuple(record["candidates"][:TOP])
            self._waiting[target] = _Waiting(record["event_time"], record["release"], items)
            if len(self._waiting) > self._kept:
                self._share /= 2
                for other in [each for each in self._waiting if not self._drawn(each)]:
                    del self._waiting[other]
                    self._gain.pop(other, None)
        self._settle()

    def wanted(self, target: str, item: str | None) -> None:
        """An item was taken up; more than once is once."""
        held = self._waiting.get(target)
        if held is not None and item in held.items:
            gain = 1 / log2(held.items.index(item) + 2)
            self._gain[target] = max(self._gain.get(target, 0.0), gain)

    def figures(self) -> dict[str, ListFigures]:
        """By release, of its newest lists."""
        found = {}
        for release, gains in self._done.items():
            each = np.array(gains)
            found[release] = ListFigures(len(each), int((each > 0).sum()), float((each > 0).mean()), float(each.mean()))
        return found

    def _drawn(self, target: str) -> bool:
        return self._share >= 1 or xxhash.xxh3_64_intdigest(target.encode()) < self._share * 2**64

    def _settle(self) -> None:
        """What is old enough counts; of the releases the newest are kept."""
        while self._waiting:
            target, held = next(iter(self._waiting.items()))
            if held.time > self._newest - self._window_ms:
                return
            del self._waiting[target]
            self._done.setdefault(held.release, deque(maxlen=self._most)).append(self._gain.pop(target, 0.0))
            while len(self._done) > SHOWN_RELEASES:
                self._done.popitem(last=False)
