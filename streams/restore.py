"""Brings a newly assigned partition to where its predecessor stopped: state, then the events that were scored and
committed after it, then those that were scored and not committed. Nothing here decides; `recovery` orders.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from schemas.errors import BadRecord, HeadraceError
from streams.asking.header import asked
from streams.batch import TOPICS
from streams.changelog import Changelog, Frontier, Progress
from streams.config import Settings
from streams.events import Record
from streams.offsets import bounds, committed, read_range
from streams.raw import RawRecord
from streams.recovery import Cut, horizon, processing_order
from streams.scoring import Scorer
from streams.store import UserStore
from streams.tenure import Tenure
from streams.work import Work

log = logging.getLogger(__name__)

T = TypeVar("T")

CHUNK = 2048
RETRY_S = 1.0


@dataclass(slots=True)
class Restored:
    """Where a partition stands after recovery.

    resume: next offset per topic to score; what comes before is skipped. scores: next score offset per task.
    window: the micro-batch of events that were half said; its outputs are to be sent before anything else.
    """

    resume: list[int]
    scores: dict[str, int]
    window: Work | None = None
    said: dict[tuple[int, int, int], Record] = field(default_factory=dict)


class Recovery:
    """Blocking: called from a thread while no events of the partition flow."""

    def __init__(
        self,
        settings: Settings,
        scorer: Scorer,
        changelog: Changelog,
        store: UserStore,
        progress: Progress | None = None,
    ) -> None:
        self._settings, self._scorer = settings, scorer
        self._changelog, self._store, self._progress = changelog, store, progress
        self._tenure: Tenure

    def run(self, partition: int, now_ms: int, tenure: Tenure) -> Restored:
        """Raises Moved as soon as the tenure is over: nothing is acquired then, and nothing more is read.

        Raises FrontierTooOld where an input log no longer reaches back, BrokerUnavailable, Fenced.
        """
        inputs, tasks = self._scorer.names.inputs, self._scorer.names.scores
        self._tenure = tenure
        tenure.confirm()  # to acquire shuts out whoever has the partition now, and that process ends
        self._changelog.acquire(partition)
        tenure.check()
        frontier = self._changelog.restore(partition, self._store, self._restored)
        places = [(topic, partition) for topic in inputs]
        found = bounds(self._settings, [*places, *((topic, partition) for topic in tasks.values())])
        read = committed(self._settings, self._settings.app_id, places)
        if frontier is None:
            frontier = Frontier(tuple(found[place][0] for place in places), {}, now_ms)
        start = [max(read.get(place, stood), stood) for place, stood in zip(places, frontier.inputs, strict=True)]
        for topic, (stood, end) in enumerate(zip(frontier.inputs, start, strict=True)):
            self._fast_forward(topic, partition, stood, end)
        scores = {task: max(frontier.scores.get(task, 0), found[topic, partition][0]) for task, topic in tasks.items()}
        said = dict(self._said(partition, scores, {t: found[topic, partition][1] for t, topic in tasks.items()}, start))
        restored = Restored(start, scores, said=said)
        if said:
            self._window(partition, restored, now_ms)
        log.info("partition %d restored", partition, extra={"partition": partition, "half_said": len(said)})
        return restored

    def _restored(self, done: int, total: int) -> None:
        self._tenure.check()
        if self._progress is not None:
            self._progress(done, total)

    def _fast_forward(self, topic: int, partition: int, start: int, end: int) -> None:
        """Absorbs without scoring: these events' scores are out, and committed."""
        for records in self._read(topic, partition, start, end):
            self._scorer.absorb_only([(topic, records, self._scorer.decode(topic, records))])

    def _said(
        self, partition: int, scores: dict[str, int], ends: dict[str, int], start: Sequence[int]
    ) -> Iterator[tuple[tuple[int, int, int], Record]]:
        """Scores of events at or after `start`, by (topic, partition, offset of the event)."""
        for task in self._scorer.tasks:
            decode, name = self._scorer.codecs.said[task.name], self._scorer.names.scores[task.name]
            for messages in read_range(self._settings, name, partition, scores[task.name], ends[task.name]):
                self._tenure.check()
                for score in decode.decode_many([message.value() for message in messages]):
                    if isinstance(score, BadRecord):
                        continue
                    offset = score["cut"][TOPICS[task.topic]]
                    if offset >= start[task.topic]:
                        yield (task.topic, partition, offset), score

    def _window(self, partition: int, restored: Restored, now_ms: int) -> None:
        """All events up to the newest that any score had seen, in an order that agrees with every cut."""
        last = horizon([_cut(score) for score in restored.said.values()])
        parts: list[tuple[int, list[RawRecord], list[Record | BadRecord]]] = []
        for topic, start in enumerate(restored.resume):
            for records in self._read(topic, partition, start, last[topic] + 1):
                parts.append((topic, records, self._scorer.decode(topic, records)))
            restored.resume[topic] = max(start, last[topic] + 1)
        restored.window = self._scorer.prepare(parts, now_ms, order=self._order, said=restored.said)

    @staticmethod
    def _order(
        events: Sequence[Record],
        topic: Sequence[int],
        raw: Sequence[RawRecord],
        said: Mapping[tuple[int, int, int], Record],
    ) -> NDArray[np.int64]:
        scores = [said.get((kind, r.partition, r.offset)) for kind, r in zip(topic, raw, strict=True)]
        # What a request was told is of before its event came: its cut says nothing of the event's place.
        cuts = [_cut(score) if score and not asked(r.headers) else None for score, r in zip(scores, raw, strict=True)]
        return processing_order([e["user_id"] for e in events], topic, [r.offset for r in raw], cuts)

    def _read(self, topic: int, partition: int, start: int, end: int) -> Iterator[list[RawRecord]]:
        name = self._scorer.names.inputs[topic]
        for messages in read_range(self._settings, name, partition, start, end):
            for first in range(0, len(messages), CHUNK):
                self._tenure.check()
                yield [RawRecord.of(message) for message in messages[first : first + CHUNK]]


async def until_it_works(what: str, attempt: Callable[..., T], *args: Any) -> T:
    """Runs a blocking call in a thread, again and again while it raises a retriable error, which is said once."""
    last = ""
    while True:
        try:
            return await asyncio.to_thread(attempt, *args)
        except HeadraceError as error:
            if not error.retriable:
                raise
            if str(error) != last:
                log.warning("%s waits: %s", what, error)
            last = str(error)
            await asyncio.sleep(RETRY_S)


def _cut(score: Record) -> Cut:
    cut = score["cut"]
    return cut["clicks"], cut["orders"], cut["impressions"]
