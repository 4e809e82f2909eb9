"""Events for the tests of user state: single ones, random streams, and the batches they are cut into."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from streams.batch import CLICKS, KINDS, ORDERS, EventBatch
from streams.state import TOPIC_SALT

HOUR = 3_600_000
DAY = 24 * HOUR


class Line(NamedTuple):
    kind: int
    item: int
    value: int
    quantity: int


class Event(NamedTuple):
    """One event of one user. `lines` are its history entries."""

    user: str
    partition: int
    topic: int
    offset: int
    time: int
    id: int
    increments: tuple[int, ...]
    tokens: tuple[int, ...]
    lines: tuple[Line, ...]

    @property
    def key(self) -> tuple[int, int]:
        return self.time, self.id ^ int(TOPIC_SALT[self.topic])


def columns(events: Sequence[Event]) -> EventBatch:
    lines = [(number, line) for number, event in enumerate(events) for line in event.lines]
    return EventBatch(
        users=[event.user for event in events],
        topic=np.array([event.topic for event in events], np.uint8),
        partition=np.array([event.partition for event in events], np.int32),
        offset=np.array([event.offset for event in events], np.int64),
        time=np.array([event.time for event in events], np.int64),
        event_hash=np.array([event.id for event in events], np.uint64),
        increments=np.array([event.increments for event in events], np.int64).reshape(-1, 5),
        tokens=np.array([event.tokens for event in events], np.uint64).reshape(-1, 5),
        entry_event=np.array([number for number, _ in lines], np.int32),
        entry_kind=np.array([line.kind for _, line in lines], np.uint8),
        entry_item=np.array([line.item for _, line in lines], np.int32),
        entry_value=np.array([line.value for _, line in lines], np.int64),
        entry_quantity=np.array([line.quantity for _, line in lines], np.int32),
    )


def with_offsets(events: Sequence[Event]) -> list[Event]:
    """Offsets of each topic-partition in the order given."""
    next_offset: dict[tuple[int, int], int] = {}
    placed = []
    for event in events:
        place = event.partition, event.topic
        placed.append(event._replace(offset=next_offset.get(place, 0)))
        next_offset[place] = next_offset.get(place, 0) + 1
    return placed


def make_event(user: int, topic: int, time: int, number: int, lines: int, tokens: Sequence[int]) -> Event:
    """An event told by small numbers; `number` is its id within the topic."""
    hashed = (number * 0x9E3779B97F4A7C15 + topic) % (1 << 64)
    if topic == ORDERS:
        body = [Line(KINDS["order"], 0, 100 * number + lines, lines - 1)]
        body += [Line(KINDS["purchase"], number * 20 + n, 10 * n, n) for n in range(1, lines)]
        kept = tuple(token + 1000 * column if token else 0 for column, token in enumerate(tokens))
        return Event(
            f"u{user}",
            user % 2,
            topic,
            0,
            time,
            hashed,
            (0, 1, 0, 100 * number + lines, 3 * lines),
            kept,
            tuple(body),
        )
    kind = KINDS["view"] if topic == CLICKS else KINDS["impression"]
    increments = (1, 0, 0, 0, 0) if topic == CLICKS else (0, 0, 1, 0, 0)
    return Event(f"u{user}", user % 2, topic, 0, time, hashed, increments, (0,) * 5, (Line(kind, number, 7, 1),))


def random_events(seed: int, count: int, users: int, *, disorder: float = 0.1, span_ms: int = 10**9) -> list[Event]:
    """A seeded stream: mostly in order, with repeats, equal times, and a few users who send most of it."""
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    for number in range(count):
        topic = int(rng.choice(3, p=[0.7, 0.15, 0.15]))
        time = 1 + (number // 2) * span_ms // count
        if rng.random() < disorder:
            time = max(1, time - int(rng.integers(span_ms)))
        tokens = (rng.integers(0, 9, 5) * (rng.random(5) < 0.8)).tolist()
        user = int(min(rng.integers(users), rng.integers(users)))
        event = make_event(user, topic, time, number, int(rng.integers(1, 17)), tokens)
        if events and rng.random() < 0.05:
            event = events[int(rng.integers(len(events)))]
        events.append(event)
    return with_offsets(events)


def permutation(rng: np.random.Generator, events: Sequence[Event]) -> list[Event]:
    """Another interleaving of the topic-partitions."""
    streams: dict[tuple[int, int], list[Event]] = {}
    for event in events:
        streams.setdefault((event.partition, event.topic), []).append(event)
    labels: NDArray[np.int64] = rng.permutation(
        np.repeat(np.arange(len(streams)), [len(stream) for stream in streams.values()])
    )
    sources = [iter(stream) for stream in streams.values()]
    return [next(sources[label]) for label in labels.tolist()]


def click(user: int = 0, time: int = 1, number: int = 1) -> Event:
    return make_event(user, CLICKS, time, number, 1, ())


def order(user: int = 0, time: int = 1, number: int = 1, tokens: Sequence[int] = (0,) * 5, lines: int = 3) -> Event:
    return make_event(user, ORDERS, time, number, lines, tokens)


def cut_up(stream: Sequence[Event], lengths: Sequence[int], users: int = 99) -> Iterator[Sequence[Event]]:
    """Batches of these lengths or less: none has more than so many users."""
    start = 0
    for length in [*lengths, *[len(stream)] * len(stream)]:
        batch = stream[start : start + length]
        while len({event.user for event in batch}) > users:
            batch = batch[:-1]
        start += len(batch)
        if batch:
            yield batch


# Steps of a quarter of the day that ids are remembered for, so that its very end is met.
times = st.builds(lambda steps, ms: 1 + 6 * HOUR * steps + ms, st.integers(0, 14), st.integers(0, 2))
events = st.builds(
    make_event,
    user=st.integers(0, 3),
    topic=st.integers(0, 2),
    time=times,
    number=st.integers(0, 14),
    lines=st.integers(1, 16),
    tokens=st.tuples(*[st.integers(0, 2)] * 5),
)
streams_of_events = st.lists(events, max_size=50).map(with_offsets)
long_streams = st.lists(events, min_size=30, max_size=50).map(with_offsets)
sizes = st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).geometric(0.25, 60).tolist())
steps = st.integers(0, 2**32).map(
    lambda seed: np.random.default_rng(seed).choice(["", "snapshot", "saved"], 60, p=[0.4, 0.3, 0.3]).tolist()
)
