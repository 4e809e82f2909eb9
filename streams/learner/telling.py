"""What the learner says of each task: its status on models.learning, when that changes, and figures for Prometheus."""

import logging
from collections.abc import Callable

from streams.learner.control import Speaker, Status
from streams.learner.cycle import Cycle, Outcome
from streams.learner.metrics import LearnerMetrics
from streams.learner.task import TaskLearning

log = logging.getLogger(__name__)

SAY_S = 5.0


class Teller:
    """Used from one thread. clock: seconds."""

    def __init__(self, speaker: Speaker, metrics: LearnerMetrics, clock: Callable[[], float]) -> None:
        self._speaker, self._metrics, self._clock = speaker, metrics, clock
        self._said: dict[str, tuple[str, float]] = {}

    def status(
        self, task: TaskLearning, *, running: bool, asked: bool, paused: bool, pinned: bool, granted: int
    ) -> None:
        """Every SAY_S at most. Raises ProduceFailed, BrokerUnavailable."""
        now, name = self._clock(), task.name
        before, at = self._said.get(name, ("", 0.0))
        if now - at < SAY_S:
            return
        state = (
            "training" if running
            else "cold" if task.champion is None
            else "pinned" if pinned
            else "paused" if paused
            else "watching" if task.watching is not None
            else "waiting"
        )  # fmt: skip
        now_ms = int(now * 1000)
        why_not = task.why_not(task.seen(asked=asked, paused=paused), now_ms)
        detail = task.detail(why_not=why_not, granted=granted)
        if (said := f"{state} {detail}") != before:
            self._speaker.say(Status(name, state, detail, now_ms))
        self._said[name] = said, now
        self._figures(task)

    def _figures(self, task: TaskLearning) -> None:
        metrics, name = self._metrics, task.name
        metrics.new.labels(name).set(task.split.new)
        metrics.waiting.labels(name).set(task.split.held)
        metrics.compared.labels(name).set(task.watching.compared if task.watching else 0)
        for release, quality in task.quality.items():
            metrics.quality(name, release, quality.figures())
        for release, figures in task.lists.figures().items():
            metrics.lists(name, release, figures)

    def ended(self, task: TaskLearning, cycle: Cycle, outcome: Outcome, state: str) -> None:
        """A fine-tune has ended, and its release is in that state."""
        parts = outcome.said.get("seconds", {})
        task.last = {
            "result": state, "made": outcome.made, "why": outcome.reason, "trigger": cycle.kind, "began": cycle.reason,
            "seconds": parts,
        }  # fmt: skip
        for part, seconds in parts.items():
            self._metrics.seconds.labels(task.name, part).set(seconds)
        self._metrics.gates.labels(task.name, state).inc()
        level = logging.INFO if state == "live" else logging.WARNING
        log.log(level, "the fine-tune of %s is %s: %s %s", task.name, state, outcome.made or "", outcome.reason)

    def scores(self, task: TaskLearning, version: str, newest_at: int) -> bool:
        """Whether the first score of a release has been heard of: how long that was after what it learned."""
        if version != task.champion or task.first_at is None:
            return False
        seconds = (task.first_at - newest_at) / 1000
        self._metrics.label_to_live.labels(task.name).set(seconds)
        task.last["label_to_live_s"] = seconds
        log.info("%s/%s scores, %.1f s after the newest label that it learned", task.name, version, seconds)
        return True
