"""A span of what was served, in chunks, and the newest label of each target and candidate of it.
Memory is bounded by the labels of the span, 42 bytes each, and by what one chunk holds.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from schemas.registry import Registry
from streams.config import Settings
from streams.events import Record
from streams.labels.rules import PRECEDENCE, rank
from streams.tasks.base import Task
from streams.tracing.reading import TopicReader

CHUNK = 1024
SILENCE = len(PRECEDENCE) + 1
"""Its rank: whoever says something comes before it."""
REMEMBERED = 100_000  # events of a partition among which a repeat is known: repeats come soon, after a crash


def key_of(target: str, candidate: str | None) -> int:
    """64 bits that name a target's candidate."""
    named: int = xxhash.xxh3_64_intdigest(f"{target}\0{candidate or ''}".encode())
    return named


def served_in(
    settings: Settings, registry: Registry, task: Task, start: int, end: int, limit: int = 0
) -> Iterator[list[Record]]:
    """`served` records of start <= event time < end (UTC ms), each event once, at most CHUNK at a time; by partition.

    limit: events at most; 0: all. The whole topic is read: event time says nothing of when a record came.
    """
    reader = TopicReader(settings, registry, settings.topics.served(task.name), "served")
    records = _once(
        (found.partition, found.record)
        for chunk in reader.chunks()
        for found in chunk
        if start <= found.record["event_time"] < end
    )
    left = islice(records, limit or None)
    while chunk := list(islice(left, CHUNK)):
        yield chunk


def _once(records: Iterable[tuple[int, Record]]) -> Iterator[Record]:
    seen: dict[int, None] = {}
    now = -1
    for partition, record in records:
        if partition != now:
            seen, now = {}, partition
        key = key_of(record["event_id"], None)
        if key in seen:
            continue
        seen[key] = None
        if len(seen) > REMEMBERED:
            del seen[next(iter(seen))]
        yield record


class Labels:
    """The label that counts of each target and candidate: the newest, by the time of observation and the revision, of
    the source that outranks the others. What somebody said counts before silence."""

    def __init__(self) -> None:
        self._key, self._rank, self._withdrawn = array("Q"), array("b"), array("b")
        self._observed, self._revision = array("q"), array("q")
        self._value, self._weight = array("d"), array("d")
        self._sorted: tuple[NDArray[np.uint64], NDArray[np.intp]] | None = None

    def add(self, record: Record, *, value: float, weight: float, withdrawn: bool = False) -> None:
        """A Label or a TrainingExample; one without a source is silence."""
        self._sorted = None
        self._key.append(key_of(record["target_id"], record["candidate_id"]))
        self._rank.append(rank(record["source"]) if record["source"] else SILENCE)
        self._withdrawn.append(withdrawn)
        self._observed.append(record["observed_at"])
        self._revision.append(record["revision"])
        self._value.append(value)
        self._weight.append(weight)

    def look_up(self, keys: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
        """Of each key (N,): whether there is a label, its value 0 to 1, and its weight."""
        known, place = self._newest()
        wanted = np.array(keys, np.uint64)
        at = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
        if not len(known):
            return np.zeros(len(wanted), np.bool_), np.zeros(len(wanted)), np.zeros(len(wanted))
        there = known[at] == wanted
        value, weight = np.array(self._value)[place[at]], np.array(self._weight)[place[at]]
        return there, np.where(there, value, 0.0), np.where(there, weight, 0.0)

    def _newest(self) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
        """Keys, ascending, and where the newest label of each is."""
        if self._sorted is None:
            key, place = np.array(self._key, np.uint64), np.array(self._rank, np.int64)
            order = np.lexsort((np.array(self._revision), np.array(self._observed), -place, key))
            newest = order[_last(key[order], place[order])]  # of each source
            newest = newest[np.array(self._withdrawn, np.bool_)[newest] == 0]
            newest = newest[_last(key[newest])]
            self._sorted = key[newest], newest
        return self._sorted


def _last(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Of rows in order, the last of each run of equal ones."""
    last = np.ones(len(columns[0]), np.bool_)
    last[:-1] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return last


def read_labels(settings: Settings, registry: Registry, task: Task, start: int, end: int) -> Labels:
    """From training.examples, of events of the span (UTC ms), and events.labels, observed since it began.

    Only the task's own outcome counts, not what counts besides (a purchase, a conversion).
    """
    labels, name = Labels(), task.labels.name
    for chunk in TopicReader(settings, registry, settings.topics.examples, "training_example").chunks():
        for found in chunk:
            record = found.record
            if (record["task"], record["name"]) == (task.name, name) and start <= record["event_time"] < end:
                labels.add(record, value=record["label"], weight=record["weight"], withdrawn=record["weight"] == 0)
    for chunk in TopicReader(settings, registry, settings.topics.labels, "label").chunks():
        for found in chunk:
            record = found.record
            if (record["task"], record["name"]) == (task.name, name) and record["observed_at"] >= start:
                labels.add(record, value=record["value"], weight=1.0, withdrawn=record["withdrawn"])
    return labels
