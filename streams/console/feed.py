"""Follows alerts.fraud, events.labels and audit.log into the store, from the offsets that the store keeps.
One thread, no group: a batch and where it ended are one transaction, and a topic that was made anew is read anew.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from schemas.errors import BadRecord, HeadraceError
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.audit.chain import Entry
from streams.clients import require_broker
from streams.config import Settings
from streams.console.rows import ACTIONS, Change, label_of
from streams.console.store import Applied, Batch, Place, Store
from streams.notices import Notices
from streams.offsets import PASSING, bounds, kafka_error, places, plain_consumer, topic_id

log = logging.getLogger(__name__)

BATCH = 500
POLL_S = 0.1
RETRY_S = 2.0
LOOK_S = 60.0  # how often topics are looked at again, and old alerts let go
DAY_MS = 86_400_000
NOWHERE = -1  # of an entry's offset, which nobody here asks for
Told = Callable[[Applied], None]


class Feed:
    """Starts at once. `error` says what is wrong now; nothing that comes ends it."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        told: Told,
        clock: Callable[[], int],
        deleting: Callable[[Sequence[str]], None] = lambda orders: None,
    ) -> None:
        """`told` and `deleting` are called on the feed's thread; `deleting` with orders, before their alerts go."""
        self._settings, self._store, self._told, self._clock = settings, store, told, clock
        self._deleting = deleting
        topics = settings.topics
        self._decoders = {
            topics.alerts: Decoder(registry, "fraud_alert"),
            topics.labels: Decoder(registry, "label"),
            topics.audit: Decoder(registry, "audit_entry"),
        }
        self._reached: dict[Place, tuple[str, int]] = {}
        self._moved = threading.Condition()
        self._stopping = threading.Event()
        self._look_at = 0.0
        self._notices = Notices(log)
        self.error: HeadraceError | None = None
        self.skipped = 0
        self._unsettled = False  # something was deleted, and the store's journal still has it
        self._thread = threading.Thread(target=self._run, name="console feed", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def wait_current(self, timeout: float) -> None:
        """Returns when all that is on the topics now is in the store. Raises what is in the way."""
        ends = {
            place: high
            for topic in self._decoders
            for place, (_, high) in bounds(self._settings, places(self._settings, topic)).items()
        }
        with self._moved:
            done = self._moved.wait_for(lambda: all(self._next(place) >= end for place, end in ends.items()), timeout)
        if not done:
            raise self.error or TimeoutError(f"the feed is not current after {timeout} s")

    def _next(self, place: Place) -> int:
        return self._reached.get(place, ("", -1))[1]

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                require_broker(self._settings)
                with closing(plain_consumer(self._settings, conf={"auto.offset.reset": "earliest"})) as consumer:
                    self._follow(consumer)
            except HeadraceError as error:
                self.error = error
                self._notices.say("console feed", str(error))
                self._stopping.wait(RETRY_S)
            except Exception as error:  # a fault in one batch must not end the console's news for good
                log.exception("the console's feed begins again")
                self.error = HeadraceError(f"the feed failed: {error}", todo="look at the console's log")
                self._stopping.wait(RETRY_S)

    def _follow(self, consumer: Consumer) -> None:
        self._begin(consumer)
        self._look_at = time.monotonic() + LOOK_S
        while not self._stopping.is_set():
            first = consumer.poll(POLL_S)
            if first is not None:
                self._take([first, *consumer.consume(BATCH, 0)])
            if self._unsettled:
                self._unsettled = not self._store.settle()
            if time.monotonic() > self._look_at:
                self._look_at = time.monotonic() + LOOK_S
                self._prune()
                if self._topics_changed():
                    return

    def _begin(self, consumer: Consumer) -> None:
        """Every partition from where the store stands; from its beginning where it stands in another topic."""
        kept, start = self._store.offsets(), []
        self._reached = {}
        for topic in self._decoders:
            ident = topic_id(self._settings, topic)
            for place in places(self._settings, topic):
                known, offset = kept.get(place, ("", 0))
                start.append(TopicPartition(*place, offset if known == ident else OFFSET_BEGINNING))
                self._reached[place] = (ident, offset if known == ident else 0)
        consumer.assign(start)
        self.error = None

    def _topics_changed(self) -> bool:
        """More partitions, or a topic made anew under the same name."""
        now = {
            place: topic_id(self._settings, topic)
            for topic in self._decoders
            for place in places(self._settings, topic)
        }
        return now != {place: ident for place, (ident, _) in self._reached.items()}

    def _prune(self) -> None:
        before = self._clock() - self._settings.console.retention_days * DAY_MS
        while not self._stopping.is_set():
            old = self._store.old(before)
            self._deleting(old)
            self._store.prune(before)
            if not old:
                return

    def _take(self, messages: list[Message]) -> None:
        by_topic: dict[str, list[Message]] = {topic: [] for topic in self._decoders}
        reached = dict(self._reached)
        for message in messages:
            place, error = (message.topic(), message.partition()), message.error()
            if error is None:
                by_topic[place[0]].append(message)
                reached[place] = (reached[place][0], message.offset() + 1)
            elif error.code() == KafkaError._PARTITION_EOF:
                reached[place] = (reached[place][0], message.offset())
            elif error.code() not in PASSING:
                raise kafka_error(error, str(place[0] or "console feed"))
        if any(by_topic.values()):
            self._apply(by_topic, reached)
        with self._moved:
            self._reached = reached
            self._moved.notify_all()

    def _apply(self, by_topic: Mapping[str, list[Message]], reached: Mapping[Place, tuple[str, int]]) -> None:
        """Raises RegistryUnavailable, and then nothing was applied."""
        names = self._settings.topics
        newest = {message.key(): message for message in by_topic[names.alerts]}
        deleted = [key for key, message in newest.items() if message.value() is None and key]
        raised = [message for message in by_topic[names.alerts] if newest[message.key()].value() is not None]
        by_topic = {**by_topic, names.alerts: [message for message in raised if message.value() is not None]}
        alerts = self._decoded(names.alerts, by_topic)
        found = [label_of(record) for record in self._decoded(names.labels, by_topic)]
        entries = [Entry.of(record, NOWHERE) for record in self._decoded(names.audit, by_topic)]
        gone = [key.decode(errors="replace") for key in deleted]
        if gone:
            self._deleting(gone)
        applied = self._store.apply(
            Batch(
                alerts,
                [label for label in found if label is not None],
                [Change.of(entry) for entry in entries if entry.action in ACTIONS],
                reached,
                gone,
            )
        )
        self._unsettled |= bool(gone)
        self.error = None
        if applied.new or applied.orders:
            self._told(applied)

    def _decoded(self, topic: str, by_topic: Mapping[str, list[Message]]) -> list[dict[str, Any]]:
        good: list[dict[str, Any]] = []
        for record in self._decoders[topic].decode_many([message.value() for message in by_topic[topic]]):
            if isinstance(record, BadRecord):
                self.skipped += 1
                self._notices.say(topic, f"a record is skipped: {record}")
            else:
                good.append(dict(record))
        return good
