"""Replays the input topics to the cut of every score, through the code that served, and compares what was served.
It is the proof behind "what was served is what is trained on": equal cut, equal code, equal bytes.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from confluent_kafka import Message

from schemas.confluent import ConfluentRegistry
from schemas.errors import BadRecord
from schemas.wire import Decoder
from streams.batch import TOPICS
from streams.catalog import Catalogue
from streams.codecs import Names, make_codecs, make_names
from streams.config import Settings
from streams.entities import EntityView
from streams.events import ENTITY_FIELDS, Record
from streams.features import pack
from streams.live import CatalogueFeed
from streams.offsets import bounds, places, read_range
from streams.raw import RawRecord
from streams.restore import Recovery
from streams.scoring import Scorer
from streams.state import UserState
from streams.tasks import make_task
from streams.tasks.base import Task
from streams.tasks.fraud import COLUMN

TASK_OF_TOPIC = {"clicks": "recommendations", "orders": "fraud", "impressions": "ctr"}
# What others did with a card or an address is stored as it was seen, and is not of the user's own events.
ENTITY_COLUMNS = [COLUMN[f"{name}_{what}"] for name in ENTITY_FIELDS for what in ("users", "frauds")]

Place = tuple[int, int, int]  # topic, partition, offset of an event


@dataclass(slots=True)
class Replay:
    """What a pass over all partitions found. `differences` and `cuts` name the events that came out otherwise."""

    compared: int = 0
    by_task: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    cuts: list[str] = field(default_factory=list)
    rows: dict[bytes, bytes] = field(default_factory=dict)


def replayed(settings: Settings) -> Replay:
    """One undisturbed pass over what is on the topics now: features at each score's cut, and the state at the end."""
    tasks = [make_task(name) for name in settings.tasks]
    names, out = make_names(settings, tasks), Replay()
    with closing(ConfluentRegistry(settings.registry())) as registry:
        feed = CatalogueFeed(settings, registry, Catalogue())
        try:
            feed.wait_current(60)
            feed.drain()
        finally:
            feed.stop()
        served = _served(settings, registry, tasks)
        codecs = make_codecs(registry, names, tasks)
        for partition in range(settings.partitions):
            state = UserState(slots=65_536)
            entities = EntityView(Decoder(registry, "entity_state"))
            scorer = Scorer(
                tasks, {}, codecs, names, state, feed.catalog, entities,
                partitions=settings.partitions, max_message_bytes=settings.max_message_bytes, deadlines_ms={},
            )  # fmt: skip
            _pass(settings, scorer, names, partition, served, out)
            out.rows |= dict(state.snapshot([partition]).rows(partition))
    return out


def comparable(task: Task, features: bytes) -> bytes:
    """A row's bytes with entity values blanked."""
    row = np.frombuffer(features, task.features).copy()
    if task.name == "fraud":
        row["fields"][:, ENTITY_COLUMNS] = 0
    return row.tobytes()


def read_topic(settings: Settings, topic: str, partition: int) -> Iterator[Message]:
    """All messages of a partition now."""
    low, high = bounds(settings, [(topic, partition)])[topic, partition]
    for messages in read_range(settings, topic, partition, low, high):
        yield from messages


def _served(
    settings: Settings, registry: ConfluentRegistry, tasks: Sequence[Task]
) -> dict[tuple[str, str], list[bytes]]:
    """Served features by task and event id."""
    decode, found = Decoder(registry, "served"), dict[tuple[str, str], list[bytes]]()
    for task in tasks:
        topic = settings.topics.served(task.name)
        for _, partition in places(settings, topic):
            for message in read_topic(settings, topic, partition):
                record = decode(message.value())
                found.setdefault((task.name, record["event_id"]), []).append(record["features"])
    return found


def _pass(
    settings: Settings,
    scorer: Scorer,
    names: Names,
    partition: int,
    served: dict[tuple[str, str], list[bytes]],
    out: Replay,
) -> None:
    said = dict(_said(settings, scorer, names, partition))
    parts = []
    for topic, name in enumerate(names.inputs):
        raw = [RawRecord.of(message) for message in read_topic(settings, name, partition)]
        parts.append((topic, raw, scorer.decode(topic, raw)))
    work = scorer.prepare(parts, 0, order=Recovery._order, said=said)
    for job in work.jobs:
        for at, event, packed in zip(job.index.tolist(), job.events, pack(job.rows), strict=True):
            place = job.task.topic, partition, work.raw[at].offset
            what = f"{job.task.name} {event['event_id']}"
            if (score := said.get(place)) is None:
                continue
            if [score["cut"][name] for name in TOPICS] != work.absorbed.cut[at].tolist():
                out.cuts.append(what)
            for features in served.get((job.task.name, event["event_id"]), ()):
                out.compared += 1
                out.by_task[job.task.name] = out.by_task.get(job.task.name, 0) + 1
                if comparable(job.task, features) != comparable(job.task, packed):
                    out.differences.append(what)


def _said(settings: Settings, scorer: Scorer, names: Names, partition: int) -> Iterator[tuple[Place, Record]]:
    for task in scorer.tasks:
        decode = scorer.codecs.said[task.name]
        messages = read_topic(settings, names.scores[task.name], partition)
        score: Any
        for score in decode.decode_many([message.value() for message in messages]):
            if not isinstance(score, BadRecord):
                yield (task.topic, partition, score["cut"][TOPICS[task.topic]]), score
