"""The floor: a bare librdkafka loop that makes identical writes, and nothing else.
It decodes, keeps state in a dict, encodes, produces and commits; no checks, no restore, no dead letters.
"""

import time
from collections import deque
from typing import Any

from confluent_kafka import Consumer, Producer

from bench.peers.job import HISTORY, TASK, Contracts, entry, features, packed_row, score_record, served_record
from streams.config import Settings

BATCH = 4_000


def main() -> None:
    settings = Settings()
    topics, contracts = settings.topics, Contracts(settings)
    scores, served, state = topics.scores(TASK), topics.served(TASK), topics.state
    reading = {"group.id": settings.app_id, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer({**settings.librdkafka(), **reading})
    writing = {"acks": "all", "enable.idempotence": True, "linger.ms": 5, "partitioner": "murmur2_random"}
    producer = Producer({**settings.librdkafka(), **writing})
    consumer.subscribe([topics.clicks])
    users: dict[str, deque[bytes]] = {}
    dirty: dict[str, int] = {}
    flush_at = time.monotonic() + settings.state.flush_interval_s
    while True:
        messages = consumer.consume(BATCH, 0.05)
        now_ms = time.time_ns() // 1_000_000
        # Any: what a benchmark publishes is good, and what has a value has an offset.
        clicks: list[Any] = contracts.decode.decode_many([message.value() for message in messages])
        message: Any
        for message, click in zip(messages, clicks, strict=True):
            user, offset, partition = click["user_id"], message.offset(), message.partition()
            history = users.get(user)
            if history is None:
                history = users[user] = deque(maxlen=HISTORY)
            row = features(b"".join(history))
            history.append(entry(click, offset))
            dirty[user] = partition
            score = score_record(click, offset, now_ms, message.timestamp()[1])
            producer.produce(scores, contracts.score(score), message.key(), partition)
            producer.produce(served, contracts.served(served_record(score, row)), score["event_id"].encode())
        if time.monotonic() >= flush_at:
            for user, partition in dirty.items():
                producer.produce(state, packed_row(users[user]), b"u:" + user.encode(), partition)
                producer.poll(0)
            dirty.clear()
            flush_at = time.monotonic() + settings.state.flush_interval_s
        if messages:
            producer.flush()
            consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main()
