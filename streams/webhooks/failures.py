"""The topic of alerts that an endpoint did not take: written by the service, read and brought home by commands.
What was posted after all is marked on the topic itself: a record without a value whose header lists offsets.
"""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from confluent_kafka import Message

from schemas.errors import BadRecord, DataUnavailable, ProduceFailed
from schemas.reading import Record
from schemas.wire import Decoder, Encoder
from streams.acknowledged import AcknowledgedWriter
from streams.config import Settings
from streams.offsets import bounds, places, read_range
from streams.patience import RETRY_S
from streams.producer import Producer
from streams.webhooks.policy import Answer
from streams.webhooks.schedule import Delivery

log = logging.getLogger(__name__)

CONTRACT = "webhook_failure"
DONE = "headrace-posted"  # of a mark: offsets, comma-separated
CHUNK = 500


def failure_record(endpoint: str, delivery: Delivery, answer: Answer, now_ms: int) -> Record:
    """answer: of the last attempt."""
    return {
        "endpoint": endpoint,
        "delivery": delivery.id,
        "alert_id": delivery.alert_id,
        "order_id": delivery.order_id,
        "decision": delivery.decision,
        "attempts": delivery.attempts,
        "first_attempt_at": delivery.first_ms,
        "failed_at": now_ms,
        "reason": _text(answer.reason),
        "status": answer.status,
        "answer": _text(answer.body),
        "alert": delivery.alert,
    }


def _text(text: str) -> str:
    """Fit for Avro: it may quote what a stranger sent."""
    return text.encode(errors="replace").decode()


class FailureWriter:
    """Puts failures on the topic. Used from one event loop."""

    def __init__(self, settings: Settings, producer: Producer, encode: Encoder) -> None:
        self._topic, self._producer, self._encode = settings.topics.webhooks_failed, producer, encode

    async def write(self, record: Record) -> None:
        """Returns when the broker has it, however long that takes: until then the alert is not finished."""
        message = (record["order_id"].encode(), self._encode(record), None, None)
        while True:
            try:
                await self._producer.send(self._topic, [message])
                return
            except ProduceFailed as error:
                log.warning("a failed webhook waits: %s", error)
                await asyncio.sleep(RETRY_S)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure where it lies; `posted` if it was brought home."""

    partition: int
    offset: int
    record: Record
    posted: bool = False

    @property
    def id(self) -> str:
        return f"{self.partition}:{self.offset}"


class Failures:
    """What is on the topic. All raise BrokerUnavailable, RegistryUnavailable, and SettingsError without the topic."""

    def __init__(self, settings: Settings, decode: Decoder) -> None:
        """`decode` for webhook_failure."""
        self._settings, self._decode, self._topic = settings, decode, settings.topics.webhooks_failed
        self._writer = AcknowledgedWriter(settings, self._topic)

    def find(self, *, ids: frozenset[str] = frozenset(), endpoint: str = "", posted: bool = False) -> Iterator[Failure]:
        """Those that are there now, by partition and offset; empty arguments take all. posted: also those."""
        for (_, partition), (low, high) in bounds(self._settings, places(self._settings, self._topic)).items():
            if ids and not any(one.startswith(f"{partition}:") for one in ids):
                continue
            home = {at for message in self._read(partition, low, high) for at in _marked(message)}
            for message in self._read(partition, low, high):
                found = self._failure(message, home)
                if found is None or (found.posted and not posted):
                    continue
                if (not ids or found.id in ids) and endpoint in ("", found.record["endpoint"]):
                    yield found

    def get(self, ids: frozenset[str]) -> list[Failure]:
        """All of these, posted or not. DataUnavailable where one is not there."""
        found = list(self.find(ids=ids, posted=True))
        if missing := sorted(ids - {failure.id for failure in found}):
            raise DataUnavailable(
                f"no failed webhook {missing[0]!r}",
                where=self._topic,
                expected="partition:offset, as `headrace webhooks failed` shows it",
            )
        return found

    def mark(self, failure: Failure) -> None:
        """It was posted after all. Returns when the broker has it. Raises ProduceFailed too."""
        self._writer.send(None, None, failure.partition, [(DONE, str(failure.offset).encode())])

    def _read(self, partition: int, low: int, high: int) -> Iterator[Message]:
        return chain.from_iterable(read_range(self._settings, self._topic, partition, low, high, batch=CHUNK))

    def _failure(self, message: Message, home: set[int]) -> Failure | None:
        if message.value() is None:
            return None
        [record] = self._decode.decode_many([message.value()])
        if isinstance(record, BadRecord):
            where = f"{self._topic}[{message.partition()}] at {message.offset()}"
            log.warning("%s is no failed webhook: %s", where, record)
            return None
        return Failure(message.partition(), message.offset(), record, message.offset() in home)


def _marked(message: Message) -> Iterator[int]:
    """Offsets that a mark says were posted; none if it is no mark."""
    if message.value() is None:
        for name, content in message.headers() or ():
            if name == DONE:
                yield from map(int, content.split(b","))
