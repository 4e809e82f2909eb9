"""From an order that is due to its explained alert in another process: `python -m bench.alerts` prints a line of JSON.
The load is open-loop, 200 orders/s over full histories; a policy of one rule flags a tenth of the orders.
"""

import argparse
import json
import time
from statistics import median

from bench import testbed
from bench.latency import WARM_S, absorbed, latencies, quantiles, stretch
from bench.measure import rss_mb
from bench.report import show
from bench.testbed import NEVER_MS, furnish, process, publish, say
from streams.config import Settings
from streams.demo.stage import wait_ready
from streams.sources.load import history_load, uniform_load

RATE, SECONDS, RUNS, USERS = 200, 30, 3, 2_000
TARGETS = {"p99_ms": 100.0, "repeats": 0.0}
POLICY = """name = "bench"
[[rules]]
id = "tenth"
when = "user.id.endsWith('7')"
then = "review"
[[rules]]
id = "others"
when = "true"
then = "approve"
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.alerts", description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--rate", type=int, default=RATE)
    arguments = parser.parse_args()
    with testbed.testbed(deadlines_ms=dict.fromkeys(testbed.TASKS, NEVER_MS)) as settings:
        furnish(settings, POLICY)
        published = publish(settings, history_load(USERS, 1))
        log = settings.data_dir / "worker.log"
        with process(["streams", "worker"], settings, log) as worker:
            wait_ready(settings, worker, log)
            absorbed(settings, published)
            runs = []
            for number in range(arguments.runs):
                runs.append(one_run(settings, worker.pid, number + 2, arguments.rate, arguments.seconds))
                say(json.dumps(runs[-1]))
    figures = {name: median(run[name] for run in runs) for name in runs[0]}
    show("alerts", {"orders_per_s": arguments.rate, "runs": arguments.runs, **figures}, TARGETS)


def one_run(settings: Settings, pid: int, seed: int, rate: int, seconds: int) -> dict[str, float]:
    """One open-loop stretch of orders; the first WARM_S seconds of it do not count."""
    events = list(uniform_load(rate * seconds, USERS, seed, (0.0, 1.0, 0.0), start=int(time.time() * 1000)))
    flagged = {event.record["event_id"] for event in events if event.record["user_id"][-1] == "7"}
    seen = stretch(settings, pid, seed, events, rate, len(flagged), "alerts")
    due = {ident: at for ident, at in seen.due(events, rate).items() if ident in flagged}
    times = latencies(seen.event_id, seen.seen_at, due, seen.began_at + WARM_S)
    return {
        **quantiles(times), "alerts": len(seen.event_id), "repeats": len(seen.event_id) - len(set(seen.event_id)),
        "explained": float(seen.record["explained"].mean()), "cpu_cores": seen.cores, "rss_mb": rss_mb(pid),
        "publisher_lag_p99_ms": seen.lag_p99_ms,
    }  # fmt: skip


if __name__ == "__main__":
    main()
