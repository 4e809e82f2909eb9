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
from contextlib import closing
from statistics import median

import numpy as np
from numpy.typing import NDArray

from bench import open_loop, testbed
from bench.measure import Ends, cpu_seconds, rss_mb
from bench.report import show
from bench.testbed import NEVER_MS, furnish, process, publish, say
from streams.config import Settings
from streams.demo.stage import environment, wait_ready
from streams.sources.load import history_load, uniform_load

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
    folder = settings.data_dir / f"run-{seed}"
    folder.mkdir(parents=True)
    count = rate * seconds
    start = int(time.time() * 1000)
    events = list(uniform_load(count, USERS, seed, start=start))
    open_loop.save(folder / "messages.npz", testbed.encoded(settings, events), rate)
    command, env = [sys.executable, "-m"], os.environ | environment(settings)
    seen = folder / "seen.npz"
    consumer = subprocess.Popen([*command, "bench.consumer", str(seen), str(count), str(seconds + 30)], env=env)
    try:
        while not seen.with_suffix(".ready").exists():
            time.sleep(0.05)
        started, cpu = time.monotonic(), cpu_seconds(pid)
        loop = [*command, "bench.open_loop", str(folder / "messages.npz")]
        report = json.loads(subprocess.run(loop, env=env, check=True, stdout=subprocess.PIPE).stdout)
        cores = (cpu_seconds(pid) - cpu) / (time.monotonic() - started)
        consumer.wait(60)
    finally:
        consumer.kill()
        consumer.wait()
    due = {event.record["event_id"]: report["began_at"] + number / rate for number, event in enumerate(events)}
    with np.load(seen) as found:
        first = report["began_at"] + WARM_S
        times = latencies(found["event_id"].tolist(), found["seen_at"], due, first)
        queue = float(np.median(found["queue_us"])) / 1000
        infer = float(np.median(found["infer_us"])) / 1000
    return {
        **quantiles(times), "scored": len(times), "cpu_cores": cores, "rss_mb": rss_mb(pid),
        "publisher_lag_p99_ms": report["lag_p99_ms"], "queue_p50_ms": queue, "infer_p50_ms": infer,
    }  # fmt: skip


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
