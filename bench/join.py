"""What the label join costs: labels through the join and its RocksDB, without Kafka, over a shop that is waiting.
`python -m bench.join` prints one JSON line; CPU is that of all threads, RocksDB's own included.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from bench.measure import rss_mb
from bench.report import show
from streams.labels.join import Join
from streams.labels.joined import Joined
from streams.labels.rules import Rule
from streams.labels.state import State
from streams.labels.store import LabelStore
from streams.tasks import make_task

START_MS = 1_700_000_000_000
STEP = 1_000  # records a transaction
ADS = [f"ad-{number:05}" for number in range(5_000)]
SLATE = 8
ROUNDS = 5
TARGETS = {"us_per_label": 200.0}  # 5,000 labels/s on one core


def impression(number: int) -> dict[str, Any]:
    """Of a slate of 8 ads: the largest entry that the three tasks have. One a millisecond."""
    first = number * 7 % (len(ADS) - SLATE)
    return {
        "task": "ctr", "target_id": target(number), "event_time": START_MS + number, "propensity": 1.0,
        "candidates": ADS[first : first + SLATE], "decision": None,
    }  # fmt: skip


def target(number: int) -> str:
    """As long as a UUID without its dashes."""
    return f"{number * 0x9E3779B97F4A7C15 & (1 << 64) - 1:016x}{number:016x}"


def click(number: int, place: int) -> dict[str, Any]:
    return {
        "label_id": f"{number:031x}{place}", "task": "ctr", "target_id": target(number), "name": "click",
        "candidate_id": impression(number)["candidates"][place], "value": 1.0, "source": "derived",
        "observed_at": START_MS + number + 60_000, "revision": 0, "withdrawn": False,
    }  # fmt: skip


class Bench:
    """A join over one partition, and the runner's part of a step: changes out, then into the store."""

    def __init__(self, store: LabelStore) -> None:
        self.state = State(store, 0)
        self.join = Join(Rule.of(make_task("ctr")), self.state, step=STEP)
        self._positions = count()

    def step(self) -> int:
        """Bytes that the changelog would get."""
        changes = self.state.changes
        self.state.stored(next(self._positions))
        return sum(len(key) + len(row or b"") for key, row in changes)

    def fill(self, numbers: range) -> int:
        logged = 0
        for start in numbers[::STEP]:
            lot = range(start, min(start + STEP, numbers.stop))
            self.join.fetch([target(number) for number in lot])
            for number in lot:
                self.join.served(impression(number), 0, number)
            logged += self.step()
        return logged

    def label(self, labels: Sequence[dict[str, Any]], now: int) -> int:
        for start in range(0, len(labels), STEP):
            lot = labels[start : start + STEP]
            self.join.fetch([one["target_id"] for one in lot])
            for one in lot:
                self.join.label(one, now)
            self.step()
        return len(labels)

    def close(self, watermark: int) -> Iterator[Joined]:
        """Windows up to `watermark`, a transaction a call of `advance`."""
        self.join.behind = True
        while self.join.behind:
            yield from self.join.advance(watermark, watermark + 1, watermark)
            self.step()


def cpu_us(work: Callable[[], int]) -> float:
    """CPU microseconds of this process per unit; `work` returns its units."""
    started = time.process_time()
    units = work()
    return (time.process_time() - started) * 1e6 / max(1, units)


def disk_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def settle(folder: Path, every_s: float) -> float:
    """Megabytes on the disk once RocksDB has merged what it was given, or after 30 looks."""
    sizes = [disk_mb(folder)]
    while len(sizes) < 30 and (len(sizes) < 3 or sizes[-1] != sizes[-3]):
        time.sleep(every_s)
        sizes.append(disk_mb(folder))
    return sizes[-1]


def measure(waiting: int, labels: int, folder: Path, settle_s: float = 2.0) -> dict[str, Any]:
    rng, store = random.Random(0), LabelStore(folder)
    bench = Bench(store)
    logged = 0

    def fill() -> int:
        nonlocal logged
        logged = bench.fill(range(waiting))
        return waiting

    us_per_served = cpu_us(fill)
    per_million = 1e6 / waiting
    disk = settle(folder, settle_s)
    now = START_MS + waiting + 60_000

    def labelling() -> float:
        clicks = [click(rng.randrange(waiting), rng.randrange(SLATE)) for _ in range(labels // ROUNDS)]
        return cpu_us(partial(bench.label, clicks, now))

    us_per_label = min(labelling() for _ in range(ROUNDS))
    peak = rss_mb(os.getpid())
    closing = START_MS + min(waiting, 50_000) + 30 * 60_000
    examples = cpu_us(lambda: sum(1 for _ in bench.close(closing)))
    counts = bench.join.take_counts()
    assert counts.matched + counts.duplicates == labels // ROUNDS * ROUNDS, counts
    figures = {
        "labels_per_s": 1e6 / us_per_label,
        "us_per_label": us_per_label,
        "us_per_served": us_per_served,
        "us_per_example": examples,
        "waiting_rows": waiting,
        "disk_mb_per_million": disk * per_million,
        "changelog_mb_per_million": logged / 1e6 * per_million,
        "rss_mb": peak,
    }
    store.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.join", description=__doc__)
    parser.add_argument("--waiting", type=int, default=1_000_000, help="entries that wait for labels")
    parser.add_argument("--labels", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-join-") as folder:
        show("join", measure(given.waiting, given.labels, Path(folder)), TARGETS)


if __name__ == "__main__":
    main()
