"""Time to score again after a crash with a million users in state: `python -m bench.recovery` prints one line of JSON.
The rows are real ones, copied under other names; the worker that takes over has an empty local folder.
"""

import argparse
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from bench import testbed
from bench.measure import Ends, cpu_seconds, rss_mb
from bench.report import show
from bench.testbed import NEVER_MS, furnish, process, publish, say
from schemas.confluent import ConfluentRegistry
from streams.batch import CLICKS
from streams.catalog import Catalogue
from streams.changelog import Changelog, Frontier
from streams.config import Settings
from streams.demo.stage import wait_ready
from streams.events import event_batch
from streams.partitioning import partitions_for
from streams.sources.load import uniform_load
from streams.sources.publisher import Publisher
from streams.state import UserState

USERS, CLICKS_EACH = 1_000_000, 4
FLUSH = 20_000
PULSE_S = 0.05
PATIENCE_S = 300.0
TARGETS = {"recovery_s": 60.0}
Rows = list[tuple[bytes, bytes]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description=__doc__)
    parser.add_argument("--users", type=int, default=USERS)
    arguments = parser.parse_args()
    with testbed.testbed(deadlines_ms=dict.fromkeys(testbed.TASKS, NEVER_MS)) as settings:
        furnish(settings)
        size = fill(settings, arguments.users)
        publish(settings, uniform_load(1_000, 1_000, 5))
        figures = crash(settings)
    show("recovery", {"users": arguments.users, "row_bytes": size, **figures}, TARGETS)


def fill(settings: Settings, users: int) -> float:
    """Writes a row for each user through the changelog, as flushes do; returns a row's mean size in bytes."""
    changelog, sizes, started = Changelog(settings), 0, time.monotonic()
    rows = {partition: a_row(partition) for partition in range(settings.partitions)}
    for partition in rows:
        changelog.acquire(partition)
    waiting: dict[int, Rows] = {partition: [] for partition in rows}
    for partition, key in keys(users, settings.partitions):
        waiting[partition].append((key, rows[partition]))
        sizes += len(rows[partition])
        if len(waiting[partition]) == FLUSH:
            changelog.flush(partition, waiting[partition], frontier(settings))
            waiting[partition] = []
    for partition, left in waiting.items():
        changelog.flush(partition, left, frontier(settings))
    changelog.close()
    say(f"{users:,} users written in {time.monotonic() - started:.0f} s")
    return sizes / users


def keys(users: int, partitions: int, block: int = 10_000) -> Iterator[tuple[int, bytes]]:
    for first in range(0, users, block):
        names = [b"user-%07d" % number for number in range(first, min(first + block, users))]
        yield from zip(partitions_for(names, partitions).tolist(), names, strict=True)


def a_row(partition: int) -> bytes:
    """The packed state of a user with a few clicks."""
    state = UserState(slots=16)
    clicks = [event.record for event in uniform_load(CLICKS_EACH, 1, 7, (1.0, 0.0, 0.0))]
    count = len(clicks)
    state.absorb(event_batch(clicks, [CLICKS] * count, [partition] * count, [-1] * count, Catalogue()))
    return next(iter(state.snapshot([partition]).rows(partition)))[1]


def frontier(settings: Settings) -> Frontier:
    """All inputs unread: what is published later is scored."""
    return Frontier((0, 0, 0), dict.fromkeys(settings.tasks, 0), time.time_ns() // 1_000_000)


def crash(settings: Settings) -> dict[str, Any]:
    """Kill to the first new score, while clicks keep coming; the second worker has nothing but the broker."""
    topic = settings.topics.scores("recommendations")
    second = settings.model_copy(update={"data_dir": settings.data_dir / "second"})
    with closing(Ends(settings, [topic])) as ends, Pulse(settings):
        with process(("streams", "worker"), settings, settings.data_dir / "first.log") as worker:
            first_start = until_scored(ends, 0, worker)
            time.sleep(2 * settings.state.flush_interval_s)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        killed, before = time.monotonic(), ends.least()
        with process(("streams", "worker"), second, settings.data_dir / "second.log") as worker:
            until_scored(ends, before, worker)
            found = {"recovery_s": time.monotonic() - killed, "cpu_s": cpu_seconds(worker.pid)}
            wait_ready(second, worker, settings.data_dir / "second.log")
            return {**found, "rss_mb": rss_mb(worker.pid), "first_start_s": first_start}


def until_scored(ends: Ends, count: int, worker: subprocess.Popen[bytes]) -> float:
    """Seconds until there are more than `count` scores."""
    started = time.monotonic()
    while ends.least() <= count:
        if worker.poll() is not None:
            raise RuntimeError("the worker ended")
        if time.monotonic() - started > PATIENCE_S:
            raise RuntimeError(f"no score in {PATIENCE_S:.0f} s")
        time.sleep(PULSE_S)
    return time.monotonic() - started


class Pulse:
    """Publishes a click every PULSE_S seconds in a thread, so that there is always something to score."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._over = settings, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with closing(ConfluentRegistry(self._settings.registry())) as registry:
            publisher = Publisher(self._settings, registry)
            for event in uniform_load(1_000_000, 100_000, 9, (1.0, 0.0, 0.0)):
                publisher.publish(event)
                if self._over.wait(PULSE_S):
                    return


if __name__ == "__main__":
    main()
