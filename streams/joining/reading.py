"""Reads some topics at one partition number, from offsets that the reader keeps itself; no group, no commits."""

from collections.abc import Iterable, Mapping
from contextlib import suppress

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from streams.config import Settings
from streams.offsets import PASSING, bounds, kafka_error, plain_consumer


class Reading:
    """Used from one thread. `next`: by topic, the offset after the newest record that `took` was told of."""

    def __init__(self, settings: Settings, topics: Iterable[str], partition: int) -> None:
        self.topics, self.partition = tuple(topics), partition
        self.next: dict[str, int] = {}
        self.ended: set[str] = set()
        """Topics of which there was nothing left when they were read last."""
        self._ends: dict[str, int] = {}
        self._settings = settings
        self._consumer: Consumer | None = None

    def open(self, inputs: Mapping[str, int]) -> None:
        """Stands at these offsets; where retention has deleted them, or there is none, at the start of the log."""
        self.close()
        lows = bounds(self._settings, [(topic, self.partition) for topic in self.topics])
        self.next = {topic: max(inputs.get(topic, 0), lows[topic, self.partition][0]) for topic in self.topics}
        self.ended = set()
        self._ends = {}
        self._consumer = plain_consumer(self._settings)
        self._consumer.assign([TopicPartition(topic, self.partition, at) for topic, at in self.next.items()])

    def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with suppress(RuntimeError):
                consumer.close()

    def read(self, count: int, wait_s: float) -> list[Message]:
        """At most `count` records, after at most `wait_s` seconds. Raises what cannot pass by itself."""
        assert self._consumer is not None, "open it first"
        records = []
        for message in self._consumer.consume(count, wait_s):
            error = message.error()
            if error is None:
                records.append(message)
                self.ended.discard(message.topic())
            elif error.code() == KafkaError._PARTITION_EOF:
                self.ended.add(message.topic())
                self._ends[message.topic()] = message.offset()
            elif error.code() not in PASSING and not error.retriable():
                raise kafka_error(error, f"{message.topic()}[{self.partition}]")
        return records

    def has_read(self, topic: str, end: int) -> bool:
        """Whether nothing before offset `end` is still to come; the last offsets may be marks of transactions."""
        return max(self.next.get(topic, 0), self._ends.get(topic, 0)) >= end

    def took(self, message: Message) -> None:
        self.next[message.topic()] = max(self.next[message.topic()], message.offset() + 1)
