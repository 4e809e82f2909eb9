"""What a release swap costs those who wait for scores: `python -m bench.swaps` prints one line of JSON.
Open-loop load with real engines; latency is from event in the broker to score in the broker, by the broker's clock.
"""

import argparse
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

import psutil  # type: ignore[import-untyped]  # its types are a package of their own

from bench import latency, open_loop, testbed
from bench.consumer import CONTRACTS
from bench.measure import cpu_seconds, rss_mb
from bench.report import show
from bench.swap_figures import Scored, Swapped, measured, parts, scored, soaked, went
from bench.testbed import NEVER_MS, TASKS, furnish, process, publish, say
from schemas.confluent import ConfluentRegistry
from schemas.wire import Decoder
from streams.config import Settings
from streams.demo.stage import environment, wait_ready
from streams.offsets import bounds, places, read_range
from streams.pointers import Pointers
from streams.sources.load import history_load, uniform_load

RATE, SWAPS, USERS, TAIL_S, QUIET_S = 500, 20, 2_000, 10.0, 15.0
SOAK_RATE, SETTLE_S = 100, 5.0
SEEDS, COPIES = (2, 1), 2
"""Four versions a task: the next one must not be among the three that a worker keeps ready."""
PATIENCE_S, POLL_S = 120.0, 0.05
WHOLE = {"missing": 0.0, "repeated": 0.0, "fallbacks": 0.0}
TARGETS = {"ratio": 1.5, **WHOLE}
INPUTS = {"clicks": "click", "orders": "order", "impressions": "ad_impression"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.swaps", description=__doc__)
    parser.add_argument("--swaps", type=int, default=SWAPS)
    parser.add_argument("--rate", type=int, default=None, help=f"events/s: {RATE}, or {SOAK_RATE} for a soak")
    parser.add_argument("--quick", action="store_true", help="small shadows and short windows: a smoke test")
    parser.add_argument("--soak", type=int, default=0, metavar="SWAPS", help="so many as fast as they go")
    parser.add_argument("--minutes", type=float, default=18.0, help="a soak ends after this time at the latest")
    arguments = parser.parse_args()
    rate = arguments.rate or (SOAK_RATE if arguments.soak else RATE)
    small = arguments.quick or arguments.soak
    swap = {"stagger_s": 0.0, **({"shadow_events": 8, "shadow_wait_s": 0.2} if small else {})}
    with testbed.testbed(deadlines_ms=dict.fromkeys(TASKS, NEVER_MS), swap=swap) as settings:
        furnish(settings)
        cycles = versions(settings.release_store)
        users = 200 if small else USERS
        published = publish(settings, history_load(users, 1))
        log = settings.data_dir / "worker.log"
        with process(("streams", "worker"), settings, log) as worker:
            wait_ready(settings, worker, log)
            latency.absorbed(settings, published)
            run = Run(settings, worker.pid, cycles)
            if arguments.soak:
                seconds = 60 * arguments.minutes
                with load(settings, rate, users, seconds + 60):
                    swaps = run.soak(arguments.soak, seconds)
                figures, targets = soaked(swaps, settled(settings)), WHOLE
            else:
                quiet, tail = (4.0, 3.0) if arguments.quick else (QUIET_S, TAIL_S)
                with load(settings, rate, users, arguments.swaps * (quiet + tail + 30) + 60):
                    swaps = run.apart(arguments.swaps, quiet, tail)
                figures, targets = measured(swaps, settled(settings)), TARGETS
    show("swaps-soak" if arguments.soak else "swaps", {"rate": rate, "swaps": len(swaps), **figures}, targets)


def versions(store: str) -> dict[str, list[str]]:
    """Releases of other weights by task, to be taken in this order, again and again."""
    found: dict[str, list[list[str]]] = {task: [] for task in TASKS}
    for seed in SEEDS:
        command = [sys.executable, "-m", "bench.random_releases", store, f"seed={seed}", f"copies={COPIES}"]
        made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        for task in TASKS:
            found[task].append([line.split()[1] for line in made.stdout.splitlines() if line.split()[0] == task])
    return {task: [version for turn in zip(*seeds, strict=True) for version in turn] for task, seeds in found.items()}


@contextmanager
def load(settings: Settings, rate: int, users: int, seconds: float) -> Iterator[None]:
    """Events at a rate, by the clock, for as long as the context is open."""
    folder = settings.data_dir / "load"
    folder.mkdir(parents=True)
    events = uniform_load(int(rate * seconds), users, 2, start=int(time.time() * 1000))
    open_loop.save(folder / "messages.npz", testbed.encoded(settings, events), rate)
    command = [sys.executable, "-m", "bench.open_loop", str(folder / "messages.npz")]
    publisher = subprocess.Popen(command, env=os.environ | environment(settings), stdout=subprocess.DEVNULL)
    time.sleep(SETTLE_S)
    try:
        yield
        if publisher.poll() is not None:
            raise RuntimeError("the load ended before the swaps did")
    finally:
        publisher.kill()
        publisher.wait()


class Run:
    """Moves pointers, and sees on the worker's pages what becomes of it."""

    def __init__(self, settings: Settings, pid: int, cycles: Mapping[str, Sequence[str]]) -> None:
        self._settings, self._pid, self._cycles = settings, pid, cycles
        self._process, self._done = psutil.Process(pid), Counter[str]()

    def apart(self, count: int, quiet_s: float, tail_s: float) -> list[Swapped]:
        """One task after the other, each after some quiet."""
        swaps = []
        with self._pointers() as pointers:
            for number in range(count):
                started, idle = time.time(), cpu_seconds(self._pid)
                time.sleep(quiet_s)
                quiet, cpu = time.time() - started, cpu_seconds(self._pid)
                swap = self._swap(pointers, TASKS[number % len(TASKS)], quiet)
                time.sleep(tail_s)
                swap.ended = time.time()
                swap.cores_before = (cpu - idle) / quiet
                swap.cores = (cpu_seconds(self._pid) - cpu) / (swap.ended - swap.began)
                swap.parts = parts(self._page(), swap.task)
                swaps.append(swap)
                took = {part: round(seconds, 3) for part, seconds in swap.parts.items()}
                say(f"{swap.task}: live after {swap.flipped - swap.began:.2f} s; {took}")
        return swaps

    def soak(self, count: int, seconds: float) -> list[Swapped]:
        """One after the other without a pause."""
        swaps: list[Swapped] = []
        until = time.monotonic() + seconds
        with self._pointers() as pointers:
            while len(swaps) < count and time.monotonic() < until:
                cpu = cpu_seconds(self._pid)
                swap = self._swap(pointers, TASKS[len(swaps) % len(TASKS)], 0.0)
                swap.cores = (cpu_seconds(self._pid) - cpu) / (swap.ended - swap.began)
                swap.parts = parts(self._page(), swap.task)
                swap.rss_mb, swap.threads, swap.files = (
                    rss_mb(self._pid), self._process.num_threads(), self._process.num_fds(),
                )  # fmt: skip
                swaps.append(swap)
                if len(swaps) % 50 == 0:
                    say(f"{len(swaps)} swaps, {swap.rss_mb:.0f} MB, {swap.threads} threads, {swap.files} files")
        return swaps

    @contextmanager
    def _pointers(self) -> Iterator[Pointers]:
        with closing(ConfluentRegistry(self._settings.registry())) as registry:
            yield Pointers(self._settings, registry)

    def _swap(self, pointers: Pointers, task: str, quiet_s: float) -> Swapped:
        cycle = self._cycles[task]
        version = cycle[self._done[task] % len(cycle)]
        self._done[task] += 1
        before, began = went(self._page(), task), time.time()
        pointers.move(task, version, now_ms=int(began * 1000))
        while (now := went(self._page(), task)) == before:
            if time.time() - began > PATIENCE_S:
                raise RuntimeError(f"{task}/{version} is not live after {PATIENCE_S:.0f} s")
            time.sleep(POLL_S)
        if now["live"] == before["live"]:
            raise RuntimeError(f"{task}/{version} was not taken: {dict(now)}")
        flipped = time.time()
        return Swapped(task, began, flipped, flipped, quiet_s)

    def _page(self) -> list[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._settings.web.port}/metrics", timeout=10) as page:
            return str(page.read().decode()).splitlines()


def settled(settings: Settings) -> Scored:
    """Reads all events and all scores, when there are as many."""
    topics = settings.topics
    ends = [topics.scores(task) for task in TASKS]
    deadline = time.monotonic() + 30
    while count(settings, ends) < count(settings, topics.inputs) and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(1)
    with closing(ConfluentRegistry(settings.registry())) as registry:
        events = [one for name, contract in INPUTS.items()
                  for one in records(settings, registry, getattr(topics, name), contract)]  # fmt: skip
        scores = [one for task in TASKS for one in records(settings, registry, topics.scores(task), CONTRACTS[task])]
    return scored({ident: at for ident, at, _ in events}, scores)


def count(settings: Settings, topics: Sequence[str]) -> int:
    return sum(high - low for low, high in bounds(settings, [p for t in topics for p in places(settings, t)]).values())


def records(
    settings: Settings, registry: ConfluentRegistry, topic: str, contract: str
) -> Iterator[tuple[str, float, bool]]:
    """(event_id, broker's stamp in s, whether a fallback answered) of each record that is there now."""
    decode = Decoder(registry, contract)
    for (name, partition), (low, high) in bounds(settings, places(settings, topic)).items():
        for messages in read_range(settings, name, partition, low, high):
            for message in messages:
                record = decode(message.value())
                yield record["event_id"], message.timestamp()[1] / 1000, record.get("fallback") is not None


if __name__ == "__main__":
    main()
