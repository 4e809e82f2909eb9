"""The scoring loop's body: decode, absorb, features, engine, results, records to send.
It crosses no network; whoever calls it sends what it returns, in its two waves, and acknowledges the input after.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from engines.slot import Slot
from schemas.errors import BadRecord
from streams.batch import ORDERS, TOPICS, EventBatch
from streams.catalog import Catalogue
from streams.codecs import Codecs, Names
from streams.deadletters import CARRIED_BYTES, MOVED, REPLAY, dead_letter
from streams.entities import EntityView, touch_key, touch_partition, touches
from streams.events import EVENT_TYPES, Record, check, event_batch
from streams.features import Rows, fill_sequence
from streams.partitioning import partition_for, partitions_for
from streams.state import Absorbed, UserState
from streams.tasks.base import Context, Result, Serving, Task

class RawRecord(Protocol):
    """What a Kafka client hands over. `timestamp`: the broker's, ms. `headers`: (name, value) pairs."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


Said = Mapping[tuple[int, int, int], Record]
Order = Callable[[Sequence[Record], Sequence[int], Sequence[RawRecord], Said], NDArray[np.int64]]


@dataclass(slots=True)
class Outgoing:
    """One record to send; `partition` None leaves it to the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: list[tuple[str, bytes]] | None = None


@dataclass(slots=True)
class Job:
    """One task's part of a micro-batch: B events that its model scores, or its fallback answers."""

    task: Task
    index: NDArray[np.intp]  # into the micro-batch's events
    events: list[Record]
    rows: Rows
    late: NDArray[np.bool_]
    fallback: NDArray[np.bool_]
    results: list[Result | None]
    said: list[Record | None]
    release: str = ""
    engine: str = ""
    infer_us: int = 0
    buckets: list[tuple[int, int]] = field(default_factory=list)  # (bucket, row) of each event


@dataclass(slots=True)
class Work:
    """A micro-batch on its way: what came, what state says of it, and a job per task."""

    events: list[Record]
    raw: list[RawRecord]
    batch: EventBatch
    absorbed: Absorbed
    jobs: list[Job]
    first: list[Outgoing]  # dead letters and moves: sent with the scores
    touched: list[Outgoing]
    started_ms: int


@dataclass(slots=True)
class Counts:
    """What happened in the loop since it was last read; turned into metrics once a micro-batch."""

    dead: dict[str, int] = field(default_factory=dict)
    misplaced: int = 0
    duplicates: int = 0
    late: dict[str, int] = field(default_factory=dict)
    fallback: dict[str, int] = field(default_factory=dict)
    scored: dict[str, int] = field(default_factory=dict)


class Scorer:
    """Scores micro-batches of raw records of any input topics and partitions.

    `prepare` and `outputs` run on the loop's thread, in order; `infer` may run on another, one call at a time.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        slots: Mapping[str, Slot],
        codecs: Codecs,
        names: Names,
        state: UserState,
        catalog: Catalogue,
        entities: EntityView,
        *,
        partitions: int,
        max_message_bytes: int,
        deadlines_ms: Mapping[str, int],
        carried_bytes: int = CARRIED_BYTES,
    ) -> None:
        self.tasks, self.slots, self.codecs, self.names = tasks, slots, codecs, names
        self.state, self.catalog, self.entities = state, catalog, entities
        self.partitions, self.max_message_bytes = partitions, max_message_bytes
        self.deadlines_ms, self.carried_bytes = deadlines_ms, carried_bytes
        self.counts = Counts()

    # -- decode ----------------------------------------------------------------------------------------------

    def decode(self, topic: int, records: Sequence[RawRecord]) -> list[Record | BadRecord]:
        """Records of one topic-partition; raises RegistryUnavailable, and then none of them was touched."""
        kind, limit = EVENT_TYPES[topic], self.max_message_bytes
        decoded = self.codecs.inputs[topic].decode_many([record.value for record in records])
        for number, (record, raw) in enumerate(zip(decoded, records, strict=True)):
            if isinstance(record, BadRecord):
                continue
            try:
                if len(raw.value or b"") > limit:
                    raise BadRecord("oversized", f"{len(raw.value or b'')} bytes", expected=f"at most {limit}")
                check(record, kind, raw.timestamp)
            except BadRecord as error:
                decoded[number] = error
        return decoded

    # -- prepare ---------------------------------------------------------------------------------------------

    def prepare(
        self,
        parts: Iterable[tuple[int, Sequence[RawRecord], Sequence[Record | BadRecord]]],
        now_ms: int,
        order: Order | None = None,
        said: Said | None = None,
    ) -> Work:
        """Absorbs decoded parts (topic index, raw, decoded) and makes the feature rows of what is to be scored.

        `said`: score records that a predecessor already sent, by (topic index, partition, offset).
        `order` makes the processing order of what is left, see UserState.absorb.
        """
        first: list[Outgoing] = []
        good: list[tuple[int, RawRecord, Record]] = []
        for kind, records, decoded in parts:
            for record, event in zip(records, decoded, strict=True):
                if isinstance(event, BadRecord):
                    first.append(self._dead(record, event, now_ms))
                else:
                    good.append((kind, record, event))
        home = self._home(good)
        first += [
            self._misplaced(record, event, now_ms)
            for (_, record, event), right in zip(good, home, strict=True)
            if not right
        ]
        topic = [kind for (kind, _, _), right in zip(good, home, strict=True) if right]
        raw = [record for (_, record, _), right in zip(good, home, strict=True) if right]
        events = [event for (_, _, event), right in zip(good, home, strict=True) if right]
        batch = event_batch(
            events,
            topic,
            [record.partition for record in raw],
            [record.offset for record in raw],
            self.catalog,
        )
        absorbed = self.state.absorb(batch, order(events, topic, raw, said or {}) if order else None)
        self.counts.duplicates += len(events) - int(absorbed.fresh.sum())
        work = Work(events, raw, batch, absorbed, [], first, [], now_ms)
        for task in self.tasks:
            index = np.flatnonzero(absorbed.fresh & (batch.topic == task.topic))
            if len(index):
                work.jobs.append(self._job(task, index, work, said or {}))
        self._touch(work)
        return work

    def absorb_only(self, parts: Iterable[tuple[int, Sequence[RawRecord], Sequence[Record | BadRecord]]]) -> None:
        """Fast-forward: what was scored before the committed offset only moves the state."""
        good = [
            (kind, record, event)
            for kind, records, decoded in parts
            for record, event in zip(records, decoded, strict=True)
            if not isinstance(event, BadRecord)
        ]
        kept = [item for item, right in zip(good, self._home(good), strict=True) if right]
        if kept:
            topic, raw, events = zip(*kept, strict=True)
            partition, offset = [record.partition for record in raw], [record.offset for record in raw]
            self.state.absorb(event_batch(events, topic, partition, offset, self.catalog))

    def _home(self, good: Sequence[tuple[int, RawRecord, Record]]) -> list[bool]:
        """Whether each record lies on its user's partition."""
        if not good:
            return []
        own = partitions_for([event["user_id"].encode() for _, _, event in good], self.partitions).tolist()
        return [record.partition == place for (_, record, _), place in zip(good, own, strict=True)]

    def _job(self, task: Task, index: NDArray[np.intp], work: Work, said: Said) -> Job:
        events = [work.events[i] for i in index]
        absorbed, time_B = work.absorbed, work.batch.time[index]
        history = self.state.gather(absorbed, index)
        rows = np.zeros(len(index), task.features)
        fill_sequence(rows, history, work.batch, index)
        context = Context(
            time_B,
            history,
            absorbed.totals[index],
            absorbed.first_time[index],
            absorbed.known[index],
            self.entities.lookup(work.batch.tokens[index]),
            self.catalog,
        )
        task.fill(rows, events, context)
        late = self._late(task, [work.raw[i] for i in index], work.started_ms)
        old = [said.get((task.topic, work.raw[i].partition, work.raw[i].offset)) for i in index] if said else []
        return Job(
            task,
            index,
            events,
            rows,
            late,
            fallback=late & (not task.late_is_scored),
            results=[task.said(score) if score else None for score in old] or [None] * len(index),
            said=old or [None] * len(index),
        )

    def _late(self, task: Task, raw: Sequence[RawRecord], now_ms: int) -> NDArray[np.bool_]:
        deadline = self.deadlines_ms.get(task.name, 0)
        late = np.zeros(len(raw), np.bool_)
        if deadline:
            for number, record in enumerate(raw):
                if now_ms - record.timestamp > deadline:
                    late[number] = not any(name == REPLAY for name, _ in record.headers)
        return late

    # -- infer -----------------------------------------------------------------------------------------------

    def infer(self, work: Work) -> None:
        """Runs each job's model over the rows that need it, and the fallback over the rest."""
        for job in work.jobs:
            live = self.slots[job.task.name].live
            job.release, job.engine = live.release, live.engine_name
            job.buckets = [(0, 0)] * len(job.events)
            serving = Serving(self.catalog, live.calibration, live.settings)
            todo = np.array([result is None for result in job.results])
            started = time.perf_counter()
            self._model(job, live, serving, np.flatnonzero(todo & ~job.fallback))
            self._fallback(job, serving, np.flatnonzero(todo & job.fallback))
            job.infer_us = round((time.perf_counter() - started) * 1e6)

    def _model(self, job: Job, live: Any, serving: Serving, index: NDArray[np.intp]) -> None:
        step = live.max_batch
        for start in range(0, len(index), step):
            chunk = index[start : start + step]
            rows = job.rows[chunk]
            events = [job.events[i] for i in chunk]
            inference = live.infer(job.task.inputs(rows, live.table))
            results = job.task.results(inference.outputs, events, rows, serving)
            for number, (position, result) in enumerate(zip(chunk.tolist(), results, strict=True)):
                job.results[position] = result
                job.buckets[position] = (inference.bucket, number)

    def _fallback(self, job: Job, serving: Serving, index: NDArray[np.intp]) -> None:
        if len(index):
            results = job.task.fallback([job.events[i] for i in index], serving)
            for position, result in zip(index.tolist(), results, strict=True):
                job.results[position] = result

    # -- outputs ---------------------------------------------------------------------------------------------

    def outputs(self, work: Work) -> tuple[list[Outgoing], list[Outgoing]]:
        """Two waves: scores with dead letters; then, once those are acknowledged, served, alerts and touches.

        A score that exists on its topic is thus the proof of what was said; nothing else can exist without it.
        """
        first, second = work.first, work.touched
        for job in work.jobs:
            name = job.task.name
            encode, topic = self.codecs.scores[name], self.names.scores[name]
            for number, result in enumerate(job.results):
                assert result is not None
                score = job.said[number] or self._score(work, job, number, result)
                key = score["user_id"].encode()
                if job.said[number] is None:
                    partition = work.raw[job.index[number]].partition
                    first.append(Outgoing(topic, key, encode(score), partition))
                second += self._consequences(job, number, score, result)
            self._count(job)
        return first, second

    def _score(self, work: Work, job: Job, number: int, result: Result) -> Record:
        at = job.index[number]
        event, cut = job.events[number], work.absorbed.cut[at].tolist()
        return {
            "event_id": event["event_id"],
            "user_id": event["user_id"],
            "event_time": event["event_time"],
            "scored_at": work.started_ms,
            "release": job.release,
            "engine": job.engine,
            "late": bool(job.late[number]),
            "fallback": "deadline" if job.fallback[number] else None,
            "timings": {
                "queue_us": max(0, min(2**31 - 1, 1000 * (work.started_ms - work.raw[at].timestamp))),
                "infer_us": job.infer_us,
            },
            "cut": dict(zip(TOPICS, cut, strict=True)),
            **result.fields,
        }

    def _consequences(self, job: Job, number: int, score: Record, result: Result) -> list[Outgoing]:
        task, event = job.task, job.events[number]
        bucket, row = job.buckets[number]
        target = task.target(event)
        served = {
            "event_id": score["event_id"],
            "task": task.name,
            "target_id": target,
            "user_id": score["user_id"],
            "event_time": score["event_time"],
            "served_at": score["scored_at"],
            "release": score["release"],
            "engine": score["engine"],
            "bucket": bucket,
            "row": row,
            "features_format": 1,
            "features": job.rows[number].tobytes(),
            "candidates": result.candidates,
            "prediction": result.prediction,
            "decision": result.decision,
            "propensity": 1.0,
            "late": score["late"],
            "fallback": score["fallback"],
            "cut": score["cut"],
        }
        out = [Outgoing(self.names.served[task.name], target.encode(), self.codecs.served[task.name](served))]
        if result.decision in ("review", "block"):
            out.append(self._alert(event, score, result))
        return out

    def _alert(self, event: Record, score: Record, result: Result) -> Outgoing:
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
            "links": [],
        }
        return Outgoing(self.names.alerts, order_id.encode(), self.codecs.alert(alert))

    def _touch(self, work: Work) -> None:
        for at in np.flatnonzero((work.batch.topic == ORDERS) & work.absorbed.fresh):
            for touch in touches(work.events[at], work.absorbed.known[at].tolist()):
                partition = touch_partition(touch, self.partitions)
                work.touched.append(Outgoing(self.names.touches, touch_key(touch), self.codecs.touch(touch), partition))

    # -- what cannot be scored -------------------------------------------------------------------------------

    def _dead(self, record: RawRecord, error: BadRecord, now_ms: int) -> Outgoing:
        self.counts.dead[error.code] = self.counts.dead.get(error.code, 0) + 1
        letter = dead_letter(record, error, now_ms, self.carried_bytes)
        return Outgoing(self.names.dead_letters, record.key, self.codecs.dead_letter(letter))

    def _misplaced(self, record: RawRecord, event: Record, now_ms: int) -> Outgoing:
        """Back to the partition of its user, once: a second time means that the partition count has changed."""
        if any(name == MOVED for name, _ in record.headers):
            error = BadRecord(
                "misplaced",
                f"partition {record.partition} is not the user's",
                expected=f"murmur2 of user_id over {self.partitions} partitions",
                todo="set the topic's partition count back, or rebuild the state for the new one",
            )
            return self._dead(record, error, now_ms)
        self.counts.misplaced += 1
        key = event["user_id"].encode()
        headers = [*record.headers, (MOVED, str(record.partition).encode())]
        return Outgoing(record.topic, key, record.value, partition_for(key, self.partitions), headers)

    def _count(self, job: Job) -> None:
        name, counts = job.task.name, self.counts
        counts.scored[name] = counts.scored.get(name, 0) + len(job.events)
        if late := int(job.late.sum()):
            counts.late[name] = counts.late.get(name, 0) + late
        if fallen := int(job.fallback.sum()):
            counts.fallback[name] = counts.fallback.get(name, 0) + fallen
