"""Equal features: replaying the input topics to each score's cut gives the bytes that were served, entities excepted.
A crowd of users on three topics, real engines, and a worker that is killed in mid-stream; then one undisturbed pass.
"""

import argparse
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from subprocess import Popen
from typing import Any

from bench import open_loop, testbed
from bench.measure import PATIENCE_S, Ends
from bench.replay import replayed
from bench.testbed import NEVER_MS, encoded, furnish, process
from streams.config import Settings
from streams.demo.stage import wait_ready
from streams.offsets import bounds, committed, places
from streams.ports import free_port
from streams.sources.load import START_MS, uniform_load
from streams.sources.telling import Timed

TARGETS = {"scores": 10_000, "differences": 0}
USERS, RATE = 400, 1000
MIX = (5.0, 3.0, 3.0)
STEP_MS, LATE_MS = 700, 60_000
LATE, REPEATED = 0.1, 0.02
"""Shares of events that are older than those before them, and that are sent again."""
KILL_AT = 0.4
POLL_S = 0.2


def crowd(rng: random.Random, count: int, users: int = USERS) -> Iterator[Timed]:
    """`count` events and some repeats: the same users on all topics, some far busier than others, mostly in order."""
    sent: list[Timed] = []
    for number, event in enumerate(uniform_load(count, users, rng.randrange(1 << 30), MIX)):
        when = START_MS + STEP_MS * number - (rng.randrange(LATE_MS) if rng.random() < LATE else 0)
        user = f"user-{int(users * rng.random() ** 2):07d}"
        sent.append(Timed(event.topic, {**event.record, "event_time": when, "user_id": user}, when))
        yield sent[-1]
        if rng.random() < REPEATED:
            yield sent[-rng.randrange(1, 1 + min(len(sent), 20))]


def measure(events: int) -> dict[str, Any]:
    rng = random.Random(7)
    deadlines = dict.fromkeys(testbed.TASKS, NEVER_MS)
    with testbed.testbed(deadlines_ms=deadlines, session_timeout_s=6.0, app_id="bench-features") as settings:
        furnish(settings)
        file = settings.data_dir / "crowd.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        messages = encoded(settings, crowd(rng, events))
        open_loop.save(file, messages, RATE)
        half_said = crash(settings, file, len(messages), rng.random())
        found = replayed(settings)
    return {
        "bench": "features",
        "scores": found.compared,
        "by_task": found.by_task,
        "half_said": half_said,
        "differences": len(found.differences),
        "differing_cuts": len(found.cuts),
        "such_as": found.differences[:3],
    }


def crash(settings: Settings, file: Path, count: int, more_s: float) -> int:
    """Publishes and kills the worker in between; the next one has nothing but the broker. Returns when all is scored
    and committed: how many scores the second worker found past the committed offsets."""
    first, second = own(settings, "first"), own(settings, "second")
    log = second.data_dir / "log"
    worker = ("streams", "worker")
    with (
        process(worker, first, first.data_dir / "log") as killed,
        closing(Ends(settings, settings.topics.inputs)) as ends,
    ):
        wait_ready(first, killed, first.data_dir / "log")
        with process(("bench.open_loop", str(file)), settings, settings.data_dir / "publisher.log") as publisher:
            until(lambda: sum(ends.counts()) >= KILL_AT * count, killed)
            time.sleep(more_s)
            killed.kill()
            killed.wait()
            with process(worker, second, log) as successor:
                wait_ready(second, successor, log)
                until(lambda: publisher.poll() is not None, successor)
                until(lambda: caught_up(settings), successor)
    return sum(map(int, re.findall(r'"half_said": (\d+)', log.read_text(errors="replace"))))


def own(settings: Settings, name: str) -> Settings:
    """Of a worker with a folder and a port of its own."""
    web = settings.web.model_copy(update={"port": free_port()})
    return settings.model_copy(update={"data_dir": settings.data_dir / name, "web": web})


def caught_up(settings: Settings) -> bool:
    """Whether every input is committed: then all it caused is acknowledged."""
    found = bounds(settings, [place for topic in settings.topics.inputs for place in places(settings, topic)])
    read = committed(settings, settings.app_id, found)
    return all(read.get(place, 0) >= high for place, (_, high) in found.items())


def until(holds: Callable[[], bool], worker: Popen[bytes]) -> None:
    """RuntimeError where the worker ends before, or it does not come to that."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if worker.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it did not come to an end in {PATIENCE_S:.0f} s, or the worker ended")
        time.sleep(POLL_S)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.features", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    figures = measure(parser.parse_args().events)
    missed = ["scores"] if figures["scores"] < TARGETS["scores"] else []
    missed += ["differences"] if figures["differences"] or figures["differing_cuts"] else []
    print(json.dumps({**figures, "targets": TARGETS, "missed": missed}))


if __name__ == "__main__":
    main()
