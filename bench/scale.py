"""What more workers and more users cost an event: `python -m bench.scale` prints one line of JSON.
CPU time of all workers together, over a paced load that one of them can take; what is shared by machines is not in it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from confluent_kafka.admin import AdminClient

from bench import latency, open_loop, plots, testbed
from bench.measure import cpu_seconds, rss_mb
from bench.recovery import fill
from bench.report import show
from bench.soak import disk_gb
from bench.testbed import NEVER_MS, TASKS, furnish, process, publish, say, variant
from streams.config import Settings
from streams.demo.stage import environment
from streams.ports import free_port
from streams.sources.load import history_load, uniform_load

PARTITIONS, USERS_PARTITIONS = 12, 4
WORKERS, USERS = (1, 2, 4), (10_000, 100_000, 1_000_000, 10_000_000)
RATE, SECONDS, RUNS, IDLE_S, SETTLE_S = 300, 40, 3, 10.0, 3.0
KNOWN = 1_000
"""Users of the workers' part, all with full histories."""
WARM_PER_SLOT = 1.25
"""Events before the measured ones, by rows in memory: afterwards, whoever comes must make room."""
READY_S = 3_600.0
WORKERS_RATIO, USERS_RATIO, RSS_RATIO = 1.10, 1.15, 1.15


class Cost(NamedTuple):
    """us: CPU of an event; net_us: without what the same workers take when nothing comes; shares: of CPU by worker."""

    us: float
    net_us: float
    idle_cores: float
    shares: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--workers", default=",".join(map(str, WORKERS)), help="how many at once; empty: not this part")
    parser.add_argument("--users", default=",".join(map(str, USERS)), help="users in state; empty: not this part")
    parser.add_argument("--rate", type=int, default=RATE, help="events/s")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of a measured stretch")
    parser.add_argument("--runs", type=int, default=RUNS, help="stretches; the median counts")
    parser.add_argument("--slots", type=int, default=None, help="rows in memory, if not the default")
    parser.add_argument("--plot", type=Path, default=Path("build/scale.png"))
    arguments = parser.parse_args()
    workers, users = numbers(arguments.workers), numbers(arguments.users)
    over = {} if arguments.slots is None else {"state": {"slots": arguments.slots}}
    never = dict.fromkeys(TASKS, NEVER_MS)
    figures: dict[str, Any] = {"rate": arguments.rate, "seconds": arguments.seconds, "runs": arguments.runs}
    with testbed.testbed(deadlines_ms=never, partitions=PARTITIONS, **over) as bed:
        furnish(bed)
        figures |= by_workers([(count, with_workers(bed, count, arguments)) for count in workers])
        found = [(count, with_users(bed, count, arguments)) for count in users]
        figures |= by_users(found, bed.state.slots)
    if plot := draw(figures, workers, users, arguments.plot):
        say(f"curves: {plot}")
    show("scale", figures, targets(workers, users, bed.state.slots))


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",") if each]


# -- workers -----------------------------------------------------------------------------------------------------


def with_workers(bed: Settings, count: int, arguments: argparse.Namespace) -> Cost:
    """So many workers on the same events, from a state of full histories."""
    settings = variant(bed, f"w{count}", inputs=True)
    with ExitStack() as stack:
        pids = []
        for number in range(count):
            own = settings.model_copy(
                update={
                    "data_dir": settings.data_dir / f"{number}",
                    "web": settings.web.model_copy(update={"port": free_port()}),
                }
            )
            worker = stack.enter_context(process(("streams", "worker"), own, own.data_dir / "log"))
            until_ready(own, worker)
            pids.append(worker.pid)
        published = publish(settings, history_load(KNOWN, 1))
        latency.absorbed(settings, published)
        cost = paced(settings, pids, KNOWN, arguments)
    say(f"{count} workers: {cost}")
    return cost


def by_workers(found: Sequence[tuple[int, Cost]]) -> dict[str, Any]:
    """least_share: of the CPU, by the worker that had least, in shares of an equal one."""
    figures: dict[str, Any] = {}
    for count, cost in found:
        figures |= {
            f"workers_{count}_us": cost.us, f"workers_{count}_ratio": cost.us / found[0][1].us,
            f"workers_{count}_net_us": cost.net_us, f"workers_{count}_net_ratio": cost.net_us / found[0][1].net_us,
            f"workers_{count}_idle_cores": cost.idle_cores, f"workers_{count}_least_share": min(cost.shares) * count,
        }  # fmt: skip
    return figures


# -- users -------------------------------------------------------------------------------------------------------


class Full(NamedTuple):
    cost: Cost
    rss_mb: float
    fill_s: float
    restore_s: float
    row_bytes: float
    disk_gb: float


def with_users(bed: Settings, count: int, arguments: argparse.Namespace) -> Full:
    """A worker that has so many users in its state, on events of all of them alike: the worst case for its memory."""
    settings = variant(bed, f"u{count}", inputs=True, partitions=USERS_PARTITIONS)
    begun = time.monotonic()
    size = fill(settings, count)
    filled = time.monotonic()
    with process(("streams", "worker"), settings, settings.data_dir / "log") as worker:
        until_ready(settings, worker)
        ready = time.monotonic()
        warm = round(WARM_PER_SLOT * min(count, settings.state.slots))
        published = publish(settings, uniform_load(warm, count, 5, start=int(time.time() * 1000) - warm))
        latency.absorbed(settings, published)
        cost = paced(settings, [worker.pid], count, arguments)
        full = Full(cost, rss_mb(worker.pid), filled - begun, ready - filled, size, disk_gb(bed.data_dir.parent))
    say(f"{count:,} users: {full}")
    shutil.rmtree(settings.data_dir, ignore_errors=True)
    forget_topics(settings, f"u{count}.")
    return full


def by_users(found: Sequence[tuple[int, Full]], slots: int) -> dict[str, Any]:
    """rss_ratio: the most memory over the least, of those of whom not all fit into the rows in memory."""
    figures: dict[str, Any] = {}
    for count, full in found:
        figures |= {
            f"users_{count}_us": full.cost.us, f"users_{count}_ratio": full.cost.us / found[0][1].cost.us,
            f"users_{count}_rss_mb": full.rss_mb, f"users_{count}_fill_s": full.fill_s,
            f"users_{count}_restore_s": full.restore_s, f"users_{count}_disk_gb": full.disk_gb,
        }  # fmt: skip
    more = [full.rss_mb for count, full in found if count > slots]
    if len(more) > 1:
        figures["rss_ratio"] = max(more) / min(more)
    return figures | {"row_bytes": found[0][1].row_bytes} if found else figures


def forget_topics(settings: Settings, prefix: str) -> None:
    """The disk is for the next number of users."""
    admin = AdminClient(settings.librdkafka())
    names = [name for name in admin.list_topics(timeout=15).topics if name.startswith(prefix)]
    for deleted in admin.delete_topics(names).values() if names else ():
        deleted.result()


# -- measuring ---------------------------------------------------------------------------------------------------


def paced(settings: Settings, pids: Sequence[int], users: int, arguments: argparse.Namespace) -> Cost:
    """The median of some stretches at the rate, the background's work after each included."""
    time.sleep(IDLE_S)  # what was absorbed last is flushed, and the engines' other threads have gone to sleep
    idle, began = cpu_of(pids), time.monotonic()
    time.sleep(IDLE_S)
    idle_cores = (sum(cpu_of(pids)) - sum(idle)) / (time.monotonic() - began)
    stretches, first = [], cpu_of(pids)
    for number in range(arguments.runs):
        count = arguments.rate * arguments.seconds
        events = uniform_load(count, users, 20 + number, start=int(time.time() * 1000))
        path = settings.data_dir / f"messages-{number}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        open_loop.save(path, testbed.encoded(settings, events), arguments.rate)
        before, began = sum(cpu_of(pids)), time.monotonic()
        command = [sys.executable, "-m", "bench.open_loop", str(path)]
        loop = subprocess.run(
            command, env=os.environ | environment(settings), check=True, stdout=subprocess.PIPE, text=True
        )
        time.sleep(SETTLE_S)
        spent, seconds = sum(cpu_of(pids)) - before, time.monotonic() - began
        path.unlink()
        stretches.append((spent * 1e6 / count, (spent - idle_cores * seconds) * 1e6 / count))
        say(
            f"{stretches[-1][0]:.0f} us an event; the load was behind by {json.loads(loop.stdout)['lag_p99_ms']:.0f} ms"
        )
    spent_by = [after - before for after, before in zip(cpu_of(pids), first, strict=True)]
    return Cost(
        median(us for us, _ in stretches), median(net for _, net in stretches), idle_cores,
        [each / sum(spent_by) for each in spent_by],
    )  # fmt: skip


def cpu_of(pids: Sequence[int]) -> list[float]:
    return [cpu_seconds(pid) for pid in pids]


def until_ready(settings: Settings, worker: "subprocess.Popen[bytes]", patience_s: float = READY_S) -> None:
    """A restore of ten million rows takes longer than others wait."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if worker.poll() is not None:
            raise RuntimeError("a worker ended")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{settings.web.port}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"a worker was not ready in {patience_s:.0f} s")


def targets(workers: Sequence[int], users: Sequence[int], slots: int) -> dict[str, float]:
    """Of what was asked for: a short list passes by less than the whole."""
    found = {f"workers_{count}_ratio": WORKERS_RATIO for count in workers[1:]}
    found |= {f"users_{count}_ratio": USERS_RATIO for count in users[1:]}
    return found | ({"rss_ratio": RSS_RATIO} if sum(count > slots for count in users) > 1 else {})


def draw(figures: dict[str, Any], workers: Sequence[int], users: Sequence[int], path: Path) -> Path | None:
    """Of users if there are several, else of workers."""
    if len(users) > 1:
        panels: list[plots.Panel] = [
            ("CPU of an event, us", {"": [figures[f"users_{count}_us"] for count in users]}),
            ("resident memory, MB", {"": [figures[f"users_{count}_rss_mb"] for count in users]}),
        ]
        return plots.draw(path, "users in state", users, "users", panels, log_x=True)
    if len(workers) > 1:
        lines = {name: [figures[f"workers_{count}_{name}"] for count in workers] for name in ("us", "net_us")}
        return plots.draw(path, "workers on 12 partitions", workers, "workers", [("CPU of an event, us", lines)])
    return None


if __name__ == "__main__":
    main()
