"""The scoring loop's body: decode, absorb, features, engine, results, records to send.
It crosses no network; whoever calls it sends what it returns, in its two waves, and acknowledges the input after.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from engines.slot import Slot
from schemas.errors import BadRecord
from streams.answering import Answering, Share
from streams.asking.answers import Answers
from streams.asking.jobs import told_jobs, untold
from streams.batch import EventBatch
from streams.catalog import Catalogue
from streams.codecs import Codecs, Names
from streams.deadletters import CARRIED_BYTES
from streams.entities import EntityView
from streams.events import EVENT_TYPES, Record, check, event_batch
from streams.features import SEQUENCE, Rows, fill_sequence, with_sequences
from streams.history import history_among
from streams.outputs import Outputs
from streams.partitioning import Partitions
from streams.policy.standing import Standing
from streams.privacy.erasures import Erasures
from streams.raw import RawRecord
from streams.state import History, UserState
from streams.tasks.base import Context, Task
from streams.tasks.selection import Selection
from streams.work import REPLAYED, Gather, Job, Order, Outgoing, Said, Work

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
        selections: Mapping[str, Selection] = MappingProxyType({}),
    ) -> None:
        self.policies, self.selections = policies or Standing(), selections
        self.tasks, self.codecs, self.names = tasks, codecs, names
        self.state, self.catalog, self.entities = state, catalog, entities
        self.answers, self.kept = Answers(), Erasures().kept
        self.max_message_bytes = max_message_bytes
        self._partition = Partitions(partitions)
        self.deadlines_ms = deadlines_ms
        self.outputs = Outputs(codecs, names, partitions=partitions, carried_bytes=carried_bytes)
        self._answering = Answering(slots, catalog, self.policies, self.outputs, selections)

    @property
    def slots(self) -> Mapping[str, Slot]:
        return self._answering.slots

    @slots.setter
    def slots(self, slots: Mapping[str, Slot]) -> None:
        """Between two micro-batches."""
        self._answering.slots = slots

    # -- decode ----------------------------------------------------------------------------------------------

    def decode(self, topic: int, records: Sequence[RawRecord]) -> list[Record | BadRecord]:
        """Records of one topic-partition; raises RegistryUnavailable, and then none of them was touched."""
        self.answers.check(records)
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
        batch = self.batch(topic, raw, events)
        absorbed = self.state.absorb(batch, order(events, topic, raw, said or {}) if order else None)
        self.outputs.counts.duplicates += len(events) - int(np.count_nonzero(absorbed.fresh))
        self.outputs.counts.out_of_order += int(np.count_nonzero(absorbed.late))
        work = Work(events, raw, batch, absorbed, [], first, now_ms, history=history_among(raw))
        work.told = self.answers.among(work)
        work.jobs += self.jobs(work, set(topic), said or {}, self.state.gather)
        work.jobs += told_jobs(self.tasks, work, self.entities, said or {})
        for job in work.jobs:
            if selection := self.selections.get(job.task.name):
                job.selection = selection.text
        return work

    def absorb_only(self, parts: Iterable[Part]) -> None:
        """Fast-forward: what was scored before the committed offset only moves the state."""
        topic, raw, events = self._good(parts, None, 0)
        if events:
            self.state.absorb(self.batch(topic, raw, events))

    def _good(
        self, parts: Iterable[Part], first: list[Outgoing] | None, now_ms: int
    ) -> tuple[list[int], list[RawRecord], list[Record]]:
        """Topic, raw record and event of what is neither bad nor misplaced; the rest goes to `first`, if given."""
        topic, raw, events = list[int](), list[RawRecord](), list[Record]()
        for kind, records, decoded in parts:
            for record, event in zip(*self.kept(kind, records, decoded), strict=True):
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

    def batch(self, topic: Sequence[int], raw: Sequence[RawRecord], events: Sequence[Record]) -> EventBatch:
        partition, offset = [record.partition for record in raw], [record.offset for record in raw]
        return event_batch(events, topic, partition, offset, self.catalog)

    def jobs(self, work: Work, topics: Collection[int], said: Said, gather: Gather) -> list[Job]:
        """A job for each task that has fresh events. What all tasks share is made for all of them at once, the
        events of a task side by side: a job has slices of it."""
        absorbed = work.absorbed
        found: list[Share] = []
        for task in self.tasks:
            if task.topic in topics:
                found += self._answering.shares(task, untold(task, work), work.events)
        if not found:
            return []
        order = found[0][1] if len(found) == 1 else np.concatenate([index for _, index, _ in found])
        history = gather(absorbed, order)
        shared = np.empty(len(order), SEQUENCE)
        fill_sequence(shared, history, work.batch, order)
        jobs, start = [], 0
        for task, index, canary in found:
            part = slice(start, start + len(index))
            job = self._job(task, index, work, shared[part], History(history.entries[part]), said)
            job.canary = canary
            jobs.append(job)
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

    # -- answer ----------------------------------------------------------------------------------------------

    def infer(self, work: Work) -> None:
        """Results of all jobs; see streams.answering."""
        self._answering.infer(work)

    def explanations(self, work: Work) -> Iterator[Callable[[], None]]:
        """See streams.answering."""
        return self._answering.explanations(work)

    def compare(self, work: Work) -> None:
        self._answering.compare(work)
