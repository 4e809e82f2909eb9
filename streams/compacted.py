"""A compacted topic held in memory: read whole, then followed, by a thread of its own.
It joins no group and commits nothing; every process that follows a topic sees all of it.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import BrokerUnavailable, HeadraceError
from streams.config import Settings
from streams.notices import Notices
from streams.offsets import BATCH, PASSING, bounds, kafka_error, plain_consumer

log = logging.getLogger(__name__)

Apply = Callable[[bytes, bytes | None], None]

POLL_S = 0.2
RETRY_S = 1.0
WIDEN_S = 30.0  # how often to look for new partitions


class Compacted:
    """Calls `apply(key, value)` for each record, in order within a partition; value None: the key is gone.

    `apply` runs on the thread. A retriable HeadraceError from it holds the topic up until it passes; for any
    other the record is skipped and the error shown; what is no HeadraceError is a fault and ends the thread.
    A key may come several times, and comes again if the topic is made anew.
    """

    def __init__(self, settings: Settings, topic: str, apply: Apply) -> None:
        """Starts at once. A topic that does not exist yet, or a broker that is away, is waited for."""
        self._settings, self.topic, self._apply = settings, topic, apply
        self._positions: dict[int, int] = {}
        self._moved = threading.Condition()
        self._stopping = threading.Event()
        self._broken: HeadraceError | None = None  # of the connection
        self._refused: HeadraceError | None = None  # of `apply`
        self._look_again = 0.0
        self._fault: BaseException | None = None
        self.skipped = 0
        self._notices = Notices(log)
        self._thread = threading.Thread(target=self._run, name=f"follow {topic}", daemon=True)
        self._thread.start()

    @property
    def error(self) -> HeadraceError | None:
        """What is wrong now, for people: the broker away, the topic missing, or the newest record skipped."""
        return self._broken or self._refused

    def wait_current(self, timeout: float) -> None:
        """Returns when all that is on the topic now was applied; after `timeout` s, or when it is stopped, raises what
        is in the way.

        A fault of `apply` is raised as it is.
        """
        deadline = time.monotonic() + timeout
        ends = self._ends(deadline)
        with self._moved:
            self._moved.wait_for(lambda: self._over or self._reached(ends), _left(deadline))
        if self._fault:
            raise self._fault
        if not self._reached(ends):
            raise self.error or BrokerUnavailable(f"not read to its end in {timeout:.0f} s", where=self.topic)

    def stop(self) -> None:
        """Ends the thread; waits for the `apply` that runs."""
        self._stopping.set()
        with self._moved:
            self._moved.notify_all()
        self._thread.join()

    @property
    def _over(self) -> bool:
        return self._fault is not None or self._stopping.is_set()

    def _ends(self, deadline: float) -> dict[int, int]:
        """Ends by partition, once the thread knows the partitions."""
        with self._moved:
            self._moved.wait_for(lambda: self._over or self._positions, _left(deadline))
            partitions = list(self._positions)
        if not partitions and not self._fault:
            raise self.error or BrokerUnavailable("no broker answered", where=self.topic)
        places = [(self.topic, partition) for partition in partitions]
        found = bounds(self._settings, places, _left(deadline))
        return {partition: high for (_, partition), (_, high) in found.items()}

    def _reached(self, ends: dict[int, int]) -> bool:
        return all(self._positions.get(partition, -1) >= end for partition, end in ends.items())

    def _run(self) -> None:
        try:
            with closing(self._consumer()) as consumer:
                self._follow(consumer)
        except BaseException as error:
            log.exception("%s is not followed any more", self.topic)
            self._fault = error
            with self._moved:
                self._moved.notify_all()

    def _consumer(self) -> Consumer:
        conf = {"auto.offset.reset": "earliest", "fetch.wait.max.ms": 100, "error_cb": self._on_error}
        return plain_consumer(self._settings, conf=conf)

    def _follow(self, consumer: Consumer) -> None:
        while not self._stopping.is_set():
            if time.monotonic() >= self._look_again:
                self._look_again = time.monotonic() + (WIDEN_S if self._widen(consumer) else RETRY_S)
            self._take(_arrived(consumer))

    def _widen(self, consumer: Consumer) -> bool:
        """Takes up partitions that it does not follow yet. False if the broker does not tell."""
        try:
            found = consumer.list_topics(self.topic, timeout=2.0).topics[self.topic]
            if found.error is not None:
                raise KafkaException(found.error)
        except KafkaException as error:
            self._broken = kafka_error(error.args[0], self.topic)
            return False
        self._broken = None
        if new := sorted(set(found.partitions) - set(self._positions)):
            consumer.incremental_assign([TopicPartition(self.topic, partition, OFFSET_BEGINNING) for partition in new])
            self._moved_to(dict.fromkeys(new, 0))
        return True

    def _take(self, messages: list[Message]) -> None:
        positions: dict[int, int] = {}
        for message in messages:
            error = message.error()
            if error is None:
                if not self._applied(message):
                    return
                positions[message.partition()] = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                positions[message.partition()] = message.offset()
            elif error.code() not in PASSING:
                self._broken = kafka_error(error, self.topic)
        if positions:
            self._broken = None
            self._moved_to(positions)

    def _applied(self, message: Message) -> bool:
        """False if it is to stop before the record could be applied."""
        while not self._stopping.is_set():
            try:
                self._apply(message.key() or b"", message.value())
            except HeadraceError as error:
                self._refused = error
                if not error.retriable:
                    self._skip(message, error)
                    return True
                self._stopping.wait(RETRY_S)
            else:
                if self._refused and self._refused.retriable:
                    self._refused = None
                return True
        return False

    def _skip(self, message: Message, error: HeadraceError) -> None:
        self.skipped += 1
        self._notices.say(self.topic, f"[{message.partition()}] at {message.offset()} is skipped: {error}")

    def _moved_to(self, positions: dict[int, int]) -> None:
        with self._moved:
            self._positions.update(positions)
            self._moved.notify_all()

    def _on_error(self, error: KafkaError) -> None:
        self._broken = kafka_error(error, self.topic)
        self._look_again = min(self._look_again, time.monotonic() + RETRY_S)


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _arrived(consumer: Consumer) -> list[Message]:
    """What is there, after at most POLL_S: `consume` alone would wait for a full batch."""
    first = consumer.poll(POLL_S)
    return [first, *consumer.consume(BATCH, 0)] if first is not None else []
