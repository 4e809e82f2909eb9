"""From an event that is due to its score in another process: `python -m bench.latency` prints one line of JSON.
The load is open-loop, 1,000 events/s over full histories, with real engines; all of it and the broker on this machine.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import open_loop, testbed
from bench.measure import Ends, cpu_seconds, rss_mb
from bench.report import show
from bench.testbed import NEVER_MS, furnish, process, publish, say
from streams.config import Settings
from streams.demo.stage import environment, wait_ready
from streams.sources.load import history_load, uniform_load
from streams.sources.telling import Timed

RATE, SECONDS, RUNS, USERS, WARM_S = 1_000, 20, 3, 2_000, 3
TARGETS = {"p50_ms": 10.0, "p99_ms": 40.0}
IDLE_S = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--rate", type=int, default=RATE)
    parser.add_argument("--stages", action="store_true", help="also say where the worker spends its time, on stderr")
    parser.add_argument("--worker", default="streams worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with testbed.testbed(deadlines_ms=dict.fromkeys(testbed.TASKS, NEVER_MS)) as settings:
        furnish(settings)
        published = publish(settings, history_load(USERS, 1))
        log = settings.data_dir / "worker.log"
        with process(arguments.worker.split(), settings, log) as worker:
            wait_ready(settings, worker, log)
            absorbed(settings, published)
            runs = []
            for number in range(arguments.runs):
                runs.append(one_run(settings, worker.pid, number + 2, arguments.rate, arguments.seconds))
                say(json.dumps(runs[-1]))
                if arguments.stages:
                    say(stages(settings))
    figures = {name: median(run[name] for run in runs) for name in runs[0]}
    show("latency", {"rate": arguments.rate, "runs": arguments.runs, **figures}, TARGETS)


def one_run(settings: Settings, pid: int, seed: int, rate: int, seconds: int) -> dict[str, float]:
    """One open-loop stretch; the first WARM_S seconds of it do not count."""
    count = rate * seconds
    events = list(uniform_load(count, USERS, seed, start=int(time.time() * 1000)))
    seen = stretch(settings, pid, seed, events, rate, count)
    times = latencies(seen.event_id, seen.seen_at, seen.due(events, rate), seen.began_at + WARM_S)
    queue, infer = (float(np.median(seen.record[name])) / 1000 for name in ("queue_us", "infer_us"))
    return {
        **quantiles(times), "scored": len(times), "cpu_cores": seen.cores, "rss_mb": rss_mb(pid),
        "publisher_lag_p99_ms": seen.lag_p99_ms, "queue_p50_ms": queue, "infer_p50_ms": infer,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """What the consumer saw of a stretch, and the cores that the worker of it took. record: columns by name."""

    began_at: float
    lag_p99_ms: float
    cores: float
    record: dict[str, NDArray[Any]]

    @property
    def event_id(self) -> list[str]:
        return list(self.record["event_id"].tolist())

    @property
    def seen_at(self) -> NDArray[np.float64]:
        return self.record["seen_at"]

    def due(self, events: Sequence[Timed], rate: float) -> dict[str, float]:
        """Seconds since the epoch at which each event was due, by its id."""
        return {event.record["event_id"]: self.began_at + number / rate for number, event in enumerate(events)}


def stretch(
    settings: Settings, pid: int, seed: int, events: Sequence[Timed], rate: int, wanted: int, what: str = "scores"
) -> Seen:
    """Publishes the events at their pace while another process notes the scores, or alerts, that come of them."""
    folder = settings.data_dir / f"run-{seed}"
    folder.mkdir(parents=True)
    open_loop.save(folder / "messages.npz", testbed.encoded(settings, events), rate)
    command, env = [sys.executable, "-m"], os.environ | environment(settings)
    file, patience = folder / "seen.npz", len(events) / rate + 30
    consumer = subprocess.Popen([*command, "bench.consumer", str(file), str(wanted), str(patience), what], env=env)
    try:
        while not file.with_suffix(".ready").exists():
            time.sleep(0.05)
        started, cpu = time.monotonic(), cpu_seconds(pid)
        loop = [*command, "bench.open_loop", str(folder / "messages.npz")]
        report = json.loads(subprocess.run(loop, env=env, check=True, stdout=subprocess.PIPE).stdout)
        cores = (cpu_seconds(pid) - cpu) / (time.monotonic() - started)
        consumer.wait(60)
    finally:
        consumer.kill()
        consumer.wait()
    with np.load(file) as found:
        return Seen(report["began_at"], report["lag_p99_ms"], cores, {name: found[name] for name in found.files})


def latencies(ids: list[str], seen_at: NDArray[np.float64], due: dict[str, float], first: float) -> NDArray[np.float64]:
    """Milliseconds from when each event was due to when its first score was seen; only of those due from `first` on.

    An event without a score is infinitely late.
    """
    seen: dict[str, float] = {}
    for ident, at in zip(ids, seen_at.tolist(), strict=True):
        seen.setdefault(ident, at)
    return np.array([1e3 * (seen.get(ident, np.inf) - at) for ident, at in due.items() if at >= first])


def quantiles(times: NDArray[np.float64]) -> dict[str, float]:
    ranked = np.sort(times)

    def at(share: float) -> float:
        return float(ranked[min(len(ranked) - 1, int(share * len(ranked)))])

    return {"p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": float(ranked[-1])}


def absorbed(settings: Settings, count: int) -> None:
    """Returns when the histories are scored and the worker is idle."""
    with closing(Ends(settings, [settings.topics.scores(task) for task in testbed.TASKS])) as ends:
        while sum(ends.counts()) < count:
            time.sleep(0.2)
    time.sleep(IDLE_S)


def stages(settings: Settings) -> str:
    """Mean milliseconds per micro-batch of each stage since the worker started."""
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.web.port}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return "\n".join(line for line in lines if ("_sum" in line or "_count" in line) and "latency" not in line)


if __name__ == "__main__":
    main()
