"""Score and `served` records of one task's part of a micro-batch, by columns: what the hot path writes.
They are the records of `streams.outputs.score_record` and `served_record`; a test holds the two to each other.
"""

from collections.abc import Sequence
from functools import lru_cache
from operator import is_
from typing import Any, NamedTuple

from schemas.columns import Column, Columnar, Fixed, Table
from streams.batch import TOPICS
from streams.features import pack
from streams.tasks.base import Result, Task
from streams.work import Job, Work

FEATURES_FORMAT = 2
MOST_US = 2**31 - 1
SCORED = frozenset(
    ("event_id", "user_id", "event_time", "scored_at", "release", "engine", "late", "fallback", "timings", "cut")
)
"""What every score has beside its task's own fields."""

# What most records hold; these remember their bytes.
_FORMAT, _PROPENSITY, _NONE, _FALSE, _EMPTY = Fixed(FEATURES_FORMAT), Fixed(1.0), Fixed(None), Fixed(False), Fixed([])
_NO_POLICY = Fixed("")


class Tables(NamedTuple):
    """Both records of each of a job's events, and their keys as columns."""

    score: Table
    served: Table
    user: Column
    event: Column
    target: Column


def tables(work: Work, job: Job) -> Tables | None:
    """None where the columns cannot say what the records would: scores that were said before or told, fields that not
    all results have, or that take the place of those that all scores have."""
    results = [result for result in job.results if result is not None]
    names = results[0].fields.keys() if results else ()
    if any(job.said) or job.told or len(results) < len(job.events) or not SCORED.isdisjoint(names):
        return None
    if sum([len(result.fields) for result in results]) != len(names) * len(results):
        return None
    candidates, prediction = _lists([r.candidates for r in results]), Column([r.prediction for r in results])
    inside = [column for column in (candidates, prediction) if isinstance(column, Column)]
    try:
        own = {name: Column([result.fields[name] for result in results], inside) for name in names}
    except KeyError:
        return None
    common = _common(work, job)
    user, event_id = Column([e["user_id"] for e in job.events]), Column([e["event_id"] for e in job.events])
    common |= {"event_id": event_id, "user_id": user}
    target = _target(job, event_id)
    score = {**common, "timings": _timings(work, job), "scored_at": (at := Fixed(work.started_ms)), **own}
    served: dict[str, Columnar] = {
        **common,
        "task": _fixed(job.task.name),
        "target_id": target,
        "served_at": at,
        "features_format": _FORMAT,
        "features": Column(pack(job.rows)),
        "candidates": candidates,
        "shown": _shown(job),
        "prediction": prediction,
        "decision": _decisions(results),
        "policy_version": own.get("policy_version", _NO_POLICY),
        "selection": _fixed(job.selection),
        "propensity": _propensities(results),
        "otherwise": _otherwise(results),
        **_places(job),
    }
    return Tables(Table(score), Table(served), user, event_id, target)


def _common(work: Work, job: Job) -> dict[str, Columnar]:
    """What score and `served` both hold, but for the ids."""
    late_B, fallback_B = job.late.tolist(), job.fallback.tolist()
    cut = zip(TOPICS, work.absorbed.cut[job.index].T.tolist(), strict=True)
    return {
        "event_time": Column([event["event_time"] for event in job.events]),
        "release": _fixed(job.release),
        "engine": _fixed(job.engine),
        "late": Column(late_B) if True in late_B else _FALSE,
        "fallback": Column(["deadline" if fell else None for fell in fallback_B]) if True in fallback_B else _NONE,
        "cut": Table({topic: Column(offsets) for topic, offsets in cut}),
    }


def _timings(work: Work, job: Job) -> Table:
    raw, now = work.raw, work.started_ms
    waited = [1000 * (now - raw[at].timestamp) for at in job.index.tolist()]
    if not 0 <= min(waited) <= max(waited) <= MOST_US:
        waited = [max(0, min(MOST_US, us)) for us in waited]
    return Table({"queue_us": Column(waited), "infer_us": Fixed(job.infer_us)})


@lru_cache(64)
def _fixed(value: str | int) -> Fixed:
    """What comes again in the next micro-batch remembers its bytes too."""
    return Fixed(value)


def _places(job: Job) -> dict[str, Columnar]:
    """Bucket and row of each event in the engine's call."""
    bucket_B, row_B = zip(*job.buckets, strict=True)
    same = bucket_B.count(bucket_B[0]) == len(bucket_B)
    return {"bucket": _fixed(bucket_B[0]) if same else Column(bucket_B), "row": Column(row_B)}


def _target(job: Job, event_id: Column) -> Column:
    """A click's target is its own id: encoded once."""
    targets = list(map(job.task.target, job.events))
    return event_id if all(map(is_, targets, event_id.values)) else Column(targets)


def _shown(job: Job) -> Columnar:
    """Most tasks show all that they rank."""
    asked = type(job.task).shown is not Task.shown
    return _lists([job.task.shown(event) for event in job.events]) if asked else _EMPTY


def _lists(values: list[list[Any]]) -> Columnar:
    return Column(values) if any(values) else _EMPTY


def _decisions(results: Sequence[Result]) -> Columnar:
    decisions = [result.decision for result in results]
    return _NONE if decisions.count(None) == len(decisions) else Column(decisions)


def _propensities(results: Sequence[Result]) -> Columnar:
    chances = [result.propensity for result in results]
    return _PROPENSITY if chances.count(1.0) == len(chances) else Column(chances)


def _otherwise(results: Sequence[Result]) -> Columnar:
    drawn = [result.otherwise for result in results]
    return _NONE if drawn.count(None) == len(drawn) else Column(drawn)
