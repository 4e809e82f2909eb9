"""An independent consumer: `python -m bench.consumer FILE COUNT SECONDS [alerts]`, settings from the environment.
It notes when each score, or alert, came, on the machine's clock; it writes when it has seen all, or waited enough.
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


def main(file: str, count: str, seconds: str, what: str = "scores") -> None:
    settings = Settings()
    contracts = contracts_of(settings, what)
    topics = list(contracts)
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
    save(settings, contracts, seen, Path(file))


def contracts_of(settings: Settings, what: str) -> dict[str, str]:
    """By topic."""
    if what == "alerts":
        return {settings.topics.alerts: "fraud_alert"}
    return {settings.topics.scores(task): contract for task, contract in CONTRACTS.items()}


def save(settings: Settings, contracts: dict[str, str], seen: list[tuple[str, bytes, float, int]], file: Path) -> None:
    """event_ids, and when each was seen (seconds since the epoch), decoded only now; an alert has no timings, but
    whether it says why."""
    registry = ConfluentRegistry(settings.registry())
    decoders = {topic: Decoder(registry, contract) for topic, contract in contracts.items()}
    records: list[Any] = [decoders[topic](value) for topic, value, _, _ in seen]
    timings = [record.get("timings", {}) for record in records]
    np.savez(
        file,
        event_id=np.array([record["event_id"] for record in records]),
        seen_at=np.array([at for _, _, at, _ in seen]),
        acked_at=np.array([stamp / 1000 for _, _, _, stamp in seen]),
        queue_us=np.array([timing.get("queue_us", 0) for timing in timings]),
        infer_us=np.array([timing.get("infer_us", 0) for timing in timings]),
        explained=np.array([bool(record.get("contributions")) for record in records]),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
