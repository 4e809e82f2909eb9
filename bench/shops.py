"""Two shops on one core, one with a backlog and one under a small steady load: `python -m bench.shops` prints a line.
What the backlog costs the other one's latency: by `headrace worker --shops`, and by two workers that share a session.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench import latency, testbed
from bench.measure import Ends, cpu_seconds
from bench.report import show
from bench.testbed import NEVER_MS, TASKS, furnish, publish, say
from streams.config import Settings
from streams.ports import free_port
from streams.shops.process import process_of, run
from streams.sources.load import history_load, uniform_load

QUIET, BUSY = NAMES = ("north", "south")
RATE, SECONDS, RUNS, USERS, BACKLOG, PARTITIONS = 50, 40, 3, 2_000, 200_000, 4
WEIGHTED, WEIGHTED_S = 3.0, 20.0
"""Of one shop, where both have a backlog; the other's is 1."""
TWICE = -3  # a session of this niceness weighs 1.95 times one of 0
READY_S, WARM_S, SETTLE_S = 300.0, 3.0, 5.0
TARGETS = {"beside_over_alone_p99": 2.0, "fair_over_unfair_p99": 1.0, "share_off": 0.25, "unscored": 0}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.shops", description=__doc__)
    parser.add_argument("--rate", type=int, default=RATE, help="events/s of the quiet shop")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of a stretch")
    parser.add_argument("--runs", type=int, default=RUNS, help="stretches of each kind; the median counts")
    parser.add_argument(
        "--backlog", type=int, default=BACKLOG, help="events that wait for the other one, before each stretch"
    )
    parser.add_argument("--together", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.together:
        return together(arguments.together)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[1:] or cores))  # the broker's and the load's; the workers have the first
    with testbed.testbed() as bed:
        figures = measured(bed, cores[0], arguments)
    show("shops", {"rate": arguments.rate, "seconds": arguments.seconds, "runs": arguments.runs, **figures}, TARGETS)


def measured(bed: Settings, core: int, arguments: argparse.Namespace) -> dict[str, Any]:
    file = write(bed, {QUIET: 1.0, BUSY: 1.0})
    for name in NAMES:
        furnish(of(file, name))
    published = publish(of(file, QUIET), history_load(USERS, 1))
    with serving(file, [QUIET], core):
        latency.absorbed(of(file, QUIET), published)
    kinds: dict[str, tuple[tuple[str, ...], bool]] = {
        "alone": ((QUIET,), True), "fair": (NAMES, True), "unfair": (NAMES, False),
    }  # fmt: skip
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for number in range(arguments.runs):
        for place, (kind, (names, fair)) in enumerate(kinds.items()):
            with ready(file, names, core, arguments.backlog, fair=fair) as pids:
                found[kind].append(beside(file, pids, 10 + len(kinds) * number + place, arguments))
            say(f"{kind}: {json.dumps(found[kind][-1])}")
    figures: dict[str, Any] = {
        f"{kind}_{name}": median(one[name] for one in stretches)
        for kind, stretches in found.items() for name in stretches[0] if name != "unscored"
    }  # fmt: skip
    figures["unscored"] = sum(one["unscored"] for stretches in found.values() for one in stretches)
    figures["beside_over_alone_p99"] = figures["fair_p99_ms"] / figures["alone_p99_ms"]
    figures["fair_over_unfair_p99"] = figures["fair_p99_ms"] / figures["unfair_p99_ms"]
    return figures | weighted(bed, core, arguments)


# -- shops -----------------------------------------------------------------------------------------------------------


def write(bed: Settings, shares: dict[str, float]) -> Path:
    """The file of both shops on the bed's servers."""
    common = {
        "brokers": bed.brokers, "registry_url": bed.registry_url, "data_dir": str(bed.data_dir),
        "release_store": bed.release_store, "partitions": PARTITIONS,
    }  # fmt: skip
    never = ", ".join(f"{task} = {NEVER_MS}" for task in TASKS)
    lines = [f"{name} = {json.dumps(value)}" for name, value in common.items()]
    lines += [f"deadlines_ms = {{ {never} }}", f"shops_web = {{ port = {free_port()} }}"]
    for name, share in shares.items():
        lines += [f"[tenants.{name}]", f"share = {share}", f"web = {{ port = {free_port()} }}"]
    file = bed.data_dir.parent / "shops.toml"
    file.write_text("\n".join(lines))
    return file


def of(file: Path, name: str) -> Settings:
    return Settings(file, tenant=name)


def together(file: Path) -> None:
    """Both as the kernel finds them: workers of one session, equal to it thread by thread.

    The session weighs as much as two, where we may say so: who else is on the machine must not gain by there being one.
    """
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(TWICE))
    start = process_of(lambda name: ["--config", str(file), "--tenant", name, "worker"], alone=False)
    run(NAMES, lambda name: of(file, name), start, of(file, QUIET).shops_web, Nothing)


class Nothing:
    """Shares that nobody keeps."""

    by_shop, words = False, "nothing"

    def keep(self, name: str, pid: int, share: float, most: float) -> str:
        return "not kept"


@contextmanager
def serving(file: Path, names: Sequence[str], core: int, *, fair: bool = True) -> Iterator[dict[str, int]]:
    """Processes by shop, all ready, on this core. They are a session, or more, of their own: the load is in another."""
    command = ["streams", "--config", str(file), "worker", "--shops", ",".join(names)]
    if not fair:
        command = ["bench.shops", "--together", str(file)]
    log, mine = file.with_suffix(".log"), os.sched_getaffinity(0)
    with log.open("ab") as said:
        os.sched_setaffinity(0, {core})
        parent = subprocess.Popen([sys.executable, "-m", *command], stdout=said, stderr=said, start_new_session=True)
        os.sched_setaffinity(0, mine)
    try:
        yield until_ready(of(file, QUIET).shops_web.port, parent)
    except Exception:
        say(log.read_text(errors="replace")[-3000:])
        raise
    finally:
        parent.terminate()
        parent.wait()


def until_ready(port: int, parent: "subprocess.Popen[bytes]") -> dict[str, int]:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and parent.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as page:
                return {name: said["pid"] for name, said in json.load(page)["shops"].items()}
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the shops were not ready in {READY_S:.0f} s")


@contextmanager
def ready(file: Path, names: Sequence[str], core: int, backlog: int, *, fair: bool) -> Iterator[dict[str, int]]:
    """With a backlog before the start, where the busy one is among them."""
    if BUSY in names:
        fill(file, BUSY, backlog)
    with serving(file, names, core, fair=fair) as pids:
        time.sleep(SETTLE_S)
        yield pids


def fill(file: Path, name: str, backlog: int) -> None:
    """So many events wait for a shop then, or more."""
    publish(of(file, name), uniform_load(max(0, backlog - waiting(file, name)), USERS, time.time_ns() % 1_000_003))


# -- measuring -------------------------------------------------------------------------------------------------------


def beside(file: Path, pids: dict[str, int], seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """A stretch of the quiet shop's load, and what both took of the core meanwhile."""
    quiet, count = of(file, QUIET), arguments.rate * arguments.seconds
    events = list(uniform_load(count, USERS, seed, start=int(time.time() * 1000)))
    with closing(scores(file, BUSY)) as busy:
        before, done, began = cpu_of(pids), sum(busy.counts()), time.monotonic()
        seen = latency.stretch(quiet, pids[QUIET], seed, events, arguments.rate, count)
        wall, after = time.monotonic() - began, cpu_of(pids)
        figures = {f"{name}_cpu_s": after[name] - before[name] for name in pids}
        if BUSY in pids:
            figures[f"{BUSY}_per_s"] = (sum(busy.counts()) - done) / wall
            figures[f"{BUSY}_left"] = float(waiting(file, BUSY))
    times = latency.latencies(seen.event_id, seen.seen_at, seen.due(events, arguments.rate), seen.began_at + WARM_S)
    scored = times[np.isfinite(times)]
    ranked = latency.quantiles(scored)
    return {
        "p50_ms": ranked["p50_ms"], "p99_ms": ranked["p99_ms"], "unscored": float(len(times) - len(scored)),
        "wall_s": wall, **figures, "publisher_lag_p99_ms": seen.lag_p99_ms,
    }  # fmt: skip


def weighted(bed: Settings, core: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Both have more than they can do: who has how much of the core?"""
    file = write(bed, {QUIET: WEIGHTED, BUSY: 1.0})
    for name in NAMES:
        fill(file, name, arguments.backlog)
    with serving(file, NAMES, core) as pids:
        time.sleep(SETTLE_S)
        before = cpu_of(pids)
        time.sleep(WEIGHTED_S)
        got = {name: after - before[name] for name, after in cpu_of(pids).items()}
    ratio, left = got[QUIET] / got[BUSY], min(waiting(file, name) for name in NAMES)
    return {"share": WEIGHTED, "share_got": ratio, "share_off": abs(ratio / WEIGHTED - 1), "share_left": left}


def scores(file: Path, name: str) -> Ends:
    settings = of(file, name)
    return Ends(settings, [settings.topics.scores(task) for task in TASKS])


def waiting(file: Path, name: str) -> int:
    """Events of a shop that are not scored: at 0 the backlog was too short, and the figures are of less."""
    settings = of(file, name)
    with closing(Ends(settings, settings.topics.inputs)) as inputs, closing(scores(file, name)) as done:
        return sum(inputs.counts()) - sum(done.counts())


def cpu_of(pids: dict[str, int]) -> dict[str, float]:
    return {name: cpu_seconds(pid) for name, pid in pids.items()}


if __name__ == "__main__":
    main()
