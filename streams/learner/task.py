"""Learning of one task: what has come, what is live, what runs; asked in turn what is to be done now.
It decides nothing by a clock of its own: every question has the time as an argument.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xxhash
from confluent_kafka import Message

from engines.manifest import Manifest
from finetune.drift import Drift
from finetune.trigger import Seen, TriggerRule, ask, kind_of, why_not
from streams.config import Settings
from streams.events import Record
from streams.labels.rules import Rule
from streams.learner.cycle import Cycle
from streams.learner.inputs import scalars
from streams.learner.lists import Lists
from streams.learner.maturing import Matured, Maturing
from streams.learner.pairs import Pairs
from streams.learner.quality import Quality
from streams.learner.split import Arrivals, Split, split
from streams.learner.standing import Standing
from streams.learner.waits import Waits
from streams.learner.watching import Pair, Watching
from streams.tasks.base import Task

log = logging.getLogger(__name__)

SHOWN_RELEASES = 3
ROWS = 256  # whose inputs are looked at together
WAITS = "waits.json"


class TaskLearning:
    """Used from one thread."""

    def __init__(self, settings: Settings, task: Task, precedes: Callable[[Pair], bool] = lambda pair: False) -> None:
        """precedes: see `Pairs`."""
        self.task, self._settings = task, settings
        learning = settings.learning
        self._rule = Rule.of(task, learning.windows_s.get(task.name, 0))
        self._trigger = TriggerRule(learning.examples, learning.positives, learning.interval_s, learning.every_s)
        self._ranks = task.loss == "softmax"
        self._rows: list[bytes] = []
        self.first_at: int | None = None
        """UTC ms of the worker's clock at the first score of the champion that was heard of since it is live."""
        self.waits = Waits(self._rule.name)
        self._maturing = Maturing(self._rule.name, self._rule.negatives > 0)
        self.arrivals, self.drift = Arrivals(), Drift()
        self.champion: str | None = None
        self.standing = Standing.of({})
        self.floor = self.standing
        """What `arrivals` holds no more."""
        self.pairs = Pairs(task, budget_ms=settings.deadline_ms(task.name) / 4, precedes=precedes)
        self.quality: dict[str, Quality] = {}
        self.lists = Lists(self._rule.window_ms)
        self.attempts = 0
        """Fine-tunes since the last that went live."""
        self.started_at = 0
        self.newest_tried = 0
        self.last: dict[str, Any] = {}
        self._split: Split | None = None

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def watching(self) -> Watching | None:
        """The evidence on what is live; None where there is nothing to compare it with."""
        return self.pairs.current

    def load_waits(self, folder: Path) -> None:
        self.waits = Waits.load(self._rule.name, folder / WAITS)

    def save_waits(self, folder: Path) -> None:
        """Where that cannot be done, the next start has more to read."""
        self.waits.read_to(self.arrivals.end)
        if not self.waits.next:
            return
        try:
            self.waits.save(folder / WAITS)
        except OSError as error:
            log.warning("how long labels of %s took was not written down: %s", self.name, error)

    # -- what comes

    def example(self, record: Record, message: Message) -> None:
        """A TrainingExample of the task."""
        if not self.knows(message.partition(), message.offset(), record):
            self._arrive(message.partition(), message.offset(), record, message.timestamp()[1])
        self.waits.add(record, message.partition(), message.offset())
        if self._ranks and record["label"] > 0:
            self.lists.wanted(record["target_id"], record["candidate_id"])
        self._maturing.add(record)
        for label in self._maturing.take():
            self._matured(label)

    def _matured(self, label: Matured) -> None:
        self.pairs.matured(label)
        if label.prediction is not None and not self._ranks:
            self._of(label.release).labelled(label.prediction, label.label, label.weight)
            if label.event_time > self.standing.until:  # not what is read again at the start
                self.drift.labelled([label.prediction], [label.label])

    def served(self, record: Record) -> None:
        """A served record: what went in, and what was said of it."""
        if record["fallback"] is not None:
            return
        if self._ranks:
            self.lists.served(record)
        else:
            quality = self._of(record["release"])
            for chance in record["prediction"]:
                quality.said(chance)
            self.drift.scored(record["prediction"])
        if self.first_at is None and record["release"] == f"{self.name}/{self.champion}":
            self.first_at = record["served_at"]
        self._rows.append(bytes(record["features"]))
        if len(self._rows) >= ROWS:
            self.drift.inputs(*scalars(self.task, self._rows))
            self._rows.clear()

    def reread(self, partition: int, offset: int, record: Record) -> None:
        """An example that came before, and counts again as another release is live."""
        self._arrive(partition, offset, record)

    def _arrive(self, partition: int, offset: int, record: Record, arrived: int = 0) -> None:
        positive = record["label"] > 0
        silent = not positive and not record["source"]
        self.arrivals.add(partition, offset, record["event_time"], positive=positive, silent=silent, arrived=arrived)
        self._split = None

    def knows(self, partition: int, offset: int, record: Record) -> bool:
        """Whether the live release has learned it."""
        return self.standing.covers(partition, offset, record["event_time"])

    def shadow(self, record: Record) -> None:
        """A ShadowScore of the task."""
        self.pairs.shadow(record)

    @property
    def window_ms(self) -> int:
        """After which a label of an event has come, if one does."""
        return self._rule.window_ms + self._rule.grace_ms

    def end_pairs(self) -> None:
        """Lets go of the earlier pairs of releases about which nothing more can be said."""
        wait_ms = 0 if self._rule.negatives > 0 else self._rule.window_ms
        self.pairs.over(self._maturing.until - wait_ms)

    def _of(self, release: str) -> Quality:
        if release not in self.quality:
            self.quality[release] = Quality()
            while len(self.quality) > SHOWN_RELEASES:
                del self.quality[next(iter(self.quality))]
        return self.quality[release]

    # -- what is live

    def follow(self, version: str, manifest: Manifest, previous: str | None) -> bool:
        """Another release is live. previous: what it is watched against. True if `arrivals` lacks some of what is new.

        What it had learned stays, so that a step back needs nothing.
        """
        standing = Standing.of(manifest.trained)
        own = self.champion is not None and manifest.trained.get("champion") == self.champion
        back = standing == self.floor
        if own:
            self.arrivals.forget(self.standing)
            self.floor = self.standing
        elif not back:
            self.arrivals, self.floor = Arrivals(), standing
        if own:
            self.attempts = 0
        self.champion, self.standing, self._split = version, standing, None
        self.pairs.follow(Pair(version, previous) if previous else None)
        self.first_at = None
        self.drift.reset()
        return not own and not back

    # -- what is to be done

    @property
    def split(self) -> Split:
        """Of what has come by now."""
        if self._split is None:
            learning = self._settings.learning
            self._split = split(
                self.arrivals, self.standing, silence=self._rule.negatives > 0, most=learning.most_examples,
                window=learning.window, gate_labels=learning.gate_labels,
            )  # fmt: skip
        return self._split

    def seen(self, *, asked: bool, paused: bool) -> Seen:
        found = self.split
        return Seen(
            examples=found.new, positives=found.positives, newest=found.mature, learned_until=self.standing.until,
            started_at=self.started_at, asked=asked, paused=paused, attempts=self.attempts, tried=self.newest_tried,
        )  # fmt: skip

    def reason(self, seen: Seen, now_ms: int) -> str | None:
        """Why a fine-tune begins now; None: none does."""
        return None if self._unjudged() else ask(self._trigger, seen, self._drifted(), now_ms)

    def kind(self, seen: Seen, now_ms: int) -> str:
        """One word for the reason of a fine-tune that begins now: of `finetune.trigger.KINDS`."""
        return kind_of(self._trigger, seen, self._drifted(), now_ms) or ""

    def why_not(self, seen: Seen, now_ms: int) -> str:
        return why_not(self._trigger, seen, self._drifted(), now_ms) or self._unjudged()

    def _drifted(self) -> Sequence[str]:
        return self.drift.reasons() if self._settings.learning.drift else ()

    def _unjudged(self) -> str:
        """Why the gate could not judge what would be made now; empty where it could."""
        found, learning = self.split, self._settings.learning
        labels, positives = learning.gate_labels, 0 if self._ranks else learning.gate_positives
        if found.gate >= labels and found.gate_positives >= positives:
            return ""
        have = f"{found.gate:,} labels, {found.gate_positives:,} of them positive"
        return f"The gate's window has {have}; it takes {labels:,} and {positives:,}."

    def cycle(self, reason: str, kind: str, now_ms: int) -> Cycle:
        """The fine-tune that begins now."""
        assert self.champion is not None
        found = self.split
        self.started_at, self.newest_tried = now_ms, found.new
        return Cycle(self.name, now_ms, reason, self.champion, now_ms, found.newest_at, found.training, kind)

    def seed(self) -> int:
        """The same for the same examples after the same champion."""
        said = f"{self.champion} {self.split.standing.as_dict()}"
        return int(xxhash.xxh32_intdigest(said.encode()))

    def detail(self, **more: Any) -> dict[str, Any]:
        """For the status: what there is, and what was last."""
        found = self.split
        return {
            "champion": self.champion, "new": found.new, "positives": found.positives, "held": found.held,
            "drift": list(self.drift.reasons()),
            "attempts": self.attempts, "watched": self.watching.compared if self.watching else 0, "last": self.last,
            **more,
        }  # fmt: skip
