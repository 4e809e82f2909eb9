"""Follows training.examples, and tells who listens of each example once; a stretch of it can be read again.
Positions are kept by nobody: where reading begins follows from what the live releases have learned.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from schemas.errors import BadRecord
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.config import Settings
from streams.events import Record
from streams.offsets import PASSING, bounds, kafka_error, offsets_at, places, plain_consumer, read_range

BATCH = 2_000
READ_BACK = 2_000_000
"""Records of a topic that are read again at the start, at most, for what labels say of earlier releases."""

Take = Callable[[Record, Message], None]


class Feed:
    """Used from one thread. Records of a topic, from given offsets on, to `take`; what cannot be decoded is counted."""

    def __init__(self, settings: Settings, topic: str, decoder: Decoder, take: Take) -> None:
        self.topic, self.unreadable = topic, 0
        self._settings, self._decoder, self._take = settings, decoder, take
        self._consumer: Consumer | None = None
        self.next: dict[int, int] = {}
        self._ended: set[int] = set()

    def open(self, start: Mapping[int, int]) -> None:
        """Stands at `start` by partition, elsewhere at the beginning. Raises BrokerUnavailable, SettingsError."""
        self.close()
        lows = bounds(self._settings, places(self._settings, self.topic))
        self.next = {part: min(max(start.get(part, 0), low), high) for (_, part), (low, high) in lows.items()}
        self._ended.clear()
        self._consumer = plain_consumer(self._settings)
        self._consumer.assign([TopicPartition(self.topic, part, at) for part, at in self.next.items()])

    def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with suppress(RuntimeError):
                consumer.close()

    @property
    def current(self) -> bool:
        """Whether all that was there at the last reading has been taken."""
        return self._ended >= self.next.keys()

    def poll(self, wait_s: float) -> int:
        """Takes what has come; how many records. Raises what cannot pass by itself."""
        assert self._consumer is not None, "open it first"
        arrived = []
        for message in self._consumer.consume(BATCH, wait_s):
            if (error := message.error()) is None:
                arrived.append(message)
                self._ended.discard(message.partition())
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(message.partition())
                self.next[message.partition()] = max(self.next[message.partition()], message.offset())
            elif error.code() not in PASSING and not error.retriable():
                raise kafka_error(error, self.topic)
        for message, record in zip(
            arrived, self._decoder.decode_many([message.value() for message in arrived]), strict=True
        ):
            if not isinstance(record, BadRecord):
                self._take(record, message)
            elif message.value() is not None:  # else it was deleted, as a person was forgotten
                self.unreadable += 1
            self.next[message.partition()] = message.offset() + 1
        return len(arrived)


def back_to(settings: Settings, topic: str, time_ms: float) -> dict[int, int]:
    """By partition, the offset of the first record since a UTC ms, or a later one: no more than READ_BACK of the topic.

    Raises BrokerUnavailable, SettingsError.
    """
    since = offsets_at(settings, topic, max(int(time_ms), 0))
    ends = bounds(settings, [(topic, part) for part in since])
    return {part: max(at, ends[topic, part][1] - READ_BACK // len(since)) for part, at in since.items()}


def read_examples(
    settings: Settings,
    registry: Registry,
    task: str,
    ranges: Mapping[int, tuple[int, int]],
    deleted: Callable[[str, int], bool] = lambda user_id, stamped: False,
) -> Iterator[tuple[int, int, Record]]:
    """(partition, offset, example) of a task, by partition and offset; what retention has taken is passed over, and
    what is `deleted`, by user and the broker's UTC ms.

    Raises BrokerUnavailable, RegistryUnavailable, SettingsError.
    """
    topic, decoder = settings.topics.examples, Decoder(registry, "training_example")
    lows = bounds(settings, [(topic, part) for part in ranges])
    for part, (start, end) in sorted(ranges.items()):
        low, high = lows[topic, part]
        for messages in read_range(settings, topic, part, max(start, low), min(end, high)):
            records = decoder.decode_many([message.value() for message in messages])
            for message, record in zip(messages, records, strict=True):
                if isinstance(record, BadRecord) or record["task"] != task:
                    continue
                if not deleted(record["user_id"], message.timestamp()[1]):
                    yield part, message.offset(), record
