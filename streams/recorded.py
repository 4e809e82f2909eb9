"""What the topics hold of events and labels, in order of event time: what a first training replays.
More than fits in memory: sorted runs lie in a folder and are merged, so a shop of any size needs a few hundred MB.
"""

import heapq
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import BinaryIO, NamedTuple

from schemas.errors import BadRecord
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.config import Settings
from streams.events import EVENT_TYPES, Record, check
from streams.offsets import bounds, places, read_range
from streams.privacy.ledger import read_ledger
from streams.privacy.pseudonyms import ingesting

RUN_BYTES = 128 << 20  # held before a run is written
NAMES = ("clicks", "orders", "impressions", "labels")
LABELS = NAMES.index("labels")
_HEAD = Struct("<qBI")  # event time, topic, length of the value

Line = tuple[int, int, bytes]
"""Event time in UTC ms, number of the topic in NAMES, the message's value."""


class Counted(NamedTuple):
    """How many of each of NAMES are in the span, and how many messages could not be used."""

    found: tuple[int, ...]
    bad: int


class Recorded:
    """Reading the topics comes first (`read`), then any number of passes over what they hold.

    Labels are taken whenever they were observed, and come at that time: of old orders, one knows what is known now.
    What could not be decoded is counted and left out, as the worker has set it aside; so is who was forgotten.
    """

    def __init__(self, settings: Settings, registry: Registry, folder: Path, *, since: int = 0, until: int = 1 << 62):
        """since, until: UTC ms of event time, until not included. `folder` is for the runs, and empty.

        Raises RegistryUnavailable, SettingsError.
        """
        self._settings, self._folder, self._since, self._until = settings, folder, since, until
        names = (*(kind.schema for kind in EVENT_TYPES), "label")
        self._decoders = [ingesting(settings, Decoder(registry, name)) for name in names[:LABELS]]
        self._decoders.append(Decoder(registry, "label"))
        self._erasures = read_ledger(settings, registry)
        self._lines: list[Line] = []
        self._bytes = 0
        self._runs: list[Path] = []

    def read(self) -> Counted:
        """Raises BrokerUnavailable, RegistryUnavailable."""
        topics = (*self._settings.topics.inputs, self._settings.topics.labels)
        counted = [self._read(number, topic) for number, topic in enumerate(topics)]
        return Counted(tuple(found for found, _ in counted), sum(bad for _, bad in counted))

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        """(name of NAMES, record) in order of time."""
        self._lines.sort(key=_time)
        for _, number, value in heapq.merge(*(_run(path) for path in self._runs), self._lines, key=_time):
            [record] = self._decoders[number].decode_many((value,))
            assert not isinstance(record, BadRecord)  # it was read before
            yield NAMES[number], record

    def _read(self, number: int, topic: str) -> tuple[int, int]:
        found = bad = 0
        for (_, partition), (low, high) in bounds(self._settings, places(self._settings, topic)).items():
            for messages in read_range(self._settings, topic, partition, low, high):
                values = [message.value() for message in messages]
                for message, record in zip(messages, self._decoders[number].decode_many(values), strict=True):
                    time = self._time(number, partition, message.offset(), message.timestamp()[1], record)
                    if time is None:
                        bad += message.value() is not None
                    elif time >= 0:
                        found += 1
                        self._keep((time, number, message.value()))
        return found, bad

    def _time(
        self, number: int, partition: int, offset: int, broker_time: int, record: Record | BadRecord
    ) -> int | None:
        """UTC ms; -1 for what is not of the span; None for what cannot be used."""
        if isinstance(record, BadRecord):
            return None
        if number == LABELS:
            return int(record["observed_at"])
        try:
            check(record, EVENT_TYPES[number], broker_time)
        except BadRecord:
            return None
        time = int(record["event_time"])
        if not self._since <= time < self._until or self._erasures.before(record["user_id"], number, partition, offset):
            return -1
        return time

    def _keep(self, line: Line) -> None:
        self._lines.append(line)
        self._bytes += len(line[2]) + 150
        if self._bytes < RUN_BYTES:
            return
        self._lines.sort(key=_time)
        path = self._folder / f"run-{len(self._runs)}"
        with path.open("wb") as file:
            for time, number, value in self._lines:
                file.write(_HEAD.pack(time, number, len(value)) + value)
        self._runs.append(path)
        self._lines, self._bytes = [], 0


def _time(line: Line) -> int:
    return line[0]


def _run(path: Path) -> Iterator[Line]:
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            yield _line(file, head)


def _line(file: BinaryIO, head: bytes) -> Line:
    time, number, size = _HEAD.unpack(head)
    return time, number, file.read(size)
