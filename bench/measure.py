"""What a process costs, and how far its output topics have grown: read from outside, so that it costs it nothing.
CPU is that of all threads of the process, librdkafka's and the engine's included; the broker's is not in it.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from confluent_kafka import TopicPartition

from streams.config import Settings
from streams.offsets import bounds, places, plain_consumer

TICKS = os.sysconf("SC_CLK_TCK")
POLL_S = 0.05
PATIENCE_S = 120.0


def cpu_seconds(pid: int, root: Path = Path("/proc")) -> float:
    """User and system time of a process so far, threads that ended included."""
    fields = (root / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(pid: int, root: Path = Path("/proc")) -> float:
    """Resident memory of a process now, in 10^6 bytes."""
    pages = int((root / str(pid) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Ends:
    """How many records each of some topics ever had: the ends of their partitions, summed."""

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        self._places = [places(settings, topic) for topic in topics]
        bounds(settings, [place for found in self._places for place in found])  # waits until each has a leader
        self._consumer = plain_consumer(settings)

    def counts(self) -> list[int]:
        return [sum(self._end(*place) for place in found) for found in self._places]

    def _end(self, topic: str, partition: int) -> int:
        return int(self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1])

    def least(self) -> int:
        """Of the topic that has fewest."""
        return min(self.counts())

    def close(self) -> None:
        self._consumer.close()


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of a run: events done, seconds of wall time, seconds of CPU."""

    events: int
    seconds: float
    cpu: float

    @property
    def us(self) -> float:
        """CPU microseconds per event."""
        return self.cpu * 1e6 / self.events

    @property
    def per_s(self) -> float:
        return self.events / self.seconds


def stretch(
    done: Callable[[], int], cpu: Callable[[], float], running: Callable[[], bool], total: int, settle_s: float
) -> Stretch:
    """From the first output to output `total`, and `settle_s` more of CPU: for what is written in the background.

    Raises RuntimeError if the process ends, or does not come to `total` in time.
    """
    begun = _until(done, running, 1)
    started_cpu, started = cpu(), time.monotonic()
    ended = _until(done, running, total)
    seconds = time.monotonic() - started
    time.sleep(settle_s)
    return Stretch(ended - begun, seconds, cpu() - started_cpu)


def _until(done: Callable[[], int], running: Callable[[], bool], count: int) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while (found := done()) < count:
        if not running():
            raise RuntimeError(f"the process ended at {found} of {count}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{found} of {count} after {PATIENCE_S:.0f} s")
        time.sleep(POLL_S)
    return found


def stretch_of(process: Popen[bytes], ends: Ends, total: int, settle_s: float = 0.0) -> Stretch:
    return stretch(ends.least, lambda: cpu_seconds(process.pid), lambda: process.poll() is None, total, settle_s)
