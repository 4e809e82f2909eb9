"""What follows from live evidence: a release that does worse goes back to the one before it; one that did worse and is
followed by another already is marked, and a person is told. What is live is judged by its own pair alone.
"""

import logging
from collections.abc import Callable

from finetune.live import Verdict
from streams.learner.champion import BAD, WORSE, Champions
from streams.learner.metrics import LearnerMetrics
from streams.learner.task import TaskLearning
from streams.learner.watching import Pair

log = logging.getLogger(__name__)


class TakingBack:
    """Used from one thread. follow: takes note of what is live now, by task. now: UTC ms."""

    def __init__(
        self, champions: Champions, metrics: LearnerMetrics, follow: Callable[[str], None], now: Callable[[], int]
    ) -> None:
        self._champions, self._metrics, self._follow, self._now = champions, metrics, follow, now

    def look(self, task: TaskLearning) -> None:
        """Acts on what has come since the last look. Raises what `Champions.roll_back` raises."""
        watching = task.watching
        if watching is not None and (verdict := watching.verdict()).action == "rollback":
            self._take_back(task, watching.pair, verdict)
        for earlier, verdict in task.pairs.refuted():
            if earlier.pair.live == task.champion:
                self._take_back(task, earlier.pair, verdict)
            else:
                self._regret(task, earlier.pair, verdict)
        task.end_pairs()

    def _take_back(self, task: TaskLearning, pair: Pair, verdict: Verdict) -> None:
        name, why = task.name, " ".join(verdict.reasons)
        task.pairs.end(pair)
        log.error("release %s/%s is taken back: %s", name, pair.live, why)
        to = self._champions.refuge(name, pair.live, pair.previous)
        if self._champions.roll_back(name, pair.live, verdict.as_dict(), self._now(), to) is not None:
            self._metrics.rollbacks.labels(name).inc()
            self._follow(name)
            task.attempts += 1
            task.last = {"result": "rolled back", "made": pair.live, "why": why}

    def _regret(self, task: TaskLearning, pair: Pair, verdict: Verdict) -> None:
        """What is live now was never compared with `previous`, and the gate found it no worse than what it was made
        from: it stays, and nobody goes back to the bad one."""
        name, why, live = task.name, " ".join(verdict.reasons), str(task.champion)
        task.pairs.end(pair)
        heir = pair.live in self._champions.lineage(name, live)
        then = f"what is live, {live}, was made from it" if heir else f"{live} is live, which was not made from it"
        log.error("release %s/%s, which served before, was worse: %s Now %s.", name, pair.live, why, then)
        self._champions.mark_worse(name, pair.live, verdict.as_dict(), self._now())
        self._metrics.regrets.labels(name, "yes" if heir else "no").inc()
        task.last = {"result": WORSE, "made": pair.live, "why": f"{why} Now {then}."}

    def precedes(self, name: str, pair: Pair) -> bool:
        """Whether a pair of before the learner's start was a release and what it was made from, and not judged yet."""
        if self._champions.state(name, pair.live) in BAD:
            return False
        return next(self._champions.lineage(name, pair.live), None) == pair.previous
