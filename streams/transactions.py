"""A Kafka producer that sends each group of records whole or not at all, and fences its id's last user.
The state changelog, the replay of dead letters, mapped topics and `exactly_once` stand on it; scores otherwise do not.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.errors import BrokerUnavailable, Fenced, HeadraceError, ProduceFailed
from streams.config import Settings
from streams.offsets import kafka_error

log = logging.getLogger(__name__)

FENCING = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
        KafkaError.UNKNOWN_PRODUCER_ID,
        # Of offsets that a transaction carries: who read is no member any more.
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
    }
)
POLL_EVERY = 1_000  # records between looks at delivery reports
ABORT_S = 5.0

Headers = Sequence[tuple[str, bytes | None]]
Report = Callable[[KafkaError | None, Message], None]


class Sent(NamedTuple):
    """A record to send; its partition is always named."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None


class TransactionalProducer:
    """Used from one thread at a time. After an error it is of no more use: make another with the same id.

    Making one undoes what its predecessor left unfinished, and fences it.
    """

    def __init__(
        self, settings: Settings, transactional_id: str, where: str, timeout_s: float = 30.0, **conf: Any
    ) -> None:
        """`where` names the thing in errors; `timeout_s` bounds this call and each `send`.

        Raises BrokerUnavailable, SettingsError.
        """
        self._where, self._timeout = where, timeout_s
        self._offset = -1
        self._fatal: KafkaError | None = None
        self._producer = Producer(
            {
                **settings.librdkafka(),
                "transactional.id": transactional_id,
                # The broker aborts a transaction that nobody ends after this.
                "transaction.timeout.ms": 60_000,
                "delivery.timeout.ms": round(timeout_s * 1000),
                "linger.ms": 5,
                "compression.type": "lz4",
                # A queue this short keeps memory low; a longer group waits for it.
                "queue.buffering.max.messages": 20_000,
                "queue.buffering.max.kbytes": 16_384,
                "reconnect.backoff.max.ms": 1_000,
                "error_cb": self._on_error,
                "logger": log,
                **conf,
            }
        )
        self._bounded(self._producer.init_transactions)

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has. SettingsError if it does not exist.

        Ask before the first `send`: librdkafka would wait half a minute for a missing topic to appear.
        """
        try:
            found = self._producer.list_topics(topic, self._timeout).topics[topic]
        except KafkaException as error:
            raise kafka_error(error.args[0], topic) from error
        if found.error is not None:
            raise kafka_error(found.error, topic)
        return len(found.partitions)

    def send(self, records: Iterable[Sent], last: Sent) -> int:
        """Records, then `last`, in one transaction, committed on return. Returns the offset of `last`.

        Raises Fenced, ProduceFailed, SettingsError and, where the outcome is not known, BrokerUnavailable.
        """
        deadline, self._offset = time.monotonic() + self._timeout, -1
        try:
            self._producer.begin_transaction()
            for number, record in enumerate(records):
                self._produce(record, deadline, None)
                if number % POLL_EVERY == 0:
                    self._producer.poll(0)
            # Only this one reports its delivery: a callback a record would double the cost.
            self._produce(last, deadline, self._on_delivery)
        except KafkaException as error:
            raise self._undone(error.args[0]) from error
        self._bounded(self._producer.commit_transaction)
        if self._offset < 0:
            raise ProduceFailed("a committed record without an offset", where=self._where)
        return self._offset

    def carry(
        self,
        records: Iterable[Sent],
        read: Sequence[TopicPartition],
        group: Any,
        reports: Mapping[int, Report] = MappingProxyType({}),
    ) -> None:
        """Records, and how far `group` (a consumer's metadata) has read what they are made of, in one transaction.

        `reports` are called for the records of these numbers, before this returns. Raises what `send` raises.
        """
        deadline = time.monotonic() + self._timeout
        try:
            self._producer.begin_transaction()
            for number, record in enumerate(records):
                self._produce(record, deadline, reports.get(number))
                if number % POLL_EVERY == 0:
                    self._producer.poll(0)
            self._producer.send_offsets_to_transaction(list(read), group, self._timeout)
        except KafkaException as error:
            raise self._undone(error.args[0]) from error
        self._bounded(self._producer.commit_transaction)

    def _produce(self, record: Sent, deadline: float, report: Report | None) -> None:
        topic, partition, key, value, headers = record
        while True:
            try:
                self._producer.produce(topic, value, key, partition, report, headers=headers)
                return
            except BufferError:
                if time.monotonic() > deadline:
                    raise self._undone(KafkaError(KafkaError._TIMED_OUT)) from None
                self._producer.poll(0.05)

    def _bounded(self, call: Callable[[float], None]) -> None:
        """init or commit, again while that may help and time is left."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return call(max(0.1, deadline - time.monotonic()))
            except KafkaException as error:
                cause = error.args[0]
                if cause.txn_requires_abort():
                    raise self._undone(cause) from error
                if not cause.retriable() or time.monotonic() > deadline:
                    raise self._meant(cause) from error

    def _undone(self, cause: KafkaError) -> HeadraceError:
        """Aborts the transaction; what to raise. A failed abort is no worse: the successor's start aborts."""
        try:
            self._producer.abort_transaction(ABORT_S)
        except KafkaException as error:
            if self._fences(error.args[0]):
                cause = error.args[0]
            log.warning("%s: the transaction could not be aborted: %s", self._where, error.args[0].str())
        return self._meant(cause)

    def _meant(self, cause: KafkaError) -> HeadraceError:
        if self._fences(cause):
            return Fenced(
                "another process has taken over",
                where=self._where,
                todo="nothing: it goes on from the last whole group of records; this process must end",
            )
        if cause.retriable() or cause.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT):
            return BrokerUnavailable(f"no answer in {self._timeout:.0f} s", where=self._where)
        known = kafka_error(cause, self._where)
        return ProduceFailed(known.what, where=self._where) if known.retriable else known

    def _fences(self, cause: KafkaError) -> bool:
        return cause.code() in FENCING or (self._fatal is not None and self._fatal.code() in FENCING)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._offset = message.offset()
