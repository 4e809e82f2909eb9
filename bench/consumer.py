"""An independent consumer of scores: `python -m bench.consumer FILE COUNT SECONDS`, settings from the environment.
It notes when each score came, on the clock of the machine, and writes that down when it has seen all, or waited enough.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from schemas.confluent import ConfluentRegistry
from schemas.wire import Decoder
from streams.config import Settings
from streams.offsets import bounds, places

CONTRACTS = {"fraud": "fraud_score", "recommendations": "recommendation_score", "ctr": "ctr_score"}


def main(file: str, count: str, seconds: str) -> None:
    settings = Settings()
    topics = [settings.topics.scores(task) for task in CONTRACTS]
    found = bounds(settings, [place for topic in topics for place in places(settings, topic)])
    consumer = Consumer({**settings.librdkafka(), "group.id": "bench-consumer", "enable.auto.commit": False})
    consumer.assign([TopicPartition(*place, end) for place, (_, end) in found.items()])
    consumer.poll(0.5)
    Path(file).with_suffix(".ready").touch()
    seen: list[tuple[str, bytes, float, int]] = []
    deadline = time.monotonic() + float(seconds)
    while len(seen) < int(count) and time.monotonic() < deadline:
        message: Any = consumer.poll(0.2)
        if message is not None and message.error() is None:
            seen.append((message.topic(), message.value(), time.time(), message.timestamp()[1]))
    consumer.close()
    save(settings, seen, Path(file))


def save(settings: Settings, seen: list[tuple[str, bytes, float, int]], file: Path) -> None:
    """event_ids, and when each score was seen (seconds since the epoch), decoded only now."""
    registry = ConfluentRegistry(settings.registry())
    decoders = {settings.topics.scores(task): Decoder(registry, contract) for task, contract in CONTRACTS.items()}
    scores: list[Any] = [decoders[topic](value) for topic, value, _, _ in seen]
    np.savez(
        file,
        event_id=np.array([score["event_id"] for score in scores]),
        seen_at=np.array([at for _, _, at, _ in seen]),
        acked_at=np.array([stamp / 1000 for _, _, _, stamp in seen]),
        queue_us=np.array([score["timings"]["queue_us"] for score in scores]),
        infer_us=np.array([score["timings"]["infer_us"] for score in scores]),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
