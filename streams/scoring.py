"""The scoring loop's body: decode, absorb, features, engine, results, records to send.
It crosses no network; whoever calls it sends what it returns, in its two waves, and acknowledges the input after.
"""

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engines.slot import Loaded, Slot
from schemas.errors import BadRecord
from streams.catalog import Catalogue
from streams.codecs import Codecs, Names
from streams.deadletters import CARRIED_BYTES, RawRecord
from streams.entities import EntityView
from streams.events import EVENT_TYPES, Record, check, event_batch
from streams.features import fill_sequence
from streams.outputs import Outputs
from streams.partitioning import partitions_for
from streams.state import UserState
from streams.tasks.base import Context, Serving, Task
from streams.work import REPLAYED, Job, Order, Outgoing, Said, Work


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
    ) -> None:
        self.tasks, self.slots, self.codecs, self.names = tasks, slots, codecs, names
        self.state, self.catalog, self.entities = state, catalog, entities
        self.partitions, self.max_message_bytes = partitions, max_message_bytes
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
                    first.append(self.outputs.dead(record, event, now_ms))
                else:
                    good.append((kind, record, event))
        home = self._home(good)
        if not all(home):
            away = [item for item, right in zip(good, home, strict=True) if not right]
            first += [self.outputs.misplaced(record, event, now_ms) for _, record, event in away]
            good = [item for item, right in zip(good, home, strict=True) if right]
        topic, raw, events = [list(column) for column in zip(*good, strict=True)] if good else [[], [], []]
        batch = event_batch(
            events,
            topic,
            [record.partition for record in raw],
            [record.offset for record in raw],
            self.catalog,
        )
        absorbed = self.state.absorb(batch, order(events, topic, raw, said or {}) if order else None)
        self.outputs.counts.duplicates += len(events) - int(absorbed.fresh.sum())
        self.outputs.counts.out_of_order += int(absorbed.late.sum())
        work = Work(events, raw, batch, absorbed, [], first, now_ms)
        for task in self.tasks:
            index = np.flatnonzero(absorbed.fresh & (batch.topic == task.topic))
            if len(index):
                work.jobs.append(self._job(task, index, work, said or {}))
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
        events = [work.events[i] for i in index.tolist()]
        absorbed, time_B = work.absorbed, work.batch.time[index]
        history = self.state.gather(absorbed, index)
        rows = np.zeros(len(index), task.features)
        fill_sequence(rows, history, work.batch, index)
        entities = self.entities.lookup(work.batch.tokens[index])
        context = Context(
            time_B,
            history,
            absorbed.totals[index],
            absorbed.first_time[index],
            absorbed.known[index],
            entities,
            self.catalog,
        )
        task.fill(rows, events, context)
        late = self._late(task, [work.raw[i] for i in index.tolist()], work.started_ms)
        old = [said.get((task.topic, work.raw[i].partition, work.raw[i].offset)) for i in index] if said else []
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
        """Runs each job's model over the rows that need it, and the fallback over the rest."""
        for job in work.jobs:
            live = self.slots[job.task.name].live
            job.release, job.engine = f"{job.task.name}/{live.release}", live.engine_name
            job.buckets = [(0, 0)] * len(job.events)
            serving = Serving(self.catalog, live.calibration, live.settings)
            todo = np.array([result is None for result in job.results])
            started = time.perf_counter()
            self._model(job, live, serving, np.flatnonzero(todo & ~job.fallback))
            self._fallback(job, serving, np.flatnonzero(todo & job.fallback))
            job.infer_us = round((time.perf_counter() - started) * 1e6)

    def _model(self, job: Job, live: Loaded, serving: Serving, index: NDArray[np.intp]) -> None:
        step = live.max_batch
        for start in range(0, len(index), step):
            chunk = index[start : start + step]
            rows = job.rows[chunk]
            events = [job.events[i] for i in chunk.tolist()]
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
