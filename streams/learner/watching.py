"""Live evidence on the release that serves: what the one before it says of the same events, and what became of them.
Pure: shadow scores and matured labels in, a verdict out. The arithmetic of the verdict is `finetune.live`.
"""

from collections import OrderedDict
from dataclasses import dataclass

from finetune.live import LiveBounds, Verdict, Watch
from streams.events import Record
from streams.learner.maturing import Matured
from streams.tasks.base import Task

MISSED = 20_000
KEPT = 200_000  # shadow scores of one task


@dataclass(frozen=True, slots=True)
class Pair:
    """Versions of one task: what is live, and what was before it."""

    live: str
    previous: str


class Watching:
    """Of one task, used from one thread. Starts anew with each pair of releases."""

    def __init__(self, task: Task, pair: Pair, *, budget_ms: float, bounds: LiveBounds | None = None) -> None:
        self.task, self.pair = task, pair
        self._live, self._previous = f"{task.name}/{pair.live}", f"{task.name}/{pair.previous}"
        self._watch = Watch(pair.live, pair.previous, budget_ms=budget_ms, bounds=bounds)
        self._asked: OrderedDict[str, Record] = OrderedDict()
        self._missed: OrderedDict[str, list[tuple[str | None, float]]] = OrderedDict()
        self.compared = 0

    @property
    def ranks(self) -> bool:
        return self.task.loss == "softmax"

    def shadow(self, record: Record) -> None:
        """A ShadowScore; one of another pair is passed over."""
        if (record["live"], record["shadow"]) != (self._live, self._previous):
            return
        self.compared += 1
        self._watch.called([record["live_us"] / 1000], [record["failure"] is not None])
        if record["failure"] is not None or self.ranks:
            # What a user wants next is known only where the list did not suggest it; see docs/learning.md.
            return
        self._watch.scored(record["live_prediction"], record["shadow_prediction"])
        for candidate, value in self._missed.pop(record["target_id"], ()):
            self._ask(record, candidate, value)
        self._asked[record["target_id"]] = record
        if len(self._asked) > KEPT:
            self._asked.popitem(last=False)

    def matured(self, label: Matured) -> None:
        """In the order in which `Maturing` gives them."""
        if self.ranks:
            return
        if (record := self._asked.get(label.target)) is not None:
            self._ask(record, label.candidate, label.label)
        else:
            self._miss(label.target, label.candidate, label.label)

    def verdict(self) -> Verdict:
        """After all that has come."""
        return self._watch.verdict()

    def _ask(self, record: Record, candidate: str | None, value: float) -> None:
        place = record["candidates"].index(candidate) if candidate in record["candidates"] else 0
        self._watch.labelled([value], [record["live_prediction"][place]], [record["shadow_prediction"][place]])

    def _miss(self, target: str, candidate: str | None, value: float) -> None:
        """Most were not sampled; where time runs fast, a label may also overtake the comparison."""
        self._missed.setdefault(target, []).append((candidate, value))
        if len(self._missed) > MISSED:
            self._missed.popitem(last=False)
