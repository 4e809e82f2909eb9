"""What `delivery = "exactly_once"` costs beside the default: `python -m bench.delivery` prints one line of JSON.
CPU per event over a topic that is full, without an engine; then the time from event to score as a reader of committed
records sees it, with real engines. Both on one broker, the modes in turn; read the ratios.
"""

import argparse
import json
import time
from contextlib import closing
from typing import Any

from bench import testbed
from bench.latency import IDLE_S, one_run
from bench.measure import Ends, Stretch, stretch_of
from bench.report import show
from bench.testbed import NEVER_MS, furnish, process, publish, say, variant
from bench.throughput import CLICKS_ONLY, PER_BATCH, SETTLE_S, TASK
from streams.config import Settings
from streams.demo.stage import wait_ready
from streams.offsets import bounds, committed
from streams.sources.load import history_load, uniform_load

EVENTS, USERS, RATE, SECONDS, WATCHED = 60_000, 5_000, 100, 10, 100
MODES: dict[str, dict[str, Any]] = {
    "at_least_once": {},
    "exactly_once": {"delivery": "exactly_once"},
    "exactly_once_200ms": {"delivery": "exactly_once", "transaction_ms": 200},
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.delivery", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of load at a steady rate, each mode")
    parser.add_argument("--rate", type=int, default=RATE)
    parser.add_argument("--rounds", type=int, default=2, help="of full speed; the least CPU of them counts")
    arguments = parser.parse_args()
    with testbed.testbed(deadlines_ms=dict.fromkeys(testbed.TASKS, NEVER_MS), batch={"max_events": PER_BATCH}) as bed:
        furnish(bed)
        publish(bed, uniform_load(arguments.events, USERS, 1, CLICKS_ONLY))
        rounds: dict[str, list[Stretch]] = {name: [] for name in MODES}
        for number in range(arguments.rounds):
            for name in MODES:
                rounds[name].append(full_speed(bed, name, number, arguments.events))
        late = {name: steady(bed, name, arguments.rate, arguments.seconds) for name in MODES}
    figures: dict[str, Any] = {"events": arguments.events, "rate": arguments.rate}
    for name, found in rounds.items():
        figures |= {f"{name}_us": min(one.us for one in found), f"{name}_per_s": max(one.per_s for one in found)}
        figures |= {f"{name}_{what}": late[name][what] for what in ("p50_ms", "p99_ms", "cpu_cores")}
    show("delivery", figures | ratios(figures))


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """Each mode's figures over the default's."""
    return {
        f"{name}_{what}_ratio": figures[f"{name}_{what}"] / figures[f"at_least_once_{what}"]
        for name in list(MODES)[1:]
        for what in ("us", "per_s", "p50_ms", "p99_ms", "cpu_cores")
    }


def full_speed(bed: Settings, name: str, number: int, events: int) -> Stretch:
    """From an empty state to the last score. The marks of transactions count as scores here: less than one in 100."""
    settings = variant(bed, f"{name}{number}", tasks=(TASK,), engine={"backend": "null"}, **MODES[name])
    topics = settings.topics
    with (
        closing(Ends(settings, [topics.scores(TASK), topics.served(TASK)])) as ends,
        process(("streams", "worker"), settings, settings.data_dir / "log") as started,
    ):
        found = stretch_of(started, ends, events, SETTLE_S)
    say(f"{name}: {found.us:.1f} us of CPU an event, {found.per_s:,.0f} events/s")
    return found


def steady(bed: Settings, name: str, rate: int, seconds: int) -> dict[str, float]:
    """From when an event was due to when its score is seen, all three tasks."""
    settings = variant(bed, f"{name}-steady", inputs=True, **MODES[name])
    publish(settings, history_load(WATCHED, 1))
    log = settings.data_dir / "worker.log"
    with process(("streams", "worker"), settings, log) as worker:
        wait_ready(settings, worker, log)
        while not all_read(settings):
            time.sleep(0.2)
        time.sleep(IDLE_S)
        found = one_run(settings, worker.pid, 2, rate, seconds)
    say(f"{name}: {json.dumps(found)}")
    return found


def all_read(settings: Settings) -> bool:
    """Whether the group stands at the ends of its inputs. Score topics cannot tell: transactions leave marks there."""
    places = [(topic, partition) for topic in settings.topics.inputs for partition in range(settings.partitions)]
    read = committed(settings, settings.app_id, places)
    return all(read.get(place, 0) >= end for place, (_, end) in bounds(settings, places).items())


if __name__ == "__main__":
    main()
