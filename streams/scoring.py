"""The scoring loop's body: decode, absorb, features, engine, results, records to send.
It crosses no network; whoever calls it sends what it returns, in its two waves, and acknowledges the input after.
"""

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from engines.slot import Loaded, Slot
from schemas.errors import BadRecord, EngineError
from streams.alerts import explain, raised
from streams.batch import EventBatch
from streams.catalog import Catalogue
from streams.codecs import Codecs, Names
from streams.deadletters import CARRIED_BYTES
from streams.entities import EntityView
from streams.events import EVENT_TYPES, Record, check, event_batch
from streams.features import SEQUENCE, Rows, fill_sequence, with_sequences
from streams.lookups import Lookups
from streams.outputs import Outputs
from streams.partitioning import Partitions
from streams.policy.standing import Standing
from streams.raw import RawRecord
from streams.state import History, UserState
from streams.tasks.base import Context, Result, Serving, Task
from streams.work import REPLAYED, Failure, Job, Order, Outgoing, Said, Work

log = logging.getLogger(__name__)

Part = tuple[int, Sequence[RawRecord], Sequence[Record | BadRecord]]
"""Topic index, and records of one topic-partition with what they were decoded to."""


class Scorer:
    """Scores micro-batches of raw records of any input topics and partitions.

    `prepare` and `outputs.waves` run on the loop's thread, in order; `infer` may run on another, one call at a time.
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
        policies: Standing | None = None,
    ) -> None:
        self.policies = policies or Standing()
        self.tasks, self.slots, self.codecs, self.names = tasks, slots, codecs, names
        self.state, self.catalog, self.entities = state, catalog, entities
        self.max_message_bytes = max_message_bytes
        self._partition = Partitions(partitions)
        self.deadlines_ms = deadlines_ms
        self.outputs = Outputs(codecs, names, partitions=partitions, carried_bytes=carried_bytes)

    # -- decode ----------------------------------------------------------------------------------------------

    def decode(self, topic: int, records: Sequence[RawRecord]) -> list[Record | BadRecord]:
        """Records of one topic-partition; raises RegistryUnavailable, and then none of them was touched."""
        kind, limit = EVENT_TYPES[topic], self.max_message_bytes
        decoded: list[Record | BadRecord] = [*self.codecs.inputs[topic].decode_many([r.value for r in records])]
        for number, (record, raw) in enumerate(zip(decoded, records, strict=True)):
            if isinstance(record, BadRecord):
                continue
            try:
                if raw.value is not None and len(raw.value) > limit:
                    raise BadRecord("oversized", f"{len(raw.value)} bytes", expected=f"at most {limit}")
                check(record, kind, raw.timestamp)
            except BadRecord as error:
                decoded[number] = error
        return decoded

    # -- prepare ---------------------------------------------------------------------------------------------

    def prepare(
        self,
        parts: Iterable[Part],
        now_ms: int,
        order: Order | None = None,
        said: Said | None = None,
    ) -> Work:
        """Absorbs decoded parts (topic index, raw, decoded) and makes the feature rows of what is to be scored.

        `said`: score records that a predecessor already sent, by (topic index, partition, offset).
        `order` makes the processing order of what is left, see UserState.absorb.
        """
        first: list[Outgoing] = []
        topic, raw, events = self._good(parts, first, now_ms)
        batch = self._batch(topic, raw, events)
        absorbed = self.state.absorb(batch, order(events, topic, raw, said or {}) if order else None)
        self.outputs.counts.duplicates += len(events) - int(np.count_nonzero(absorbed.fresh))
        self.outputs.counts.out_of_order += int(np.count_nonzero(absorbed.late))
        work = Work(events, raw, batch, absorbed, [], first, now_ms)
        work.jobs += self._jobs(work, set(topic), said or {})
        return work

    def absorb_only(self, parts: Iterable[Part]) -> None:
        """Fast-forward: what was scored before the committed offset only moves the state."""
        topic, raw, events = self._good(parts, None, 0)
        if events:
            self.state.absorb(self._batch(topic, raw, events))

    def _good(
        self, parts: Iterable[Part], first: list[Outgoing] | None, now_ms: int
    ) -> tuple[list[int], list[RawRecord], list[Record]]:
        """Topic, raw record and event of what is neither bad nor misplaced; the rest goes to `first`, if given."""
        topic: list[int] = []
        raw: list[RawRecord] = []
        events: list[Record] = []
        for kind, records, decoded in parts:
            for record, event in zip(records, decoded, strict=True):
                if not isinstance(event, BadRecord):
                    topic.append(kind)
                    raw.append(record)
                    events.append(event)
                elif first is not None:
                    first.append(self.outputs.dead(record, event, now_ms))
        own = self._partition.of([event["user_id"] for event in events])
        if own != [record.partition for record in raw]:
            home = [record.partition == place for record, place in zip(raw, own, strict=True)]
            if first is not None:
                away = [number for number, right in enumerate(home) if not right]
                first += [self.outputs.misplaced(raw[number], events[number], now_ms) for number in away]
            topic, raw, events = list(compress(topic, home)), list(compress(raw, home)), list(compress(events, home))
        return topic, raw, events

    def _batch(self, topic: Sequence[int], raw: Sequence[RawRecord], events: Sequence[Record]) -> EventBatch:
        partition, offset = [record.partition for record in raw], [record.offset for record in raw]
        return event_batch(events, topic, partition, offset, self.catalog)

    def _jobs(self, work: Work, topics: Collection[int], said: Said) -> list[Job]:
        """A job for each task that has fresh events. What all tasks share is made for all of them at once, the
        events of a task side by side: a job has slices of it."""
        absorbed, topic = work.absorbed, work.batch.topic
        found = [
            (task, (absorbed.fresh & (topic == task.topic)).nonzero()[0]) for task in self.tasks if task.topic in topics
        ]
        found = [(task, index) for task, index in found if len(index)]
        if not found:
            return []
        order = found[0][1] if len(found) == 1 else np.concatenate([index for _, index in found])
        history = self.state.gather(absorbed, order)
        shared = np.empty(len(order), SEQUENCE)
        fill_sequence(shared, history, work.batch, order)
        jobs, start = [], 0
        for task, index in found:
            part = slice(start, start + len(index))
            jobs.append(self._job(task, index, work, shared[part], History(history.entries[part]), said))
            start = part.stop
        return jobs

    def _job(
        self, task: Task, index: NDArray[np.intp], work: Work, sequences: Rows, history: History, said: Said
    ) -> Job:
        places = index.tolist()
        events, raw = [work.events[at] for at in places], [work.raw[at] for at in places]
        absorbed, batch = work.absorbed, work.batch
        rows = with_sequences(sequences, task.features)
        entities = self.entities.lookup(batch.tokens[index])
        context = Context(
            batch.time[index],
            history,
            absorbed.totals[index],
            absorbed.first_time[index],
            absorbed.known[index],
            entities,
            self.catalog,
        )
        task.fill(rows, events, context)
        late = self._late(task, raw, work.started_ms)
        old = [said.get((task.topic, record.partition, record.offset)) for record in raw] if said else []
        return Job(
            task,
            index,
            events,
            rows,
            entities,
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
                    late[number] = not any(name == REPLAYED for name, _ in record.headers)
        return late

    # -- infer -----------------------------------------------------------------------------------------------

    def infer(self, work: Work) -> None:
        """Runs each job's model over the rows that need it, and the fallback over the rest.

        Where the live release fails, the one before it answers, and serves from now on; raises EngineError if there
        is none.
        """
        for job in work.jobs:
            slot = self.slots[job.task.name]
            job.buckets = [(0, 0)] * len(job.events)
            started = time.perf_counter()
            fallback = job.fallback.tolist()
            todo = [number for number, result in enumerate(job.results) if result is None]
            index = [number for number in todo if not fallback[number]]
            while True:
                live = slot.live
                job.release, job.engine = f"{job.task.name}/{live.release}", live.engine_name
                policy = self.policies.live if job.task.raises_alerts else None
                serving = Serving(self.catalog, live.calibration, live.settings, policy)
                try:
                    self._model(job, live, serving, index)
                    break
                except EngineError as error:
                    if len(slot.kept) == 1:
                        raise
                    self._roll_back(job, slot, index, str(error))
            self._fallback(job, serving, [number for number in todo if fallback[number]])
            job.infer_us = round((time.perf_counter() - started) * 1e6)

    def explain(self, work: Work) -> None:
        """Why each alert of the micro-batch is raised, by the engine that raised it; where it cannot say, none."""
        for job in work.jobs:
            if numbers := raised(job):
                try:
                    job.explained = explain(job, self.slots[job.task.name].live, numbers)
                except EngineError as error:
                    self.outputs.notices.say(f"alerts of {job.release} are not explained", str(error))

    def compare(self, work: Work) -> None:
        """Counts what the shadow policy decides, beside what was decided."""
        shadow = self.policies.shadow
        for job in work.jobs if shadow is not None else ():
            if job.task.raises_alerts:
                for event, row, result in zip(job.events, job.rows["fields"], job.results, strict=True):
                    if shadow is not None and result is not None and result.decision is not None:
                        would = shadow.decide(event, result.prediction[0], row).decision
                        self.outputs.counts.policies[result.decision, would] += 1

    def _roll_back(self, job: Job, slot: Slot, events: Sequence[int], reason: str) -> None:
        """In a turn of the engines', as every flip."""
        job.failures = (*job.failures, Failure(job.release, reason, events))
        name = f"{job.task.name}/{slot.roll_back().release}"
        log.error("release %s failed while it served; %s is live again: %s", job.release, name, reason)

    def _model(self, job: Job, live: Loaded, serving: Serving, index: Sequence[int]) -> None:
        table, step = Lookups(live.table), live.max_batch
        for start in range(0, len(index), step):
            chunk = index[start : start + step]
            whole = len(chunk) == len(job.events)
            rows = job.rows if whole else job.rows[chunk]
            events = job.events if whole else [job.events[number] for number in chunk]
            results, bucket = answered(job.task, live, rows, events, serving, table)
            for number, (position, result) in enumerate(zip(chunk, results, strict=True)):
                job.results[position] = result
                job.buckets[position] = (bucket, number)

    def _fallback(self, job: Job, serving: Serving, index: Sequence[int]) -> None:
        if index:
            results = job.task.fallback([job.events[number] for number in index], serving)
            for position, result in zip(index, results, strict=True):
                job.results[position] = result


def answered(
    task: Task, loaded: Loaded, rows: Rows, events: Sequence[Record], serving: Serving, table: Lookups
) -> tuple[list[Result], int]:
    """A release's results of at most `max_batch` rows, and the bucket they ran in.

    Raises EngineError if it fails, or if a score of it is not a number: that would be served as one.
    """
    inference = loaded.answer(len(rows), partial(task.inputs, rows, table))
    for name, array in inference.outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise EngineError(
                f"output {name!r} of {len(rows)} rows is not finite",
                where=f"{task.name}/{loaded.release}, engine {loaded.engine_name}",
                expected="numbers",
                todo="look at the release: it is not served",
            )
    return task.results(inference.outputs, events, rows, serving), inference.bucket
