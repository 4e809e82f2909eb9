"""What a worker says of itself: its status for health and the watchdog, its counts for Prometheus.
It reads the other parts and changes none of them.
"""

from collections.abc import Iterator

from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from streams.app import App
from streams.assembly import Assembly
from streams.config import Settings
from streams.flush import Flusher
from streams.health import Status, Track
from streams.intake import Intake
from streams.loop import Loop
from streams.metrics import Metrics
from streams.outputs import Counts
from streams.policy.standing import Standing


class Reporter:
    """A health.Provider. `status` is called from the watchdog's thread too: it only reads."""

    def __init__(self, settings: Settings, app: App, assembly: Assembly, intake: Intake, metrics: Metrics) -> None:
        self._settings, self._app, self._assembly = settings, app, assembly
        self._intake, self._metrics = intake, metrics
        self.assigned = False  # the group has told us our share, which may be none
        self.recovering: tuple[int, ...] = ()
        self.restored: tuple[int, int] = (0, 0)  # changelog records of the partition in recovery: done, in all
        self._evicted = 0
        self.flusher: Flusher | None = None
        self.loop: Loop | None = None

    def status(self) -> Status:
        live, scorer = self._assembly.live, self._assembly.scorer
        return Status(
            assigned=self.assigned,
            recovering=self.recovering,
            cold=() if scorer is not None else tuple(live.cold if live else self._settings.tasks),
            unreachable=self._assembly.waiting,
            stopping=bool(self._app.should_stop),
            tracks=tuple(self._tracks()),
            releases={task: slot.live.release for task, slot in live.slots.items()} if live else {},
            refused=dict(scorer.policies.refused) if scorer is not None else {},
        )

    def _tracks(self) -> Iterator[Track]:
        parked = self._intake.parked
        if self.loop is None or self.flusher is None or not self.assigned:
            return
        if self.recovering:
            yield Track(f"recovery of partition {self.recovering[0]}", *self.restored)
        for tp, position in list(self.loop.position.items()):
            if tp.partition in self.flusher.owned:
                yield Track(f"{tp.topic}[{tp.partition}]", position, self._end(tp, position), tp in parked)

    def _end(self, tp: TP, position: int) -> int | None:
        """The newest known offset plus one, or `position` if no record is left before it: the marks of transactions
        have offsets too. None where it is not known: a rebalance may take it at any moment."""
        try:
            consumer = self._app.batches
            return position if consumer.finished(tp) else consumer.highwater(tp) or None
        except (AssertionError, ConsumerNotStarted):  # how aiokafka says that the partition is not assigned
            return None

    def reached(self, tp: TP, end: int) -> bool:
        """Whether all before this offset is absorbed."""
        position = self.loop.position.get(tp, 0) if self.loop is not None else 0
        return position >= end or self._end(tp, position) == position

    def progress(self, done: int, total: int) -> None:
        """How far a restore is; from its thread."""
        self.restored = (done, total)

    def report(self) -> None:
        """Adds what was counted since the last call; once a second."""
        scorer, live, metrics = self._assembly.scorer, self._assembly.live, self._metrics
        if scorer is None or live is None or self.loop is None:
            return
        counts, scorer.outputs.counts = scorer.outputs.counts, Counts()
        for counter, found in (
            (metrics.dead_letters, counts.dead),
            (metrics.misplaced, counts.misplaced),
            (metrics.scores, counts.scored),
            (metrics.late, counts.late),
            (metrics.alerts, counts.alerts),
        ):
            for label, count in found.items():
                counter.labels(label).inc(count)
        for task, count in counts.fallback.items():
            metrics.fallbacks.labels(task, "deadline").inc(count)
        for (decided, would), count in counts.policies.items():
            metrics.policy_shadow.labels(decided, would).inc(count)
        self._report_policies(scorer.policies)
        metrics.duplicates.inc(counts.duplicates)
        metrics.out_of_order.inc(counts.out_of_order)
        metrics.set_parked(self._intake.parked)
        metrics.set_newest(self.loop.newest)
        metrics.set_releases({task: (slot.live.release, slot.live.engine_name) for task, slot in live.slots.items()})
        metrics.users.set(len(scorer.state))
        evicted = scorer.state.dedupe_evictions
        metrics.dedupe_evictions.inc(evicted - self._evicted)
        self._evicted = evicted
        if self.assigned:  # before, there is no consumer, and to ask for it would make one
            ends = {tp: self._end(tp, at) for tp, at in self.loop.position.items()}
            metrics.set_lag(
                {
                    (tp.topic, tp.partition): max(0, end - self.loop.position[tp])
                    for tp, end in ends.items()
                    if end is not None
                }
            )

    def _report_policies(self, standing: Standing) -> None:
        policies = {"live": standing.live, "shadow": standing.shadow}
        self._metrics.set_policies(
            {name: policy.version for name, policy in policies.items() if policy is not None}, standing.refused
        )
        if (live := standing.live) is not None:
            for rule, count in live.take_failures().items():
                self._metrics.policy_failures.labels(rule).inc(count)
