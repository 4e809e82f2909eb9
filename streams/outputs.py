"""From scored work to records to send, in two waves: scores and dead letters, then what follows from the scores.
The second wave waits for the first one's acknowledgement, so a score that exists is the proof of what was said, and
nothing else can exist without it.
"""

import logging
from collections import Counter
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np

from schemas.errors import BadRecord
from streams.alerts import alert_record, raised
from streams.batch import ORDERS, TOPICS
from streams.codecs import Codecs, Names
from streams.deadletters import dead_letter, notice
from streams.entities import touch_key, touch_partition, touches
from streams.events import Record
from streams.features import pack
from streams.homeward import MOVED
from streams.notices import Notices
from streams.output_columns import FEATURES_FORMAT, MOST_US, Tables, tables
from streams.partitioning import partition_for
from streams.privacy.sealed_letters import Close, left_open
from streams.raw import RawRecord
from streams.tasks.base import Result
from streams.work import Job, Outgoing, Work, outgoing

log = logging.getLogger(__name__)

FEW = 6  # events of a task below which columns cost more than they save


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
    policies: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Decided, and what the shadow policy would have."""


class Outputs:
    """Makes the records; keeps no state but the counts."""

    def __init__(self, codecs: Codecs, names: Names, *, partitions: int, carried_bytes: int) -> None:
        self.codecs, self.names, self.partitions, self.carried_bytes = codecs, names, partitions, carried_bytes
        self.counts, self.notices = Counts(), Notices(log)
        self.by_event = False  # scores have their event's id for a key, not their user's
        self.close: Close = left_open  # what letters are sent through

    def waves(self, work: Work) -> tuple[list[Outgoing], list[Outgoing]]:
        """(scores, dead letters and moves), (served and touches). Scores lie where their events lie."""
        first, second = list(work.first), self._touches(work)
        for job in work.jobs:
            if len(job.events) >= FEW and (made := tables(work, job)) is not None:
                self._say_all(work, job, made, first, second)
            else:
                self._say_each(work, job, first, second)
            self._count(job)
        return first, second

    def alerts(self, work: Work) -> list[Outgoing]:
        """What the second wave has besides, with what has been found out of why."""
        out = []
        for job in work.jobs:
            for number in raised(job):
                result = job.results[number]
                assert result is not None
                score = job.said[number] or score_record(work, job, number, result)
                raw = work.raw[job.index[number]]
                alert = alert_record(job, number, score, (raw.partition, raw.offset))
                _add(self.counts.alerts, str(result.decision), 1)
                key, value = alert["order_id"].encode(), self.codecs.alert(alert)
                out.append(Outgoing(self.names.alerts, key, value, None, work.headers.get(int(job.index[number]))))
        return out

    def _say_all(self, work: Work, job: Job, made: Tables, first: list[Outgoing], second: list[Outgoing]) -> None:
        """One task's records, by the column."""
        name, count, raw = job.task.name, len(job.events), work.raw
        scores = self.codecs.scores[name].many(made.score, count)
        places = [raw[at].partition for at in job.index.tolist()]
        keys = made.event.utf8 if self.by_event else made.user.utf8
        headers = map(work.headers.get, job.index.tolist()) if work.headers else repeat(None)
        first += outgoing(self.names.scores[name], keys, scores, places, headers)
        served = self.codecs.served[name].many(made.served, count)
        second += outgoing(self.names.served[name], made.target.utf8, served)

    def _say_each(self, work: Work, job: Job, first: list[Outgoing], second: list[Outgoing]) -> None:
        """One task's records, one by one: a few, or where some of the scores were said before."""
        name, target_of = job.task.name, job.task.target
        score_topic, encode_score = self.names.scores[name], self.codecs.scores[name]
        served_topic, encode_served = self.names.served[name], self.codecs.served[name]
        columns = zip(job.index.tolist(), job.events, job.results, job.said, pack(job.rows), strict=True)
        for number, (at, event, result, score, features) in enumerate(columns):
            assert result is not None
            if score is None:
                score = score_record(work, job, number, result)
                key, partition = event["event_id" if self.by_event else "user_id"].encode(), work.raw[at].partition
                first.append(Outgoing(score_topic, key, encode_score(score), partition, work.headers.get(at)))
            target = target_of(event)
            served = served_record(job, number, target, score, result, features)
            second.append(Outgoing(served_topic, target.encode(), encode_served(served)))

    def dead(self, record: RawRecord, error: BadRecord, now_ms: int) -> Outgoing:
        """A dead letter with the record's bytes."""
        _add(self.counts.dead, error.code, 1)
        key, letter = self.close(dead_letter(record, error, now_ms, self.carried_bytes))
        self.notices.say(*notice(letter))
        return Outgoing(self.names.dead_letters, key, self.codecs.dead_letter(letter))

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
        if job.late.any():
            _add(counts.late, name, int((job.late & ~job.fallback).sum()))
        _add(counts.fallback, name, int(np.count_nonzero(job.fallback)))


def score_record(work: Work, job: Job, number: int, result: Result) -> dict[str, Any]:
    """The score of the job's event `number`."""
    if job.told:
        return {**job.told[number]}
    at, event = job.index[number], job.events[number]
    queue_us = 1000 * (work.started_ms - work.raw[at].timestamp)
    return {
        "event_id": event["event_id"],
        "user_id": event["user_id"],
        "event_time": event["event_time"],
        "scored_at": work.started_ms,
        "release": job.release,
        "engine": job.engine,
        "late": bool(job.late[number]),
        "fallback": "deadline" if job.fallback[number] else None,
        "timings": {"queue_us": max(0, min(MOST_US, queue_us)), "infer_us": job.infer_us},
        "cut": dict(zip(TOPICS, work.absorbed.cut[at].tolist(), strict=True)),
        **result.fields,
    }


def served_record(job: Job, number: int, target: str, score: Record, result: Result, features: bytes) -> dict[str, Any]:
    """What the score of the job's event `number` was computed from."""
    bucket, row = job.buckets[number]
    return {
        "event_id": score["event_id"],
        "task": job.task.name,
        "target_id": target,
        "user_id": score["user_id"],
        "event_time": score["event_time"],
        "served_at": score["scored_at"],
        "release": score["release"],
        "engine": score["engine"],
        "bucket": bucket,
        "row": row,
        "features_format": FEATURES_FORMAT,
        "features": features,
        "candidates": result.candidates,
        "shown": job.task.shown(job.events[number]),
        "prediction": result.prediction,
        "decision": result.decision,
        "policy_version": result.fields.get("policy_version", ""),
        "selection": job.selection,
        "propensity": result.propensity,
        "otherwise": result.otherwise,
        "late": score["late"],
        "fallback": score["fallback"],
        "cut": score["cut"],
    }


def _add(counts: dict[str, int], name: str, count: int) -> None:
    if count:
        counts[name] = counts.get(name, 0) + count
