"""What the pages say of learning: each task's state, what came of the last try and how long its parts took, and drift.
Pure: what the learner said on models.learning, and its figures, in; rows for the templates out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.console.ops.rates import History
from streams.console.ops.release_view import number
from streams.console.ops.row_charts import Row
from streams.console.ops.scales import duration
from streams.learner.control import Command, Status

STALE_MS = 15 * 60_000
STATES = {
    "waiting": ("quiet", "Waits for examples"),
    "training": ("info", "Fine-tunes now"),
    "watching": ("good", "Watches the live release"),
    "paused": ("warn", "Paused"),
    "pinned": ("warn", "The release is pinned"),
    "cold": ("quiet", "No release yet"),
}
RESULTS = {"live": "good", "refused": "bad", "failed": "bad", "retired": "warn", "rolled back": "bad"}
PARTS_ORDER = ("read", "train", "calibrate", "export", "judge")


@dataclass(frozen=True, slots=True)
class Last:
    """What came of the last fine-tune."""

    result: str
    tone: str
    made: str
    why: str
    label_to_live_s: float | None
    parts: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class TaskLearning:
    """asked: a fine-tune is, and not granted yet. pausing: the learner has not seen yet that it is to pause."""

    task: str
    known: bool
    state: str
    tone: str
    words: str
    said_at: int
    paused: bool
    pausing: bool
    asked: bool
    by: str
    champion: str
    new: int
    positives: int
    held: int
    attempts: int
    watched: int
    why_not: str
    last: Last | None
    drift: tuple[str, ...] = ()
    """What the learner says has drifted since the release went live, in its own sentences."""

    @property
    def can_pause(self) -> bool:
        return not self.paused


def of_task(task: str, status: Status | None, command: Command) -> TaskLearning:
    """status None: no learner has spoken of the task yet."""
    detail: Mapping[str, Any] = status.detail if status is not None else {}
    state = status.state if status is not None else ""
    tone, words = STATES.get(state, ("quiet", state or "No learner has run yet"))
    granted = number(detail.get("granted")) or 0
    return TaskLearning(
        task, status is not None, state, tone, words, status.said_at if status is not None else 0, command.paused,
        command.paused and state not in ("paused", ""), command.asked_at > granted, command.by,
        str(detail.get("champion") or ""), _whole(detail, "new"), _whole(detail, "positives"), _whole(detail, "held"),
        _whole(detail, "attempts"), _whole(detail, "watched"), str(detail.get("why_not") or ""),
        _last(detail.get("last")), tuple(str(each) for each in detail.get("drift") or ()),
    )  # fmt: skip


def _whole(detail: Mapping[str, Any], name: str) -> int:
    return int(number(detail.get(name)) or 0)


def _last(found: object) -> Last | None:
    if not isinstance(found, dict) or not found.get("result"):
        return None
    result = str(found["result"])
    return Last(
        result, RESULTS.get(result, "quiet"), str(found.get("made") or ""), str(found.get("why") or ""),
        number(found.get("label_to_live_s")), parts(found.get("seconds"), number(found.get("label_to_live_s"))),
    )  # fmt: skip


def parts(seconds: object, whole_s: float | None = None) -> tuple[Row, ...]:
    """How long each part of the fine-tune took, the longest first; and what of label-to-live was outside of it."""
    if not isinstance(seconds, dict):
        return ()
    known = {str(name): number(value) for name, value in seconds.items()}
    rows = [Row(name.replace("_", " "), value) for name, value in known.items() if value is not None]
    rows.sort(key=lambda row: row.value or 0.0, reverse=True)
    inside = sum(row.value or 0.0 for row in rows)
    if whole_s is not None and whole_s > inside:
        rows.append(Row("waiting, announcing, swapping", whole_s - inside))
    return tuple(rows)


def all_tasks(
    tasks: Sequence[str], statuses: Mapping[str, Status], commands: Mapping[str, Command]
) -> list[TaskLearning]:
    return [of_task(task, statuses.get(task), commands.get(task, Command(task))) for task in tasks]


@dataclass(frozen=True, slots=True)
class Drift:
    """A value that says how far things have moved, and from where on it counts. past: it is there."""

    task: str
    what: str
    value: float | None
    bound: float | None
    past: bool
    source: str


# Of the watch on a live release: what is measured -> from where on it takes the release back.
WATCHED = {"drift": ("Spread of scores against the release before (PSI)", 0.5, True),
           "agreement": ("Order of scores against the release before (rank correlation)", 0.5, False)}  # fmt: skip


def drifts(task: str, workers: History, checks: Sequence[Any], evidence: Mapping[str, float | None]) -> list[Drift]:
    """From three places: what workers compare now, what the last gate measured, what the watch last said."""
    found = []
    now = workers.now("disagreement").get(task)
    if now is not None:
        found.append(Drift(task, "Live against shadow, newest 256 scores", now, None, False, "the workers, now"))
    for check in checks:
        if check.name in ("shifted features", "label rate", "changed decisions"):
            found.append(Drift(task, check.name, check.value, check.bound, not check.passed, "the gate, last time"))
    for name, (words, bound, above) in WATCHED.items():
        value = evidence.get(name)
        if value is not None:
            past = value > bound if above else value < bound
            found.append(Drift(task, words, value, bound, past, "the watch, when it took the release back"))
    return found


def label_to_live(tasks: Sequence[TaskLearning], learners: History) -> list[Row]:
    """Of each task the newest: as the learner's page has it, else as its last status had it."""
    told = learners.now("label_to_live")
    rows = []
    for task in tasks:
        value = told.get(task.task, task.last.label_to_live_s if task.last is not None else None)
        rows.append(Row(task.task, value, note=duration(value)))
    return rows
