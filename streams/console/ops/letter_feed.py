"""Follows the dead letters into a book from a thread of its own, from the newest few thousand on.
It joins no group and commits nothing; a broker that is away is waited for.
"""

import logging
import threading
from collections.abc import Iterable
from contextlib import closing
from itertools import chain

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import BadRecord, BrokerUnavailable, DataUnavailable, HeadraceError
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.clients import require_broker
from streams.config import Settings
from streams.console.ops.letter_book import NEWEST, LetterBook
from streams.deadletters import Letter, opened
from streams.offsets import PASSING, bounds, kafka_error, places, plain_consumer, read_range
from streams.privacy.sealed_letters import LetterSeals

log = logging.getLogger(__name__)

POLL_S, RETRY_S, SHOW_S = 0.2, 1.0, 5.0


class LetterFeed:
    """`error` is what is wrong now, for people. Starts at once."""

    def __init__(self, settings: Settings, book: LetterBook) -> None:
        self._settings, self._book, self._topic = settings, book, settings.topics.deadletters
        self.error: HeadraceError | None = None
        self._ends: dict[int, int] = {}
        self._read: dict[int, int] = {}
        self._current, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow {self._topic}", daemon=True)
        self._thread.start()

    def wait_current(self, timeout: float) -> None:
        """Returns when all was read that was there when reading began; after `timeout` s raises what is in the way."""
        if not self._current.wait(timeout):
            raise self.error or BrokerUnavailable(f"not read to its end in {timeout:.0f} s", where=self._topic)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                require_broker(self._settings)
                self._follow()
            except HeadraceError as error:
                self.error = error
            except KafkaException as error:
                self.error = kafka_error(error.args[0], self._topic)
            self._stopping.wait(RETRY_S)

    def _follow(self) -> None:
        found = bounds(self._settings, places(self._settings, self._topic))
        self._ends = {partition: high for (_, partition), (_, high) in found.items()}
        starts = {partition: max(low, high - NEWEST) for (_, partition), (low, high) in found.items()}
        self._read = dict(starts)
        with closing(self._consumer()) as consumer:
            consumer.assign([TopicPartition(self._topic, partition, start) for partition, start in starts.items()])
            while not self._stopping.is_set():
                if all(self._read.get(partition, 0) >= end for partition, end in self._ends.items()):
                    self._current.set()
                first = consumer.poll(POLL_S)
                if first is not None:
                    self._take([first, *consumer.consume(100, 0)])

    def _consumer(self) -> Consumer:
        conf = {"auto.offset.reset": "earliest", "fetch.wait.max.ms": 100, "error_cb": self._on_error}
        return plain_consumer(self._settings, conf=conf)

    def _on_error(self, error: KafkaError) -> None:
        self.error = kafka_error(error, self._topic)

    def _take(self, messages: Iterable[Message]) -> None:
        for message in messages:
            error = message.error()
            if error is None:
                self._apply(message)
                self._read[message.partition()] = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self._read[message.partition()] = message.offset()
            elif error.code() not in PASSING:
                raise kafka_error(error, self._topic)
            else:
                continue
            self.error = None

    def _apply(self, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        while not self._stopping.is_set():
            try:
                self._book.apply(partition, offset, message.value(), message.headers() or ())
                return
            except BadRecord as error:
                log.warning("%s[%d] at %d is no dead letter: %s", self._topic, partition, offset, error)
                return
            except HeadraceError as error:  # the registry is silent: it says nothing of the letter
                self.error = error
                self._stopping.wait(RETRY_S)


def show(settings: Settings, registry: Registry, book: LetterBook, letter_id: str) -> Letter:
    """The letter with its bytes, read now. Raises DataUnavailable, BrokerUnavailable, RegistryUnavailable."""
    topic, brief = settings.topics.deadletters, book.get(letter_id)
    if brief is None:
        raise DataUnavailable(
            f"no dead letter {letter_id[:40]!r} among the newest",
            where=topic,
            expected="partition:offset, as the list shows it",
            todo="`headrace deadletters show` reads older ones",
        )
    require_broker(settings)
    decode, at = Decoder(registry, "dead_letter"), brief.offset
    for message in chain.from_iterable(read_range(settings, topic, brief.partition, at, at + 1, stall_s=SHOW_S)):
        record = opened(LetterSeals(settings), decode(message.value()))
        return Letter(brief.partition, at, record, brief.home)
    raise DataUnavailable(f"dead letter {letter_id} is not kept any more", where=topic)
