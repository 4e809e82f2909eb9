"""CPU per event beside other ways to do the same job: `python -m bench.throughput` prints one line of JSON.
The job is in bench.peers.job; all variants read the same topic, one after the other, on one broker.
"""

import argparse
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from bench import testbed, timed_worker
from bench.measure import Ends, Stretch, cpu_seconds, stretch, stretch_of
from bench.report import show
from bench.testbed import NEVER_MS, furnish, process, publish, say, variant
from streams.config import Settings
from streams.sources.load import history_load, uniform_load

TASK = "recommendations"
CLICKS_ONLY = (1.0, 0.0, 0.0)
EVENTS, USERS = 240_000, 20_000
SHARES = {"headrace": 1.0, "floor": 1.0, "quix": 0.4, "faust": 0.12}
"""Of the events, for variants that would take too long."""
SETTLE_S = 2.5  # one flush interval and what it takes: all of the changelog is in the figure
TARGETS = {"headrace_per_floor": 1.6, "headrace_per_quix": 1 / 1.5, "headrace_per_faust": 0.1, "non_engine_us": 30.0}
COMMANDS: dict[str, Sequence[str]] = {
    "headrace": ("streams", "worker"),
    "floor": ("bench.peers.floor",),
    "quix": ("bench.peers.quix",),
    "faust": ("bench.peers.stock_faust",),
}
PER_BATCH = 512


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--rounds", type=int, default=2, help="of each variant; the least of them counts")
    parser.add_argument("--variants", default=",".join([*COMMANDS, "real"]))
    parser.add_argument("--worker", default="streams worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    COMMANDS["headrace"] = arguments.worker.split()
    names = arguments.variants.split(",")
    figures: dict[str, Any] = {"events": arguments.events, "users": USERS}
    with testbed.testbed(deadlines_ms=dict.fromkeys(testbed.TASKS, NEVER_MS), batch={"max_events": PER_BATCH}) as bed:
        furnish(bed)
        say(f"{publish(bed, uniform_load(arguments.events, USERS, 1, CLICKS_ONLY)):,} clicks published")
        peers = [name for name in names if name in COMMANDS]
        rounds: dict[str, list[Stretch]] = {name: [] for name in peers}
        for number in range(arguments.rounds):
            for name in peers:
                rounds[name].append(run(bed, name, number, int(arguments.events * SHARES[name])))
        figures |= {f"{name}_us": min(found.us for found in done) for name, done in rounds.items()}
        if "headrace" in rounds:
            figures["headrace_events_per_s"] = max(found.per_s for found in rounds["headrace"])
        if "real" in names:
            figures |= real(bed, arguments.events // 4)
    show("throughput", figures | ratios(figures), {name: TARGETS[name] for name in TARGETS})


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """Headrace's CPU over each peer's."""
    own = figures.get("headrace_us")
    found = {name: figures.get(f"{name}_us") for name in ("floor", "quix", "faust")}
    return {f"headrace_per_{name}": own / us for name, us in found.items() if own and us}


def run(bed: Settings, name: str, number: int, events: int) -> Stretch:
    """One variant over the published clicks, up to `events` of them, from an empty state."""
    settings = variant(bed, f"{name}{number}", tasks=(TASK,), engine={"backend": "null"})
    topics = settings.topics
    with (
        closing(Ends(settings, [topics.scores(TASK), topics.served(TASK)])) as ends,
        process(COMMANDS[name], settings, settings.data_dir / "log") as started,
    ):
        found = stretch_of(started, ends, events, SETTLE_S if SHARES[name] == 1.0 else 0.0)
    say(f"{name}: {found.us:.1f} us of CPU an event, {found.per_s:,.0f} events/s")
    return found


def real(bed: Settings, events: int) -> dict[str, float]:
    """All three tasks with real engines and full histories: what is not the engine's own, per event."""
    settings = variant(bed, "real", inputs=True)
    topics, file = settings.topics, settings.data_dir / "engine-seconds"
    users = events // 40
    count = publish(settings, history_load(users, 2)) + publish(settings, uniform_load(events, users, 3))
    outputs = [*(topics.scores(task) for task in testbed.TASKS), *(topics.served(task) for task in testbed.TASKS)]
    with (
        closing(Ends(settings, outputs)) as ends,
        process(("bench.timed_worker", str(file)), settings, settings.data_dir / "log") as started,
    ):
        engine: list[float] = []

        def cpu() -> float:
            engine.append(timed_worker.read(file))
            return cpu_seconds(started.pid)

        def done() -> int:
            counts = ends.counts()
            return min(sum(counts[: len(testbed.TASKS)]), sum(counts[len(testbed.TASKS) :]))

        found = stretch(done, cpu, lambda: started.poll() is None, count, SETTLE_S)
    in_engine = (engine[-1] - engine[0]) * 1e6 / found.events
    say(f"real engines: {found.us:.1f} us of CPU an event, of it {in_engine:.1f} in the engine")
    return {"real_us": found.us, "engine_us": in_engine, "non_engine_us": found.us - in_engine}


if __name__ == "__main__":
    main()
