"""Looking records up on topics that are keyed by something else, or that hold many: by bytes first, then decoded.
Whatever is asked for may have been deleted by retention; then nothing is found, which is no error.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Message

from schemas.errors import BadRecord, FrontierTooOld
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.config import Settings
from streams.events import Record
from streams.offsets import bounds, offsets_at, places, read_range
from streams.partitioning import partition_for

Ranges = Mapping[int, tuple[int, int]]
"""Offsets [from, to) by partition."""


class Found(NamedTuple):
    """A record and where it lies. `timestamp`: the broker's, UTC ms."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    record: Record
    key: bytes = b""

    @property
    def place(self) -> dict[str, Any]:
        """Topic, partition, offset and time, for JSON."""
        return {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp_ms": self.timestamp,
        }


class TopicReader:
    """One topic's records of one contract. `since`: UTC ms of the broker from which on it is read; 0: all there is.

    Raises SettingsError for a topic that is not there, BrokerUnavailable, RegistryUnavailable.
    """

    def __init__(self, settings: Settings, registry: Registry, topic: str, contract: str, since: int = 0) -> None:
        self.topic, self.unreadable = topic, 0
        self._settings, self._decoder = settings, Decoder(registry, contract)
        held = bounds(settings, places(settings, topic))
        self.bounds = {partition: ends for (_, partition), ends in held.items()}
        self.ranges = self.between(since)

    @property
    def partitions(self) -> list[int]:
        return sorted(self.bounds)

    def home(self, key: str) -> int:
        """The partition that a key's records lie on."""
        return partition_for(key.encode(), len(self.bounds))

    def between(self, since: int = 0, until: int = 0) -> Ranges:
        """Offsets of what the broker got between two UTC ms; 0: no bound."""
        first = offsets_at(self._settings, self.topic, since) if since > 0 else {}
        last = offsets_at(self._settings, self.topic, until) if until > 0 else {}
        return {
            part: (max(low, first.get(part, low)), min(high, last.get(part, high)))
            for part, (low, high) in self.bounds.items()
        }

    def search(self, needle: str, fits: Callable[[Record], bool], ranges: Ranges | None = None) -> Iterator[Found]:
        """The records that hold the text and `fits`, by partition and offset; decoded only where the bytes hold it.

        ranges: offsets [from, to) by partition; else all since `since`.
        """
        text = needle.encode()
        for partition, (start, end) in (self.ranges if ranges is None else ranges).items():
            for messages in self._messages(partition, start, end):
                near = [message for message in messages if text in (message.value() or b"")]
                for found in self._decoded(near):
                    if fits(found.record):
                        yield found

    def chunks(self) -> Iterator[list[Found]]:
        """All records since `since`, as they are fetched; what cannot be decoded is counted in `unreadable`."""
        for partition, (start, end) in self.ranges.items():
            for messages in self._messages(partition, start, end):
                yield self._decoded(messages)

    def at(self, partition: int, offset: int) -> Found | None:
        """The record at an offset; None where there is none, or none any more."""
        low, high = self.bounds.get(partition, (0, 0))
        if not low <= offset < high:
            return None
        return next(
            (found for batch in self._messages(partition, offset, offset + 1) for found in self._decoded(batch)), None
        )

    def _messages(self, partition: int, start: int, end: int) -> Iterator[list[Message]]:
        """Goes on behind what retention deletes while it is read."""
        while start < end:
            try:
                for messages in read_range(self._settings, self.topic, partition, start, end):
                    start = int(messages[-1].offset() or 0) + 1
                    yield messages
                return
            except FrontierTooOld:
                low, _ = bounds(self._settings, [(self.topic, partition)])[self.topic, partition]
                if low <= start:
                    raise
                start = low

    def _decoded(self, messages: Sequence[Message]) -> list[Found]:
        """Without deletions, and without what cannot be decoded."""
        found = []
        whole = [message for message in messages if message.value() is not None]
        for message, record in zip(whole, self._decoder.decode_many([each.value() for each in whole]), strict=True):
            if isinstance(record, BadRecord):
                self.unreadable += 1
            else:
                place = self.topic, int(message.partition() or 0), int(message.offset() or 0)
                found.append(Found(*place, message.timestamp()[1], record, message.key() or b""))
        return found
