"""Past scores again, bit by bit: `python -m bench.reproduced` prints one line of JSON.
A worker scores a load while each task goes through three releases; then events drawn from all that was served are
computed anew from what is recorded, and of some of them the whole lineage is asked for.
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from bench import swaps, testbed
from bench.latency import absorbed
from bench.measure import PATIENCE_S
from bench.report import show
from bench.testbed import NEVER_MS, TASKS, furnish, process, publish, say
from engines.releases import ReleaseStore
from schemas.confluent import ConfluentRegistry
from schemas.wire import Decoder
from streams.config import Settings
from streams.demo.stage import wait_ready
from streams.events import Record
from streams.offsets import bounds, places, read_range
from streams.sources.load import history_load
from streams.tracing.account import account
from streams.tracing.catalogue import read_catalogue
from streams.tracing.lineage import trace
from streams.tracing.reproduce import EQUAL, WHOLE, Reproduced, reproduce

EVENTS, TRACED, RELEASES = 1_000, 30, 3
RATE, USERS, BETWEEN_S = 300, 500, 6.0
SWAP = {"stagger_s": 0.0, "shadow_events": 8, "shadow_wait_s": 0.2}
LINKS = ("input", "scores", "served", "release", "engine")
TARGETS = {"not_equal": 0, "releases_missing": 0, "links_missing": 0}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.reproduced", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with testbed.testbed(deadlines_ms=dict.fromkeys(TASKS, NEVER_MS), swap=SWAP) as settings:
        serve(settings)
        figures = measure(settings, arguments.events, random.Random(arguments.seed))
    show("reproduced", figures, TARGETS)


def serve(settings: Settings) -> None:
    """Scores are said by three releases of each task and more, whichever came at their time."""
    furnish(settings)
    cycles = swaps.versions(settings.release_store)
    published = publish(settings, history_load(USERS, 1))
    log = settings.data_dir / "worker.log"
    with process(("streams", "worker"), settings, log) as worker:
        wait_ready(settings, worker, log)
        absorbed(settings, published)
        run = swaps.Run(settings, worker.pid, cycles)
        with swaps.load(settings, RATE, USERS, 300):
            run.apart(RELEASES * len(TASKS), BETWEEN_S / 2, BETWEEN_S / 2)
        settle(settings)


def settle(settings: Settings) -> None:
    """Returns when all that was published is served. Raises RuntimeError if that does not come to be."""
    deadline = time.monotonic() + PATIENCE_S
    topics = settings.topics
    served = [topics.served(task) for task in TASKS]
    while swaps.count(settings, served) < swaps.count(settings, topics.inputs):
        if time.monotonic() > deadline:
            raise RuntimeError("not all that was published was served")
        time.sleep(0.5)


def measure(settings: Settings, events: int, draw: random.Random) -> dict[str, Any]:
    store = ReleaseStore(settings.release_store)
    with closing(ConfluentRegistry(settings.registry())) as registry:
        served = [each for each in read_served(settings, registry) if each["release"]]
        chosen = draw.sample(served, min(events, len(served)))
        started = time.process_time()
        found = reproduce(settings, store, read_catalogue(settings, registry), chosen)
        cpu_s = time.process_time() - started
        tell(found)
        missing = sum(broken(settings, store, registry, each) for each in chosen[:TRACED])
    releases = [len({each.release for each in found if each.release.startswith(f"{task}/")}) for task in TASKS]
    return {
        "served": len(served),
        "reproduced": len(found),
        "not_equal": events - sum(each.verdict == EQUAL for each in found),
        "compared_whole": sum(each.checked == WHOLE for each in found),
        "least_releases": min(releases),
        "releases_missing": max(0, RELEASES - min(releases)),
        "buckets": len({each.bucket for each in found}),
        "cpu_ms_each": 1e3 * cpu_s / max(len(found), 1),
        "lineages": min(TRACED, len(chosen)),
        "links_missing": missing,
    }


def read_served(settings: Settings, registry: ConfluentRegistry) -> list[Record]:
    decode = Decoder(registry, "served")
    held = bounds(settings, [place for task in TASKS for place in places(settings, settings.topics.served(task))])
    return [
        decode(message.value())
        for (name, partition), (low, high) in held.items()
        for messages in read_range(settings, name, partition, low, high)
        for message in messages
    ]


def broken(settings: Settings, store: ReleaseStore, registry: ConfluentRegistry, served: Record) -> int:
    """How many links of an event's lineage are missing: those that are there before any label."""
    told = account(trace(settings, registry, served["event_id"], task=served["task"]), store)
    return sum(not told[link] for link in LINKS)


def tell(found: Sequence[Reproduced]) -> None:
    say(Counter((each.release, each.verdict, each.checked) for each in found))
    for each in [each for each in found if each.verdict != EQUAL][:5]:
        say(each)


if __name__ == "__main__":
    main()
