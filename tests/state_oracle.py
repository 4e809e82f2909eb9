"""User state in plain Python, written from its rules and not from its code: event after event, no arrays.
Also a reader of packed rows and of what the arrays say, in the oracle's own form.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from streams.batch import ORDERS
from streams.state import TOPIC_SALT, Absorbed, History, Shape
from tests.state_events import Event, Line

DAY_S = 86_400


class Seen(NamedTuple):
    """What is known before an event."""

    fresh: bool
    late: bool
    cut: tuple[int, ...]
    totals: tuple[int, ...]
    first_time: int
    known: tuple[bool, ...]
    history: tuple[tuple[int, ...], ...]  # item, kind, time, value, quantity; oldest first


class Entry(NamedTuple):
    key: tuple[int, int]
    line: Line
    adds: tuple[int, ...]  # the event's increments on its last line, else zeros


@dataclass
class User:
    offsets: list[int] = field(default_factory=lambda: [-1] * 3)
    reached: list[int] = field(default_factory=lambda: [-1] * 3)
    totals: tuple[int, ...] = (0,) * 5
    seen: int = 0
    first_time: int = 0
    entries: list[Entry] = field(default_factory=list)
    ids: list[list[tuple[int, int]]] = field(default_factory=lambda: [[], [], []])  # all ever, with second
    tokens: dict[int, list[int]] = field(default_factory=dict)  # hash -> [first time, offset * 8 + column]


class Oracle:
    """`per_user` and the shape as UserState has them."""

    def __init__(self, shape: Shape, per_user: int) -> None:
        self.shape, self.per_user = shape, per_user
        self.users: dict[str, User] = {}

    def absorb(self, events: Sequence[Event], order: Sequence[int] | None = None) -> list[Seen]:
        """What is known before each event, in the order given."""
        seen: dict[int, Seen] = {}
        for number in self._order(events) if order is None else order:
            seen[number] = self._take(events[number])
        return [seen[number] for number in range(len(events))]

    def _order(self, events: Sequence[Event]) -> list[int]:
        reached: dict[tuple[str, int], int] = {}
        rank = []
        for event in events:
            stream = event.user, event.topic
            start = self.users[event.user].reached[event.topic] if event.user in self.users else -1
            reached[stream] = max(reached.get(stream, start), event.time)
            rank.append((reached[stream], event.topic))
        return sorted(range(len(events)), key=rank.__getitem__)

    def _take(self, event: Event) -> Seen:
        user = self.users.setdefault(event.user, User())
        topic = event.topic
        user.offsets[topic] = max(user.offsets[topic], event.offset)
        user.reached[topic] = max(user.reached[topic], event.time)
        cut = tuple(user.offsets)
        if self._repeated(user, event):
            return Seen(False, False, cut, (0,) * 5, 0, (False,) * 5, ())
        older = [entry for entry in user.entries if entry.key < event.key]
        newer = user.entries[len(older) :]
        taken_out = [sum(entry.adds[n] for entry in newer) for n in range(5)]
        seen = Seen(
            True,
            bool(newer),
            cut,
            tuple(total - out for total, out in zip(user.totals, taken_out, strict=True)),
            user.first_time if user.first_time <= event.time else 0,
            self._use_tokens(user, event),
            tuple(
                (entry.line.item, entry.line.kind, entry.key[0], entry.line.value, entry.line.quantity)
                for entry in older
            ),
        )
        self._add(user, event, len(older))
        return seen

    def _repeated(self, user: User, event: Event) -> bool:
        ids = user.ids[event.topic]
        places, now = self.shape.id_rings[event.topic][1], user.reached[event.topic] // 1000
        newest = next((n for n in range(len(ids) - 1, -1, -1) if ids[n][0] == event.id), None)
        if newest is not None:
            age = len(ids) - newest
            if age <= places or (age <= self._most(event.topic) and ids[newest][1] >= now - DAY_S):
                return True
        ids.append((event.id, now))
        return False

    def _most(self, topic: int) -> int:
        return max(self.per_user, self.shape.id_rings[topic][1] + self.shape.page)

    def _use_tokens(self, user: User, event: Event) -> tuple[bool, ...]:
        if event.topic != ORDERS:
            return (False,) * 5
        held = [token in user.tokens for token in event.tokens]
        known = tuple(has and user.tokens[token][0] < event.time for has, token in zip(held, event.tokens, strict=True))
        for column, (has, token) in enumerate(zip(held, event.tokens, strict=True)):
            if has:
                user.tokens[token] = [min(user.tokens[token][0], event.time), event.offset * 8 + column]
        new = {token: column for column, token in enumerate(event.tokens) if token and not held[column]}
        least_recent = sorted(user.tokens, key=lambda token: user.tokens[token][1])
        for token in least_recent[: max(0, len(user.tokens) + len(new) - self.shape.tokens)]:
            del user.tokens[token]
        for token, column in new.items():
            user.tokens[token] = [event.time, event.offset * 8 + column]
        return known

    def _add(self, user: User, event: Event, place: int) -> None:
        nothing = (0,) * 5
        new = [Entry(event.key, line, nothing) for line in event.lines]
        new[-1] = new[-1]._replace(adds=event.increments)
        user.entries[place:place] = new
        user.entries = user.entries[-self.shape.history :]
        user.totals = tuple(a + b for a, b in zip(user.totals, event.increments, strict=True))
        user.seen += len(new)
        user.first_time = min(user.first_time or event.time, event.time)

    def view(self, name: str) -> dict[str, Any]:
        """A user's state as `read` gives it."""
        user = self.users[name]
        return {
            "offsets": user.offsets,
            "reached": user.reached,
            "totals": list(user.totals),
            "seen": user.seen,
            "first_time": user.first_time,
            "counted": [len(ids) for ids in user.ids],
            "entries": [(*entry.key, *entry.line, *entry.adds) for entry in user.entries],
            "ids": [self._remembered(user, topic) for topic in range(3)],
            "tokens": {token: tuple(value) for token, value in user.tokens.items()},
        }

    def _remembered(self, user: User, topic: int) -> list[tuple[int, int]]:
        """Ids that still count, oldest first, as of the topic's newest fresh event."""
        ids, places = user.ids[topic], self.shape.id_rings[topic][1]
        now = ids[-1][1] if ids else 0
        salt = int(TOPIC_SALT[topic])
        return [
            (hashed ^ salt, second)
            for age, (hashed, second) in zip(range(len(ids), 0, -1), ids, strict=True)
            if age <= places or (age <= self._most(topic) and second >= now - DAY_S)
        ]


def read(packed: bytes, shape: Shape) -> dict[str, Any]:
    """A packed row, by the layout that columns.py states."""
    _, tokens, lines, _, _, *spilled = struct.unpack_from("<BBHHi3I", packed)
    at = struct.calcsize("<BBHHi3I")

    def take(count: int, form: str) -> list[Any]:
        nonlocal at
        size = struct.calcsize("<" + form)
        values = [struct.unpack_from("<" + form, packed, at + n * size) for n in range(count)]
        at += count * size
        return [value[0] if len(value) == 1 else value for value in values]

    sums, marks = take(10, "q"), take(6, "q")
    entries = take(lines, "qQqqiiiBBBB")
    rings = []
    for topic, (_, places) in enumerate(shape.id_rings):
        count = min(sums[5 + topic], places)
        ring = list(zip(take(count, "Q"), take(count, "I"), strict=True))
        turn = sums[5 + topic] % places if count == places else 0
        rings.append(ring[turn:] + ring[:turn])
    hashes, firsts, stamps = take(tokens, "Q"), take(tokens, "q"), take(tokens, "q")
    for topic, count in enumerate(spilled):
        rings[topic] = list(zip(take(count, "Q"), take(count, "I"), strict=True)) + rings[topic]
    assert at == len(packed)
    return {
        "offsets": marks[:3],
        "reached": marks[3:],
        "totals": sums[:5],
        "seen": sums[8],
        "first_time": sums[9],
        "counted": sums[5:8],
        "entries": [
            (time, hashed, kind, item, value, quantity, *counts, amount, units)
            for time, hashed, value, amount, item, quantity, units, kind, *counts in entries
        ],
        "ids": rings,
        "tokens": {hashed: (first, stamp - 8) for hashed, first, stamp in zip(hashes, firsts, stamps, strict=True)},
    }


def seen(absorbed: Absorbed, history: History) -> list[Seen]:
    """What the arrays say of each event, in the oracle's form; `history` is of all events."""
    windows = np.stack([history.item, history.kind, history.time, history.value, history.quantity], axis=-1)
    found = []
    for number, window in enumerate(windows.tolist()):
        real = [tuple(entry) for entry in window if entry[1]]
        assert all(not any(entry) for entry in window[: len(window) - len(real)]), "padding is zero, on the left"
        found.append(
            Seen(
                bool(absorbed.fresh[number]),
                bool(absorbed.late[number]),
                tuple(absorbed.cut[number].tolist()),
                tuple(absorbed.totals[number].tolist()),
                int(absorbed.first_time[number]),
                tuple(absorbed.known[number].tolist()),
                tuple(real),
            )
        )
    return found
