"""A load without an end in memory: `python -m bench.steady_load RATE SECONDS USERS`, settings from the environment.
Events are made as they are due; each one's event_time is the moment in which it is handed to the client. A line of JSON
says how many there were, and the sum of their ids' hashes: whoever sees each of them once comes to the same sum.
"""

import json
import signal
import sys
import threading
import time
from contextlib import closing

import xxhash

from schemas.confluent import ConfluentRegistry
from streams.config import Settings
from streams.sources.load import uniform_load
from streams.sources.publisher import Publisher
from streams.sources.replay import Pace, replay
from streams.sources.telling import Timed

SEED = 11
BITS = 64


class Digest:
    """Ids that were seen: how many, and the sum of their hashes. Their order does not count, a repeat does."""

    def __init__(self) -> None:
        self.count = self.sum = 0

    def add(self, ident: str) -> None:
        self.count += 1
        self.sum = (self.sum + xxhash.xxh3_64_intdigest(ident.encode())) % (1 << BITS)


def main(rate: str, seconds: str, users: str) -> None:
    settings, digest, stop = Settings(), Digest(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def now(event: Timed) -> None:
        event.record["event_time"] = time.time_ns() // 1_000_000
        digest.add(event.record["event_id"])

    events = uniform_load(int(float(rate) * float(seconds)), int(users), SEED)
    with (
        closing(ConfluentRegistry(settings.registry())) as registry,
        Publisher(settings, registry, linger_ms=0) as publisher,
    ):
        counts = replay(events, publisher, Pace(rate=float(rate)), stop=stop, on_event=now)
    print(json.dumps({"sent": counts.total, "seconds": counts.seconds, "digest": digest.sum}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
