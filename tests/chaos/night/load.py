"""The load: what customers do, published at a steady rate from a thread, and kept for the checker.
It is a patient client of the shop: what a broker does not take now is sent again until it does.
"""

import random
import threading
import time
from contextlib import closing
from typing import Any

import confluent_kafka

from schemas.confluent import ConfluentRegistry
from schemas.wire import Encoder
from streams.config import Settings
from tests.chaos.night.customers import Customers, Sent

CONTRACTS = {"clicks": "click", "orders": "order", "impressions": "ad_impression", "labels": "label"}
PATIENCE_S = 600
BURST_PAUSE_S = 0.002


class Load:
    """`sent` is all that was published, `poison` what nobody can use. Used from several threads."""

    def __init__(self, settings: Settings, seed: int, rate: float) -> None:
        """`rate`: events per second. The registry must be there, once."""
        self._settings, self._rate, self._seed = settings, rate, seed
        with closing(ConfluentRegistry(settings.registry())) as registry:
            self._encoders = {
                name: Encoder(registry, getattr(settings.topics, name), contract)
                for name, contract in CONTRACTS.items()
            }
        self._producer = confluent_kafka.Producer(
            settings.librdkafka()
            | {
                "partitioner": "murmur2_random", "acks": "all", "enable.idempotence": True, "linger.ms": 5,
                "log_level": 0, "message.timeout.ms": PATIENCE_S * 1000, "reconnect.backoff.max.ms": 1_000,
            }
        )  # fmt: skip
        self._customers = Customers(random.Random(seed))
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.sent: Sent = []
        self.poison: list[bytes] = []
        self.refused: list[str] = []

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """All that is still to be said is published and acknowledged when it returns."""
        self._ended.set()
        self._thread.join()
        self._say(self._customers.verdicts(2**62))
        self.flush()

    def close_windows(self) -> None:
        """Event time goes on by an hour."""
        self._say(self._customers.closing(_now_ms()))
        self.flush()

    def hot(self, rng: random.Random, count: int) -> None:
        """`count` events of one customer, as fast as they go out."""
        customers, user = Customers(rng, prefix=f"hot{rng.randrange(1 << 30)}-"), f"hot-{rng.randrange(1 << 30)}"
        for _ in range(count):
            self._say(customers.act(_now_ms(), user))
            time.sleep(BURST_PAUSE_S)
        self._say(customers.verdicts(2**62))

    def flood(self, rng: random.Random, count: int) -> None:
        """`count` messages that are no events: other bytes, or the beginning of an event."""
        customers = Customers(rng)
        for _ in range(count):
            kind, event = customers.act(_now_ms())[0]
            whole = self._encoders[kind](event)
            # A part of an event alone could be said twice; a mark at its end makes it one of a kind.
            cut = whole[: rng.randrange(1, 8)] if rng.random() < 0.5 else b"\1"
            self._poison(kind, cut + b"\xff" * 12 + rng.randbytes(12))
            time.sleep(BURST_PAUSE_S)

    def flush(self) -> None:
        left = self._producer.flush(PATIENCE_S)
        if left or self.refused:
            self.refused.append(f"{left} events were never acknowledged")

    def _run(self) -> None:
        started, number = time.monotonic(), 0
        while not self._ended.is_set():
            self._say(self._customers.act(_now_ms()))
            number += 1
            self._ended.wait(max(0.0, started + number / self._rate - time.monotonic()))

    def _say(self, events: Sent) -> None:
        with self._lock:
            for name, record in events:
                key = record["target_id" if name == "labels" else "user_id"].encode()
                self._produce(getattr(self._settings.topics, name), self._encoders[name](record), key)
                self.sent.append((name, record))

    def _poison(self, name: str, value: bytes) -> None:
        with self._lock:
            self._produce(getattr(self._settings.topics, name), value, value[-4:])
            self.poison.append(value)

    def _produce(self, topic: str, value: bytes, key: bytes) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=self._told)
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)

    def _told(self, error: Any, message: confluent_kafka.Message) -> None:
        if error is not None:
            self.refused.append(f"{message.topic()}: {error}")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
