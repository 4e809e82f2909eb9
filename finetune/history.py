"""Training examples from recorded events: the same state, the same feature rows as in serving, replayed in event time.
Used for a first training, before anything was served; afterwards what was served is what is trained on.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.labels import Labels
from streams.batch import CLICKS, TOPICS, EventBatch
from streams.catalog import Catalogue
from streams.events import Record, event_batch
from streams.features import Rows, fill_sequence
from streams.state import UserState
from streams.tasks.base import Context, Task

Timed = tuple[str, Record]  # topic name ("clicks", "orders", "impressions", "labels") and record

BATCH = 4096
SLOTS = 65_536
MOST_USERS = 64  # distinct users counted of an entity, as its owner counts them when serving
FOR_EVER = 1 << 62


@dataclass(slots=True)
class Examples:
    """Feature rows of one task, in event-time order, with their events.

    `time` (B,): UTC ms. `place` (B,): which event of the task's topic it is, counting all of them from 0, whether or
    not it became an example.
    """

    rows: Rows
    events: list[Record]
    time: NDArray[np.int64]
    place: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time)

    def part(self, keep: NDArray[np.bool_]) -> "Examples":
        """The examples where `keep` (B,) is true."""
        events = [self.events[i] for i in np.flatnonzero(keep)]
        return Examples(self.rows[keep], events, self.time[keep], self.place[keep])


@dataclass(slots=True)
class Clicks:
    """Every click in event-time order, example or not: user number, UTC ms and catalogue row, each (N,)."""

    user: NDArray[np.int32]
    time: NDArray[np.int64]
    item: NDArray[np.int32]


@dataclass(slots=True)
class Recording:
    """What a replay leaves: examples by task, all clicks, all labels; and `until`, UTC ms, where knowledge ends."""

    examples: dict[str, Examples]
    clicks: Clicks
    labels: Labels
    until: int = FOR_EVER

    def before(self, border: int) -> "Recording":
        """As if the stream had ended at `border` (UTC ms): later events, clicks and labels are not there."""
        early = {task: each.part(each.time < border) for task, each in self.examples.items()}
        seen = self.clicks.time < border
        clicks = Clicks(self.clicks.user[seen], self.clicks.time[seen], self.clicks.item[seen])
        return Recording(early, clicks, self.labels.known_by(border), border)

    def since(self, border: int) -> dict[str, Examples]:
        """The examples from `border` on. Their rows know what came before, as in serving."""
        return {task: each.part(each.time >= border) for task, each in self.examples.items()}


class Replay:
    """Feeds a time-ordered stream through fresh state, once, and keeps little of it.

    `keep`: by task the share of its events that become examples (1 where it is not named), chosen by their id, so
    that the choice is the same in every run. Entity links are those of the stream itself: how many users have shared
    a card or device so far.
    """

    def __init__(self, tasks: Sequence[Task], catalog: Catalogue, keep: Mapping[str, float] | None = None) -> None:
        self._tasks, self._catalog, self._keep = tuple(tasks), catalog, dict(keep or {})
        self._state, self._links = UserState(slots=SLOTS), Links()
        self._parts: dict[str, list[Examples]] = {task.name: [] for task in tasks}
        self._users: dict[str, int] = {}
        self._clicks: list[Clicks] = []
        self._seen = [0] * len(TOPICS)
        self._offset = 0

    def run(self, stream: Iterable[Timed]) -> Recording:
        """All of the stream. Labels are told apart from events by their topic name, "labels"."""
        labels = Labels()
        until = 0
        for chunk in _chunks(stream, BATCH):
            events = [(name, record) for name, record in chunk if name in TOPICS]
            for name, record in chunk:
                labels.add(name, record, self._catalog.advertised)
            if events:
                self._absorb([record for _, record in events], [TOPICS.index(name) for name, _ in events])
                until = events[-1][1]["event_time"] + 1
        examples = {task.name: _joined(self._parts[task.name], task) for task in self._tasks}
        columns = [(part.user, part.time, part.item) for part in self._clicks]
        clicks = Clicks(*map(np.concatenate, zip(*columns, strict=True))) if columns else _no_clicks()
        return Recording(examples, clicks, labels, until)

    def _absorb(self, records: list[Record], topic: list[int]) -> None:
        offsets = range(self._offset, self._offset + len(records))
        batch = event_batch(records, topic, [0] * len(records), offsets, self._catalog)
        self._offset += len(records)
        absorbed = self._state.absorb(batch)
        entities = self._links.seen(batch.tokens, batch.users)
        self._clicks.append(self._click_columns(batch, absorbed.fresh))
        place = np.zeros(len(records), np.int64)
        for number in range(len(TOPICS)):
            of_topic = np.flatnonzero(absorbed.fresh & (batch.topic == number))
            place[of_topic] = self._seen[number] + np.arange(len(of_topic))
            self._seen[number] += len(of_topic)
        for task in self._tasks:
            kept = absorbed.fresh & (batch.topic == task.topic) & self._sampled(task, batch.event_hash)
            index = np.flatnonzero(kept)
            if not len(index):
                continue
            history = self._state.gather(absorbed, index)
            rows = np.zeros(len(index), task.features)
            fill_sequence(rows, history, batch, index)
            events = [records[i] for i in index]
            context = Context(
                batch.time[index], history, absorbed.totals[index], absorbed.first_time[index],
                absorbed.known[index], entities[index], self._catalog,
            )  # fmt: skip
            task.fill(rows, events, context)
            self._parts[task.name].append(Examples(rows, events, batch.time[index], place[index]))

    def _sampled(self, task: Task, event_hash: NDArray[np.uint64]) -> NDArray[np.bool_]:
        share = self._keep.get(task.name, 1.0)
        return np.asarray((event_hash >> np.uint64(40)) < np.uint64(round(share * (1 << 24))))

    def _click_columns(self, batch: EventBatch, fresh: NDArray[np.bool_]) -> Clicks:
        index = np.flatnonzero(fresh & (batch.topic == CLICKS))
        user = [self._users.setdefault(batch.users[i], len(self._users)) for i in index]
        item = batch.entry_item[np.searchsorted(batch.entry_event, index)]
        return Clicks(np.array(user, np.int32), batch.time[index], item)


def replay(
    stream: Iterable[Timed], tasks: Sequence[Task], catalog: Catalogue, keep: Mapping[str, float] | None = None
) -> Recording:
    """See Replay. The stream is read once and may be an iterator."""
    return Replay(tasks, catalog, keep).run(stream)


class Links:
    """Distinct users per entity so far, as `entities.state` would have told: 0 until a second user shares it."""

    def __init__(self) -> None:
        self._users: defaultdict[int, set[str]] = defaultdict(set)

    def seen(self, tokens: NDArray[np.uint64], users: Sequence[str]) -> NDArray[np.int32]:
        """(N, 5, 2) users and frauds as of before each event, which is then counted; frauds are 0, as they are not
        told of yet when serving.
        """
        out = np.zeros((len(users), 5, 2), np.int32)
        for number in np.flatnonzero(tokens.any(axis=1)).tolist():
            for column, token in enumerate(tokens[number].tolist()):
                if token:
                    known = self._users[token]
                    out[number, column, 0] = min(len(known), MOST_USERS) if len(known) > 1 else 0
                    known.add(users[number])
        return out


def _chunks(items: Iterable[Timed], size: int) -> Iterator[list[Timed]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _joined(parts: list[Examples], task: Task) -> Examples:
    if not parts:
        return Examples(np.zeros(0, task.features), [], np.zeros(0, np.int64), np.zeros(0, np.int64))
    rows = np.concatenate([part.rows for part in parts])
    time, place = (np.concatenate([getattr(part, name) for part in parts]) for name in ("time", "place"))
    return Examples(rows, [event for part in parts for event in part.events], time, place)


def _no_clicks() -> Clicks:
    return Clicks(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int32))


def catalogue_from(
    items: Iterable[Mapping[str, Any]], ads: Iterable[Mapping[str, Any]], vectors: Iterable[Mapping[str, Any]]
) -> Catalogue:
    """A catalogue from its records, as a worker would build it from the topics."""
    catalog = Catalogue()
    for record in items:
        catalog.apply_item(record)
    for record in ads:
        catalog.apply_ad(record)
    for record in vectors:
        catalog.apply_vector(record)
    return catalog
