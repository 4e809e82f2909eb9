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

from streams.batch import TOPICS
from streams.catalog import Catalogue
from streams.events import Record, event_batch
from streams.features import Rows, fill_sequence
from streams.state import UserState
from streams.tasks.base import Context, Task

Timed = tuple[str, Record]  # topic name ("clicks", "orders", "impressions", "labels") and record

BATCH = 4096


@dataclass(slots=True)
class Examples:
    """Feature rows of one task, in event-time order, with what their labels are made from."""

    rows: Rows
    events: list[Record]
    time: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time)

    def part(self, keep: NDArray[np.bool_]) -> "Examples":
        """The examples where `keep` is true."""
        return Examples(self.rows[keep], [self.events[i] for i in np.flatnonzero(keep)], self.time[keep])


def replay(stream: Iterable[Timed], tasks: Sequence[Task], catalog: Catalogue, *, users: int) -> dict[str, Examples]:
    """Feeds a time-ordered stream through fresh state; `users` is an upper bound of how many there are.

    Entity links are those of the stream itself: how many users have shared a card or device so far.
    """
    state = UserState(slots=max(users, BATCH))
    links = Links()
    parts: dict[str, list[tuple[Rows, list[Record], NDArray[np.int64]]]] = {task.name: [] for task in tasks}
    offset = 0
    for chunk in _chunks((item for item in stream if item[0] in TOPICS), BATCH):
        records = [record for _, record in chunk]
        topic = [TOPICS.index(name) for name, _ in chunk]
        batch = event_batch(records, topic, [0] * len(chunk), range(offset, offset + len(chunk)), catalog)
        offset += len(chunk)
        absorbed = state.absorb(batch)
        entities = links.seen(batch.tokens, batch.users)
        for task in tasks:
            index = np.flatnonzero(absorbed.fresh & (batch.topic == task.topic))
            if not len(index):
                continue
            history = state.gather(absorbed, index)
            rows = np.zeros(len(index), task.features)
            fill_sequence(rows, history, batch, index)
            events = [records[i] for i in index]
            context = Context(
                batch.time[index], history, absorbed.totals[index], absorbed.first_time[index],
                absorbed.known[index], entities[index], catalog,
            )  # fmt: skip
            task.fill(rows, events, context)
            parts[task.name].append((rows, events, batch.time[index]))
    return {task.name: _joined(parts[task.name], task) for task in tasks}


class Links:
    """Distinct users per entity so far, as `entities.state` would have told: 0 until a second user shares it."""

    def __init__(self) -> None:
        self._users: defaultdict[int, set[str]] = defaultdict(set)

    def seen(self, tokens: NDArray[np.uint64], users: Sequence[str]) -> NDArray[np.int32]:
        """(N, 5, 2) as of before each event, which is then counted."""
        out = np.zeros((len(users), 5, 2), np.int32)
        for number in np.flatnonzero(tokens.any(axis=1)).tolist():
            for column, token in enumerate(tokens[number].tolist()):
                if token:
                    known = self._users[token]
                    out[number, column, 0] = len(known) if len(known) > 1 else 0
                    known.add(users[number])
        return out


def click_labels(examples: Examples, stream: Iterable[Timed]) -> NDArray[np.float32]:
    """(B, slate) 1 where a click names the impression and the ad; from the clicks of the same stream."""
    clicked = {
        (record["impression_id"], record["ad_id"])
        for name, record in stream
        if name == "clicks" and record["impression_id"] is not None
    }
    slots = examples.rows["ad"].shape[1]
    label = np.zeros((len(examples), slots), np.float32)
    for number, event in enumerate(examples.events):
        for place, ad in enumerate(event["slate"][:slots]):
            label[number, place] = (event["event_id"], ad["ad_id"]) in clicked
    return label


def fraud_labels(examples: Examples, stream: Iterable[Timed]) -> NDArray[np.float32]:
    """(B,) 1 where the newest fraud label of the order says so; no label by the end means no fraud."""
    said: dict[str, tuple[int, float]] = {}
    for name, record in stream:
        if name == "labels" and record["task"] == "fraud":
            target, revision = record["target_id"], record["revision"]
            if revision >= said.get(target, (-1, 0.0))[0]:
                said[target] = (revision, record["value"])
    return np.array([said.get(event["order_id"], (0, 0.0))[1] for event in examples.events], np.float32)


def next_items(examples: Examples, window_s: int) -> NDArray[np.int32]:
    """(B,) catalogue row of the user's next other item within the window; 0 where there is none."""
    following: dict[str, list[tuple[int, int]]] = {}
    target = np.zeros(len(examples), np.int32)
    now_item = examples.rows["now_item"]
    for number in range(len(examples) - 1, -1, -1):
        user, time, item = (
            examples.events[number]["user_id"],
            int(examples.time[number]),
            int(now_item[number]),
        )
        ahead = following.setdefault(user, [])
        for later_time, later_item in reversed(ahead):
            if later_time - time > window_s * 1000:
                break
            if later_item != item:
                target[number] = later_item
                break
        if item:
            ahead.append((time, item))
    return target


def _chunks(items: Iterable[Timed], size: int) -> Iterator[list[Timed]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _joined(parts: list[tuple[Rows, list[Record], NDArray[np.int64]]], task: Task) -> Examples:
    if not parts:
        return Examples(np.zeros(0, task.features), [], np.zeros(0, np.int64))
    rows = np.concatenate([part[0] for part in parts])
    return Examples(rows, [event for part in parts for event in part[1]], np.concatenate([part[2] for part in parts]))


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
