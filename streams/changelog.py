"""The durable copy of user state: a compacted topic that one owner a partition writes in transactions.
A flush is all or nothing and ends with the frontier; to acquire a partition shuts out whoever held it before.

Not here: when to flush (streams.flush), and the local store (only a copy of this log).
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, Self

from confluent_kafka import KafkaException, Message, TopicPartition

from schemas.errors import SettingsError, StateError
from streams.config import Settings
from streams.offsets import Place, bounds, check_start, kafka_error, plain_consumer, read_range
from streams.transactions import Sent, TransactionalProducer

log = logging.getLogger(__name__)

USER, FRONTIER = b"u:", b"f:"
# A copy that was not written for this long is not continued: Kafka drops tombstones after a day
# (delete.retention.ms), and a row that was deleted meanwhile would live on in it.
COPY_AGE_MS = 12 * 3_600_000
Rows = Iterable[tuple[bytes, bytes | None]]
Progress = Callable[[int, int], None]


class Store(Protocol):
    """The local copy: see streams.store.UserStore."""

    def position(self, partition: int) -> int:
        """Changelog offset that the copy reflects; -1 if it is empty."""

    def write(self, partition: int, records: Rows, position: int) -> None:
        """Puts rows (None deletes one) and the position, all or nothing."""

    def drop(self, partition: int) -> None:
        """Empties the copy; its position is -1 after that."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """Where the world stood when a partition's rows were copied."""

    inputs: tuple[int, ...]
    """Next offset to read of clicks, orders, impressions: all before it is in the rows, nothing after it."""
    scores: Mapping[str, int]
    """By task: the offset in its score topic from which on scores may belong to inputs after the frontier."""
    written_at: int
    """UTC ms."""

    def pack(self) -> bytes:
        content = {
            "format": 1,
            "inputs": self.inputs,
            "scores": dict(self.scores),
            "written_at": self.written_at,
        }
        return json.dumps(content, separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, packed: bytes, where: str = "") -> Self:
        """StateError if it is not a frontier of this format."""
        try:
            content = json.loads(packed)
            if content["format"] != 1:
                raise ValueError(f"format {content['format']}")
            return cls(tuple(content["inputs"]), content["scores"], content["written_at"])
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"a frontier that cannot be read: {error}",
                where=where,
                expected="format 1",
                todo="start the version of headrace that wrote it, or rebuild the state as docs/operate.md tells",
            ) from error

    def check(self, found: Mapping[Place, tuple[int, int]], topics: Sequence[str], partition: int) -> None:
        """FrontierTooOld or StateError if an input log, of these bounds, does not hold where it stands."""
        for topic, offset in zip(topics, self.inputs, strict=True):
            check_start(topic, partition, offset, *found[topic, partition])


class Changelog:
    """Writes and restores the state partitions that this process owns.

    Calls for different partitions may run on different threads; calls for one may not overlap.
    """

    def __init__(self, settings: Settings, *, timeout_s: float = 30.0) -> None:
        """`timeout_s` bounds each acquire and flush. `forgotten_at`, by partition: UTC ms since when nobody was
        forgotten; of an older local copy it is not known whether it holds somebody who was.
        """
        self._settings, self._timeout = settings, timeout_s
        self.forgotten_at: Callable[[int], int] = lambda _: 0
        self._topic = settings.topics.state
        self._owned: dict[int, TransactionalProducer] = {}

    def acquire(self, partition: int) -> None:
        """Becomes the partition's one writer: fences the one before, undoes what it left unfinished.

        Raises BrokerUnavailable, SettingsError. Restore after this: before it, another may be writing.
        """
        self.release(partition)
        where = f"{self._topic}[{partition}]"
        transactional_id = f"{self._settings.app_id}-state-{partition}"
        producer = TransactionalProducer(self._settings, transactional_id, where, self._timeout)
        if (count := producer.partitions(self._topic)) <= partition:
            raise SettingsError(f"{self._topic} has {count} partitions", where=where, expected="as many as inputs")
        self._owned[partition] = producer

    def release(self, partition: int) -> None:
        """Lets the partition go. Nothing happens if it is not held."""
        self._owned.pop(partition, None)

    def close(self) -> None:
        self._owned.clear()

    def flush(self, partition: int, records: Rows, frontier: Frontier) -> int:
        """Writes rows (user_id bytes, packed row or None) and the frontier in one transaction.

        Returns, when all is committed, the position to write to the local copy with the rows. Raises Fenced,
        ProduceFailed or, where the outcome is not known, BrokerUnavailable. After an error the partition is
        not held any more; nothing is lost if it is acquired again and the same or newer rows are flushed.
        """
        owned = self._owned.get(partition)
        if owned is None:
            raise StateError(f"partition {partition} of {self._topic} is not held", todo="acquire it first")
        rows = (Sent(self._topic, partition, USER + key, value) for key, value in records)
        last = Sent(self._topic, partition, FRONTIER, frontier.pack())
        try:
            return owned.send(rows, last)
        except BaseException:  # whatever it was, the transaction is not whole: nobody may add to it
            self.release(partition)
            raise

    def restore(self, partition: int, store: Store, progress: Progress | None = None) -> Frontier | None:
        """Brings the local copy to the log's end. Returns the newest frontier, None if there was no flush.

        Only right after `acquire`: a flush becomes readable a moment after it returned, and `acquire` waits
        for that. `progress(done, total)` counts offsets. Raises BrokerUnavailable, StateError.
        """
        low, high = bounds(self._settings, [(self._topic, partition)])[self._topic, partition]
        start = self._start(partition, store, low, high)
        frontier = self._read(partition, store, start, high, progress)
        if frontier is None and start > low:
            log.warning("%s[%d]: no frontier after the local copy; reading all", self._topic, partition)
            store.drop(partition)
            frontier = self._read(partition, store, low, high, progress)
        return frontier

    def _start(self, partition: int, store: Store, low: int, high: int) -> int:
        """The offset to read from. A copy that is not of this log, or too old, is dropped.

        The copy's last record is read again: it is the frontier that nothing newer may follow.
        """
        position = store.position(partition)
        if position < 0:
            return low
        since = max(_now_ms() - COPY_AGE_MS, self.forgotten_at(partition))
        if low <= position < high and position + 2 >= self._first_since(partition, since, high):
            return position
        log.warning("%s[%d]: the local copy cannot be continued; reading all", self._topic, partition)
        store.drop(partition)
        return low

    def _first_since(self, partition: int, since_ms: int, high: int) -> int:
        asked = TopicPartition(self._topic, partition, since_ms)
        with closing(plain_consumer(self._settings)) as consumer:
            try:
                found = consumer.offsets_for_times([asked], timeout=self._timeout)[0]
            except KafkaException as error:
                raise kafka_error(error.args[0], f"{self._topic}[{partition}]") from error
        return int(found.offset) if found.offset >= 0 else high

    def _read(self, partition: int, store: Store, start: int, high: int, progress: Progress | None) -> Frontier | None:
        newest: bytes | None = None
        for messages in read_range(self._settings, self._topic, partition, start, high):
            rows, found = _newest(messages)
            newest = found or newest
            position = messages[-1].offset()
            store.write(partition, rows.items(), position)
            if progress:
                progress(position + 1 - start, high - start)
        return Frontier.unpack(newest, f"{self._topic}[{partition}]") if newest else None


def _newest(messages: Sequence[Message]) -> tuple[dict[bytes, bytes | None], bytes | None]:
    """Of a stretch of the log: each user's newest row, and the newest frontier."""
    rows: dict[bytes, bytes | None] = {}
    frontier: bytes | None = None
    for message in messages:
        key = message.key()
        if key[:2] == USER:
            rows[key[2:]] = message.value()
        elif key == FRONTIER:
            frontier = message.value()
    return rows, frontier


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
