"""Live evidence on a release that serves: what the one before it says of the same events, and what became of them.
Pure: shadow scores and matured labels in, a verdict out. The arithmetic of the verdict is `finetune.live`.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from finetune.live import LiveBounds, Verdict, Watch
from streams.events import Record
from streams.learner.maturing import Matured
from streams.tasks.base import Task

TOP = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """Versions of one task: what serves, and what was before it."""

    live: str
    previous: str

    @classmethod
    def of(cls, record: Record) -> Self:
        """Of a ShadowScore."""
        return cls(record["live"].rpartition("/")[2], record["shadow"].rpartition("/")[2])


class Compared(NamedTuple):
    """One event that both were asked about: ids and chances, in the order in which each gave them."""

    event_time: int
    live: tuple[str, ...]
    live_prediction: tuple[float, ...]
    shadow: tuple[str, ...]
    shadow_prediction: tuple[float, ...]


class Watching:
    """Of one pair, used from one thread."""

    def __init__(self, task: Task, pair: Pair, *, budget_ms: float, bounds: LiveBounds | None = None) -> None:
        self.task, self.pair = task, pair
        self._watch = Watch(pair.live, pair.previous, budget_ms=budget_ms, bounds=bounds)
        self.asked: OrderedDict[str, Compared] = OrderedDict()
        """By target, the newest last: what still waits for its label, and what has had one."""
        self.compared = 0
        self.newest = -(2**62)
        """Event time of the newest event that was compared, UTC ms."""
        self.since = 2**62
        """When the first was compared, UTC ms."""
        self.fresh = False
        """Whether something has come since `verdict` was asked."""

    @property
    def ranks(self) -> bool:
        return self.task.loss == "softmax"

    def shadow(self, record: Record) -> None:
        """A ShadowScore of this pair."""
        self.compared, self.fresh = self.compared + 1, True
        self.newest, self.since = max(self.newest, record["event_time"]), min(self.since, record["compared_at"])
        self._watch.called([record["live_us"] / 1000], [record["failure"] is not None])
        if record["failure"] is not None:
            return
        if not self.ranks:
            self._watch.scored(record["live_prediction"], record["shadow_prediction"])
        self.asked[record["target_id"]] = Compared(
            record["event_time"], tuple(record["candidates"]), tuple(record["live_prediction"]),
            tuple(record["shadow_candidates"]), tuple(record["shadow_prediction"]),
        )  # fmt: skip

    def matured(self, label: Matured) -> bool:
        """In the order in which `Maturing` gives them. Whether it was of an event that was compared."""
        found = self.asked.get(label.target)
        if found is None:
            return False
        self.fresh = True
        if not self.ranks:
            place = found.live.index(label.candidate) if label.candidate in found.live else 0
            self._watch.labelled([label.label], [found.live_prediction[place]], [found.shadow_prediction[place]])
        elif label.candidate is not None and label.label > 0:
            self._watch.ranked(np.array([label.candidate]), _listed(found.live), _listed(found.shadow))
        return True

    def verdict(self) -> Verdict:
        """After all that has come."""
        self.fresh = False
        return self._watch.verdict()


def _listed(items: tuple[str, ...]) -> "np.ndarray[tuple[int, int], np.dtype[np.str_]]":
    """(1, TOP), filled up with what nobody wants."""
    return np.array([(*items[:TOP], *[""] * (TOP - len(items)))])
