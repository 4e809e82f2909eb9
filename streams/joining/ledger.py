"""The changelog of one partition of the label join: each step's changes, outputs and input offsets in one transaction.
Whoever acquires it shuts its predecessor out, and goes on behind the last step that was whole.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from confluent_kafka import Message

from schemas.errors import SettingsError, StateError
from streams.config import Settings
from streams.labels.state import Changes, State
from streams.labels.store import LabelStore
from streams.offsets import bounds, read_range
from streams.privacy.entries import LABELS
from streams.privacy.erasures import Erasures
from streams.transactions import Sent, TransactionalProducer

log = logging.getLogger(__name__)

TIMEOUT_S = 30.0
#: A copy that was not written for this long is not continued: Kafka drops tombstones after a day.
COPY_AGE_MS = 12 * 3_600_000


@dataclass(frozen=True, slots=True)
class Frontier:
    """Where a partition stands after a step: `inputs` by topic, the next offset to read. Times are UTC ms."""

    inputs: Mapping[str, int] = field(default_factory=dict)
    watermark: int = 0
    life: Mapping[str, int] = field(default_factory=dict)
    """By source of labels: until when it is known to be alive."""
    written_at: int = 0

    def pack(self) -> bytes:
        content = {
            "format": 1,
            "inputs": dict(self.inputs),
            "watermark": self.watermark,
            "life": dict(self.life),
            "written_at": self.written_at,
        }
        return json.dumps(content, separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, packed: bytes, where: str) -> Self:
        """StateError if it is not a frontier of this format."""
        try:
            content = json.loads(packed)
            if content["format"] != 1:
                raise ValueError(f"format {content['format']}")
            return cls(content["inputs"], content["watermark"], content["life"], content["written_at"])
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"a frontier of the label join that cannot be read: {error}",
                where=where,
                expected="format 1",
                todo="start the version of headrace that wrote it",
            ) from error


class Ledger:
    """One role ("join" or "derive") in one partition of the topic `label_state`. Used from one thread."""

    def __init__(
        self,
        settings: Settings,
        role: str,
        partition: int,
        store: LabelStore,
        erasures: Callable[[], Erasures] = Erasures,
    ) -> None:
        """A copy that was not written since somebody was forgotten is not continued: it may hold them."""
        self._erasures = erasures
        self.partition, self.state = partition, State(store, partition)
        self._settings, self._topic, self._store = settings, settings.topics.label_state, store
        self._rows, self._frontier = f"{role}:".encode(), f"frontier:{role}".encode()
        self._id = f"{settings.app_id}-labels-{role}-{partition}"
        self._producer: TransactionalProducer | None = None

    @property
    def where(self) -> str:
        return f"{self._topic}[{self.partition}]"

    def acquire(self) -> Frontier:
        """Becomes the one who writes, and brings the local copy to the end of the log. The last step's frontier.

        Raises BrokerUnavailable, SettingsError, StateError.
        """
        producer = TransactionalProducer(self._settings, self._id, self.where, TIMEOUT_S)
        if (count := producer.partitions(self._topic)) <= self.partition:
            raise SettingsError(f"{self._topic} has {count} partitions", where=self.where, expected="as many as inputs")
        self._producer = producer
        low, high = bounds(self._settings, [(self._topic, self.partition)])[self._topic, self.partition]
        position = self.state.position
        if low <= position < high and (newest := self._restore(position, high)) is not None:
            return newest
        if position >= 0:
            log.warning("%s: the local copy of the label join cannot be continued; reading all", self.where)
            self._store.drop(self.partition)
        return self._restore(low, high) or Frontier()

    def commit(self, outputs: Iterable[Sent], frontier: Frontier) -> None:
        """The step's changes, `outputs` and the frontier, all or nothing; then the changes enter the local copy.

        Raises Fenced, ProduceFailed, BrokerUnavailable; after any of them the ledger must be acquired again.
        """
        if self._producer is None:
            raise StateError("the label join does not hold its partition", where=self.where, todo="acquire it first")
        producer, self._producer = self._producer, None
        rows = (Sent(self._topic, self.partition, self._rows + key, row) for key, row in self.state.changes)
        last = Sent(self._topic, self.partition, self._frontier, frontier.pack())
        offset = producer.send([*rows, *outputs], last)
        self._producer = producer
        self.state.stored(offset)

    def _restore(self, start: int, end: int) -> Frontier | None:
        """Applies the log from `start` on. None, with nothing applied, if the copy that ends there is too old.

        The copy's own last record is read again: it is a frontier, and nothing newer may follow.
        """
        newest: Frontier | None = None
        fresh = self._store.position(self.partition) < 0
        for messages in read_range(self._settings, self._topic, self.partition, start, end):
            found = self._newest(messages)
            if not fresh:
                fresh = True
                first = self._newest(messages[:1])
                forgotten = self._erasures().entries.newest(LABELS)
                if first is None or first.written_at < max(time.time_ns() // 1_000_000 - COPY_AGE_MS, forgotten):
                    return None
            newest = found or newest
            self.state.restore(self._changes(messages), messages[-1].offset())
        return newest

    def _newest(self, messages: Sequence[Message]) -> Frontier | None:
        packed = [message.value() for message in messages if message.key() == self._frontier]
        return Frontier.unpack(packed[-1], self.where) if packed else None

    def _changes(self, messages: Sequence[Message]) -> Changes:
        own, size = self._rows, len(self._rows)
        return [(message.key()[size:], message.value()) for message in messages if message.key().startswith(own)]
