"""What the label join goes by, per task: which labels count and until when, and when silence is an answer.
It is made from the task's LabelRule; the settings of a run may replace single values of it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from schemas.errors import BadRecord, SettingsError
from streams.events import EARLIEST_MS, MAX_ID_CHARS, Record
from streams.labels.watermark import AHEAD_MS
from streams.tasks.base import Task

MAX_SOURCE_BYTES = 64
PRECEDENCE = ("chargeback", "refund", "analyst", "shop", "derived")
"""Whose word counts: a chargeback is the bank's, a refund was paid; until there is one, the analyst's counts."""
HEARTBEAT = "heartbeat"
"""The name of a label that says only that its source is alive: all it had to say up to observed_at is out."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One task's. Times are ms of event time, counted from the served event.

    The outcome `name` is final at `window_ms`; until `grace_ms` after that a label still revises it. The outcomes
    of `also`, (name, ms), count until their own time, and their absence says nothing.
    """

    task: str
    name: str
    window_ms: int
    grace_ms: int
    at_once: bool = False
    """Whether a label becomes an example as it comes, or when the window closes, with the negatives around it."""
    negatives: float = 1.0
    """Share of the negatives that become examples; each of them then weighs 1 / negatives."""
    also: tuple[tuple[str, int], ...] = ()
    sources: tuple[str, ...] = ("derived",)
    """Which sources must be alive for the absence of a label to mean anything."""
    precedence: tuple[str, ...] = PRECEDENCE
    """Of sources that speak of the same outcome the first one counts; those that are not named come last, as one."""
    unanswered: tuple[str, ...] = ()
    """Decisions after which no label can be expected: what was blocked is never charged back."""

    def __post_init__(self) -> None:
        if not (self.window_ms > 0 and self.grace_ms >= 0 and 0 <= self.negatives <= 1):
            raise SettingsError(
                f"a label rule that cannot be used: {self}",
                where=f"task {self.task}",
                expected="window_ms above 0, grace_ms of 0 or more, negatives from 0 to 1",
            )

    @classmethod
    def of(cls, task: Task, window_s: int = 0) -> "Rule":
        """window_s: another window than the task's own."""
        rule = task.labels
        return cls(
            task.name,
            rule.name,
            (window_s or rule.window_s) * 1000,
            rule.grace_s * 1000,
            rule.at_once,
            rule.negatives,
            tuple((name, seconds * 1000) for name, seconds in rule.also),
            rule.sources,
            unanswered=rule.unanswered,
        )

    @property
    def names(self) -> tuple[str, ...]:
        return self.name, *(name for name, _ in self.also)

    def rank(self, source: str) -> int:
        """The lower, the more it counts; equal ranks share one counter of revisions."""
        return rank(source, self.precedence)

    def limit_ms(self, name: str) -> int:
        """How long after the served event an outcome may be observed and count."""
        return dict(self.also).get(name, self.window_ms + self.grace_ms)

    def longest_ms(self, answered: bool) -> int:
        """How long a served event is kept; `answered`: it has a positive, so that more may follow from it."""
        own = self.window_ms + self.grace_ms
        return max([own, *(limit for _, limit in self.also)]) if answered else own

    def samples(self, target: str, candidate: str) -> bool:
        """Whether this negative is one of those that are kept: the same answer whenever it is asked."""
        drawn: int = xxhash.xxh3_64_intdigest(f"{target}\0{candidate}".encode())
        return drawn < self.negatives * 2**64

    @property
    def log_odds_offset(self) -> float:
        """What to add to the logit of a model that was trained on these examples without their weights.

        ln(negatives): King and Zeng 2001, Logistic regression in rare events data. With the weights add nothing.
        """
        return math.log(self.negatives) if self.negatives else -math.inf

    def check(self, label: Record, now: int) -> None:
        """Raises BadRecord (out_of_range) for a label that cannot be meant for this task; `now`: the broker's, ms."""
        self._require(label["task"] == self.task, "task", label["task"], f"{self.task!r}")
        self._require(label["name"] in self.names, "name", label["name"], f"one of {', '.join(self.names)}")
        for name in ("label_id", "target_id"):
            self._require(0 < len(label[name]) <= MAX_ID_CHARS, name, label[name], f"1 to {MAX_ID_CHARS} characters")
        candidate = label["candidate_id"] or ""
        self._require(len(candidate) <= MAX_ID_CHARS, "candidate_id", candidate, f"up to {MAX_ID_CHARS} characters")
        source = label["source"]
        self._require(len(source.encode()) <= MAX_SOURCE_BYTES, "source", source, f"up to {MAX_SOURCE_BYTES} bytes")
        self._require(0 <= label["value"] <= 1, "value", label["value"], "from 0 to 1")  # a NaN is not
        self._require(0 <= label["revision"] < 2**31, "revision", label["revision"], "0 or more")
        time = label["observed_at"]
        expected = f"UTC epoch ms, from the year 2000 to {AHEAD_MS // 60_000} minutes past the broker's clock"
        self._require(EARLIEST_MS <= time <= now + AHEAD_MS, "observed_at", time, expected)

    def check_candidate(self, label: Record, candidates: Sequence[str]) -> None:
        """Raises BadRecord (out_of_range) for a label on what was not served."""
        served = ", ".join(filter(None, candidates)) or "none: the task has no candidates"
        candidate = label["candidate_id"]
        self._require((candidate or "") in candidates, "candidate_id", candidate, f"one that was served: {served}")

    def _require(self, fine: bool, name: str, value: object, expected: str) -> None:
        if not fine:
            said = repr(value)
            said = said if len(said) <= 80 else said[:77] + "..."
            raise BadRecord(
                "out_of_range", f"{name} {said}", where=f"label for {self.task}", expected=expected, todo="send it anew"
            )


def rank(source: str, precedence: Sequence[str] = PRECEDENCE) -> int:
    return precedence.index(source) if source in precedence else len(precedence)


def shown(served: Record) -> Iterator[bool]:
    """Of each candidate, whether the user saw it: only those can become negatives.

    A `served` record without the field, or with an empty one, says that all were.
    """
    told: Sequence[Any] = served.get("shown") or ()
    count = len(served["candidates"]) or 1
    return iter([bool(one) for one in told] if len(told) == count else [True] * count)
