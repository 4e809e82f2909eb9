"""The pairs of releases of one task that labels still speak about: what serves now against what was before it, and
earlier ones. A label may come weeks after a newer release took over; it says who was better when it was served.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from finetune.live import LiveBounds, Verdict
from streams.events import Record
from streams.learner.maturing import Matured
from streams.learner.watching import Pair, Watching
from streams.tasks.base import Task

MISSED = 20_000
KEPT = 200_000  # compared events of one task, over all pairs
MOST_PAIRS = 32


class Pairs:
    """Of one task, used from one thread.

    precedes: whether the pair's `previous` is what its `live` was made from: of a pair that was before the learner
    started nobody else can tell. Any other comparison, such as that of a candidate before it serves, is passed over.
    """

    def __init__(
        self, task: Task, *, budget_ms: float, precedes: Callable[[Pair], bool] = lambda pair: False,
        bounds: LiveBounds | None = None,
    ) -> None:  # fmt: skip
        self._task, self._budget_ms, self._bounds, self._precedes = task, budget_ms, bounds, precedes
        self._held: OrderedDict[Pair, Watching] = OrderedDict()
        self._ended: OrderedDict[Pair, None] = OrderedDict()
        self._missed: OrderedDict[str, list[Matured]] = OrderedDict()
        self.current: Watching | None = None

    def __iter__(self) -> Iterator[Watching]:
        """The oldest first."""
        return iter(self._held.values())

    def follow(self, pair: Pair | None) -> None:
        """What serves now, and what was before it; None: there is nothing to compare it with."""
        self._ended.pop(pair, None) if pair is not None else None
        self.current = None if pair is None else self._of(pair)

    def end(self, pair: Pair) -> None:
        """Nothing more is to be said of it."""
        self._held.pop(pair, None)
        self._pass_over(pair)
        if self.current is not None and self.current.pair == pair:
            self.current = None

    def shadow(self, record: Record) -> None:
        """A ShadowScore of the task, of whatever pair."""
        pair = Pair.of(record)
        if pair in self._ended:
            return
        if pair not in self._held and not self._precedes(pair):
            self._pass_over(pair)
            return
        watching = self._of(pair)
        watching.shadow(record)
        for label in self._missed.pop(record["target_id"], ()):
            watching.matured(label)
        self._bound()

    def matured(self, label: Matured) -> None:
        """In the order in which `Maturing` gives them: of the pair that served the event."""
        if any(watching.matured(label) for watching in reversed(self._held.values())):
            return
        # Most were not sampled; where time runs fast, a label may also overtake the comparison.
        self._missed.setdefault(label.target, []).append(label)
        if len(self._missed) > MISSED:
            self._missed.popitem(last=False)

    def over(self, mature: int) -> None:
        """All events up to that time have had their labels: earlier pairs that served no later one are done."""
        for watching in [each for each in self._held.values() if each.newest <= mature and not each.fresh]:
            if watching is not self.current:
                self.end(watching.pair)

    def refuted(self) -> Iterator[tuple[Watching, Verdict]]:
        """Earlier pairs of which something new was said, and whose release did worse than the one before it."""
        for watching in [each for each in self._held.values() if each is not self.current and each.fresh]:
            verdict = watching.verdict()
            if verdict.action == "rollback":
                yield watching, verdict

    def _of(self, pair: Pair) -> Watching:
        if pair not in self._held:
            self._held[pair] = Watching(self._task, pair, budget_ms=self._budget_ms, bounds=self._bounds)
            while len(self._held) > MOST_PAIRS:
                self.end(next(iter(self._held)))
        return self._held[pair]

    def _pass_over(self, pair: Pair) -> None:
        self._ended[pair] = None
        if len(self._ended) > 4 * MOST_PAIRS:
            self._ended.popitem(last=False)

    def _bound(self) -> None:
        """What is too much goes from the oldest pair, the oldest events first."""
        if sum(len(each.asked) for each in self._held.values()) > KEPT:
            next(each for each in self._held.values() if each.asked).asked.popitem(last=False)
