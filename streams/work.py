"""A micro-batch on its way through the loop: what came, what is to be scored, what goes out.
Data only; `scoring` fills it, `outputs` reads it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.slot import Canary
from streams.asking.header import Answer
from streams.batch import EventBatch
from streams.events import Record
from streams.features import Rows
from streams.raw import RawRecord
from streams.state import Absorbed, History
from streams.tasks.attribution import Attribution
from streams.tasks.base import Result, Task
from streams.telemetry.context import Headers

if TYPE_CHECKING:
    from streams.telemetry.contract import Trace

REPLAYED = "headrace-replayed"  # header of an event that is not late however old its timestamp is

Said = Mapping[tuple[int, int, int], Record]
Gather = Callable[[Absorbed, NDArray[np.intp]], History]
Order = Callable[[Sequence[Record], Sequence[int], Sequence[RawRecord], Said], NDArray[np.int64]]


class Outgoing(NamedTuple):
    """One record to send, as streams.producer takes it; `partition` None leaves it to the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: list[tuple[str, bytes]] | None = None


def outgoing(
    topic: str,
    keys: Iterable[bytes],
    values: Sequence[bytes],
    partitions: Iterable[int | None] = repeat(None),
    headers: Iterable[Headers | None] = repeat(None),
) -> Iterator[Outgoing]:
    """Records of one topic by their columns: four times as fast as one by one."""
    fields = zip(repeat(topic), keys, values, partitions, headers, strict=False)
    return map(tuple.__new__, repeat(Outgoing), fields)


class Failure(NamedTuple):
    """A release that was live and gave no scores: another one answered, for the job's events of these numbers."""

    release: str
    reason: str
    events: Sequence[int]


class Told(NamedTuple):
    """An event whose score a request was told before the event came: its number in the micro-batch, the score's
    record, and the answer.
    """

    number: int
    score: Record
    answer: Answer


@dataclass(slots=True)
class Job:
    """One task's part of a micro-batch: B events that its model scores, or its fallback answers."""

    task: Task
    index: NDArray[np.intp]  # into the micro-batch's events
    events: list[Record]
    rows: Rows
    entities: NDArray[np.int32]  # (B, 5, 2) users and frauds of each event's entities, as looked up
    late: NDArray[np.bool_]
    fallback: NDArray[np.bool_]
    results: list[Result | None]
    said: list[Record | None]
    release: str = ""
    engine: str = ""
    infer_us: int = 0
    buckets: list[tuple[int, int]] = field(default_factory=list)  # (bucket, row) of each event
    failures: tuple[Failure, ...] = ()
    canary: Canary | None = None  # what serves these events' users, if it is not the live release
    told: list[Record] = field(default_factory=list)  # scores that requests were told: to be sent as they are
    selection: str = ""  # what is chosen of its ranking, as `served` holds it
    explained: dict[int, Attribution] = field(default_factory=dict)  # by the number of an event that raises an alert


@dataclass(slots=True)
class Work:
    """A micro-batch on its way: what came, what state says of it, and a job per task."""

    events: list[Record]
    raw: list[RawRecord]
    batch: EventBatch
    absorbed: Absorbed
    jobs: list[Job]
    first: list[Outgoing]  # dead letters and moves: sent with the scores
    started_ms: int
    told: Mapping[str, list[Told]] = field(default_factory=dict)  # by task
    history: Sequence[int] = ()  # numbers of events that a backfill brought: absorbed, and scored by no task
    headers: Mapping[int, Headers] = field(default_factory=dict)  # of scores and alerts, by event: a trace's context
    trace: "Trace | None" = None
