"""Looks at topics from outside the worker: what is in them, what is committed; and fills them."""

import time
from collections import Counter
from collections.abc import Callable

import confluent_kafka
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streams.config import Settings


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.05)


def new_topic(settings: Settings, name: str, config: dict[str, str] | None = None) -> str:
    client = AdminClient({**settings.librdkafka(), "log_level": 0})
    client.create_topics([NewTopic(name, settings.partitions, 1, config=config or {})])[name].result()
    until(lambda: name in client.list_topics(timeout=10).topics)
    return name


def publish(settings: Settings, topic: str, count: int) -> None:
    client = confluent_kafka.Producer(
        {**settings.librdkafka(), "partitioner": "murmur2_random", "enable.idempotence": True}
    )
    for i in range(count):
        client.produce(topic, b"value-%d" % i, b"user-%d" % i)
    client.flush()


class Observer:
    """Looks from outside at what a worker read and wrote."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._client = confluent_kafka.Consumer(
            {**settings.librdkafka(), "group.id": settings.app_id, "enable.auto.commit": False}
        )

    def close(self) -> None:
        self._client.close()

    def ends(self, topic: str) -> dict[int, int]:
        places = [TopicPartition(topic, number) for number in range(self.settings.partitions)]
        return {place.partition: self._client.get_watermark_offsets(place)[1] for place in places}

    def has(self, topic: str) -> bool:
        """A topic is created some moments before each partition has its leader."""
        try:
            return bool(self.ends(topic))
        except confluent_kafka.KafkaException:
            return False

    def count(self, topic: str) -> int:
        return sum(self.ends(topic).values())

    def committed(self, topic: str) -> dict[int, int]:
        """Partitions that have nothing committed are left out."""
        places = [TopicPartition(topic, number) for number in range(self.settings.partitions)]
        found = self._client.committed(places, timeout=30)
        return {place.partition: place.offset for place in found if place.offset >= 0}

    def caught_up(self, *topics: str) -> bool:
        full = [{number: end for number, end in self.ends(topic).items() if end} for topic in topics]
        return all(self.committed(topic) == ends for topic, ends in zip(topics, full, strict=True))

    def outputs(self, topic: str) -> Counter[str]:
        """How often each input's output is there."""
        found: Counter[str] = Counter()
        for number, end in self.ends(topic).items():
            self._client.assign([TopicPartition(topic, number, 0)])
            left = end
            while left:
                messages = self._client.consume(left, 5.0)
                found.update(message.key().decode() for message in messages)
                left -= len(messages)
        self._client.unassign()
        return found

    def inputs(self, *topics: str) -> set[str]:
        return {
            f"{topic}/{number}/{offset}"
            for topic in topics
            for number, end in self.ends(topic).items()
            for offset in range(end)
        }
