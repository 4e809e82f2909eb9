"""From scored work to records to send, in two waves: scores and dead letters, then what follows from the scores.
The second wave waits for the first one's acknowledgement, so a score that exists is the proof of what was said, and
nothing else can exist without it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from schemas.errors import BadRecord
from streams.batch import ORDERS, TOPICS
from streams.codecs import Codecs, Names
from streams.deadletters import MOVED, RawRecord, dead_letter, notice
from streams.entities import touch_key, touch_partition, touches
from streams.events import ENTITY_FIELDS, Record, order_entities
from streams.features import pack
from streams.notices import Notices
from streams.partitioning import partition_for
from streams.tasks.base import Result
from streams.work import Job, Outgoing, Work

log = logging.getLogger(__name__)

FEATURES_FORMAT = 1
ALERTING = ("review", "block")


@dataclass(slots=True)
class Counts:
    """What happened since it was last read; turned into metrics once a second."""

    dead: dict[str, int] = field(default_factory=dict)
    misplaced: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    out_of_order: int = 0
    late: dict[str, int] = field(default_factory=dict)
    fallback: dict[str, int] = field(default_factory=dict)
    scored: dict[str, int] = field(default_factory=dict)
    alerts: dict[str, int] = field(default_factory=dict)


class Outputs:
    """Makes the records; keeps no state but the counts."""

    def __init__(self, codecs: Codecs, names: Names, *, partitions: int, carried_bytes: int) -> None:
        self.codecs, self.names, self.partitions, self.carried_bytes = codecs, names, partitions, carried_bytes
        self.counts, self.notices = Counts(), Notices(log)

    def waves(self, work: Work) -> tuple[list[Outgoing], list[Outgoing]]:
        """(scores, dead letters and moves), (served, alerts and touches). Scores lie where their events lie."""
        first, second = list(work.first), self._touches(work)
        cuts = [dict(zip(TOPICS, cut, strict=True)) for cut in work.absorbed.cut.tolist()]
        for job in work.jobs:
            self._say(work, job, cuts, first, second)
            self._count(job)
        return first, second

    def _say(
        self, work: Work, job: Job, cuts: list[dict[str, int]], first: list[Outgoing], second: list[Outgoing]
    ) -> None:
        """One task's records. What numpy holds is made Python's by the column: one by one is slow."""
        name, target_of = job.task.name, job.task.target
        score_topic, encode_score = self.names.scores[name], self.codecs.scores[name]
        served_topic, encode_served = self.names.served[name], self.codecs.served[name]
        late_B, fallback_B = job.late.tolist(), job.fallback.tolist()
        columns = zip(
            job.index.tolist(), job.events, job.results, job.said, late_B, fallback_B, pack(job.rows), strict=True
        )
        for number, (at, event, result, score, late, fallback, features) in enumerate(columns):
            assert result is not None
            if score is None:
                raw = work.raw[at]
                score = _score(work, job, event, raw, late, fallback, cuts[at], result)
                first.append(Outgoing(score_topic, event["user_id"].encode(), encode_score(score), raw.partition))
            target = target_of(event)
            served = _served(name, target, job.buckets[number], score, result, features)
            second.append(Outgoing(served_topic, target.encode(), encode_served(served)))
            if job.task.raises_alerts and result.decision in ALERTING:
                second.append(self._alert(event, score, result, job.entities[number]))

    def dead(self, record: RawRecord, error: BadRecord, now_ms: int) -> Outgoing:
        """A dead letter with the record's bytes."""
        _add(self.counts.dead, error.code, 1)
        letter = dead_letter(record, error, now_ms, self.carried_bytes)
        self.notices.say(*notice(letter))
        return Outgoing(self.names.dead_letters, letter["key"], self.codecs.dead_letter(letter))

    def misplaced(self, record: RawRecord, event: Record, now_ms: int) -> Outgoing:
        """Back to the partition of its user, once: a second time means that the partition count has changed."""
        if any(name == MOVED for name, _ in record.headers):
            error = BadRecord(
                "misplaced",
                f"partition {record.partition} is not the user's",
                expected=f"murmur2 of user_id over {self.partitions} partitions",
                todo="set the topic's partition count back, or rebuild the state for the new one",
            )
            return self.dead(record, error, now_ms)
        _add(self.counts.misplaced, record.topic, 1)
        key = event["user_id"].encode()
        headers = [*record.headers, (MOVED, str(record.partition).encode())]
        return Outgoing(record.topic, key, record.value, partition_for(key, self.partitions), headers)

    def _alert(self, event: Record, score: Record, result: Result, entities: NDArray[np.int32]) -> Outgoing:
        order_id = str(event["order_id"])
        alert = {
            "alert_id": xxhash.xxh3_128_hexdigest(order_id.encode()),
            "order_id": order_id,
            "event_id": score["event_id"],
            "user_id": score["user_id"],
            "event_time": score["event_time"],
            "raised_at": score["scored_at"],
            "policy_version": f"thresholds of {score['release']}",
            "release": score["release"],
            "probability": result.prediction[0],
            "decision": result.decision,
            "reasons": result.fields["reasons"],
            "rules": [],
            "links": _links(event, entities),
        }
        _add(self.counts.alerts, str(result.decision), 1)
        return Outgoing(self.names.alerts, order_id.encode(), self.codecs.alert(alert))

    def _touches(self, work: Work) -> list[Outgoing]:
        """First uses of cards, devices, addresses, emails and ips, for the owners of those."""
        out = []
        for at in np.flatnonzero((work.batch.topic == ORDERS) & work.absorbed.fresh):
            for touch in touches(work.events[at], work.absorbed.known[at].tolist()):
                partition = touch_partition(touch, self.partitions)
                out.append(Outgoing(self.names.touches, touch_key(touch), self.codecs.touch(touch), partition))
        return out

    def _count(self, job: Job) -> None:
        name, counts = job.task.name, self.counts
        _add(counts.scored, name, len(job.events))
        _add(counts.late, name, int((job.late & ~job.fallback).sum()))
        _add(counts.fallback, name, int(job.fallback.sum()))


def _score(
    work: Work,
    job: Job,
    event: Record,
    raw: RawRecord,
    late: bool,
    fallback: bool,
    cut: Mapping[str, int],
    result: Result,
) -> dict[str, Any]:
    queue_us = 1000 * (work.started_ms - raw.timestamp)
    return {
        "event_id": event["event_id"],
        "user_id": event["user_id"],
        "event_time": event["event_time"],
        "scored_at": work.started_ms,
        "release": job.release,
        "engine": job.engine,
        "late": late,
        "fallback": "deadline" if fallback else None,
        "timings": {"queue_us": max(0, min(2**31 - 1, queue_us)), "infer_us": job.infer_us},
        "cut": cut,
        **result.fields,
    }


def _served(
    task: str, target: str, bucket: tuple[int, int], score: Record, result: Result, features: bytes
) -> dict[str, Any]:
    return {
        "event_id": score["event_id"],
        "task": task,
        "target_id": target,
        "user_id": score["user_id"],
        "event_time": score["event_time"],
        "served_at": score["scored_at"],
        "release": score["release"],
        "engine": score["engine"],
        "bucket": bucket[0],
        "row": bucket[1],
        "features_format": FEATURES_FORMAT,
        "features": features,
        "candidates": result.candidates,
        "prediction": result.prediction,
        "decision": result.decision,
        "propensity": 1.0,
        "late": score["late"],
        "fallback": score["fallback"],
        "cut": score["cut"],
    }


def _links(event: Record, entities: NDArray[np.int32]) -> list[str]:
    """type:token of what the order shares with other users, or with fraud."""
    named = zip(ENTITY_FIELDS, order_entities(event), entities.tolist(), strict=True)
    return [f"{kind}:{token}" for kind, token, (users, frauds) in named if token and (users > 1 or frauds)]


def _add(counts: dict[str, int], name: str, count: int) -> None:
    if count:
        counts[name] = counts.get(name, 0) + count
