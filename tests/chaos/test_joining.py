"""The label join as a process that is killed at random moments, and then shut out by a second one of the same name.
Whatever was lost in between, each example is said once, and the last word on each order is the oracle's.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from streams.config import Settings
from streams.demo.stage import environment
from streams.labels.rules import Rule
from streams.local import LocalRegistry
from streams.tasks import make_task
from tests import shop
from tests.chaos.harness import seed
from tests.conftest import FreshSettings
from tests.labels_oracle import last_word
from tests.records import NOON_MS, click
from tests.test_labels_service import HOUR, MINUTE, Shop, examples, fraud, newest

JOIN = "import logging, sys; from streams.config import Settings; from streams.joining.service import LabelService; "
JOIN += "logging.basicConfig(level=logging.INFO); LabelService(Settings()).run()"
ORDERS, IMPRESSIONS, LOTS, KILLS = 600, 200, 15, 12
LONGEST_S, FENCED_S = 6.0, 120.0


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    made: Settings = fresh_settings(partitions=2, tasks=("fraud", "ctr"), learner_web={"port": 0})
    return made


def started(settings: Settings, home: Path, log: Path) -> subprocess.Popen[bytes]:
    own = settings.model_copy(update={"data_dir": home})
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, "-c", JOIN], env=os.environ | environment(own), stderr=file)


def told(world: Shop, luck: random.Random, lot: int) -> list[dict[str, Any]]:
    """What the shop says in this lot: labels of fraud, revised and repeated, and clicks that name their impression."""
    said = []
    for number in range(lot, ORDERS, LOTS):
        for revision in range(luck.choice([0, 1, 1, 2, 3])):
            one = fraud(f"o-{number}", float(luck.random() < 0.5), NOON_MS + HOUR + number + revision, revision)
            said.append(one | {"withdrawn": False})
            for _ in range(luck.choice([1, 1, 2])):
                world.label(one)
    for number in range(lot, IMPRESSIONS, LOTS):
        if luck.random() < 0.4:
            answer = {"impression_id": f"i-{number}", "ad_id": luck.choice(["ad-1", "ad-2"]), "item_id": "item-1"}
            for _ in range(luck.choice([1, 2])):
                when = NOON_MS + MINUTE + number
                world.event("click", click(event_id=f"c-{number}", user_id=f"u-{number}", event_time=when, **answer))
    world.flush()
    return said


def time_goes_on(settings: Settings, world: Shop) -> None:
    """Two hours later in every partition: no click's window is open any more."""
    for number in range(40):
        later = NOON_MS + 3 * HOUR + number
        world.event("click", click(event_id=f"z-{number}", user_id=f"user-{number}", event_time=later))
        world.served("ctr", f"later-{number}", later, ["ad-1"])
        world.served("fraud", f"later-o-{number}", later, [])
    world.flush()


@pytest.mark.slow
def test_killed_at_random_moments_and_then_shut_out_each_label_is_joined_once(
    settings: Settings, tmp_path: Path
) -> None:
    luck, log, world = random.Random(seed()), tmp_path / "join.log", Shop(settings)
    world.ad("ad-1", "item-1")
    world.ad("ad-2", "item-2")
    for number in range(ORDERS):
        world.served("fraud", f"o-{number}", NOON_MS + number, [])
    for number in range(IMPRESSIONS):
        world.served("ctr", f"i-{number}", NOON_MS + number, ["ad-1", "ad-2"])
    world.flush()
    labels: list[dict[str, Any]] = []
    running: list[subprocess.Popen[bytes]] = []
    try:
        for kill in range(KILLS):
            labels += told(world, luck, kill)
            # Some find the store of the one before, some an empty folder, as on another machine.
            running.append(started(settings, tmp_path / luck.choice(["one", "two"]), log))
            time.sleep(luck.uniform(1.0, LONGEST_S))
            running[-1].send_signal(signal.SIGKILL)
            running[-1].wait()
        first = started(settings, tmp_path / "one", log)
        running.append(first)
        for lot in range(KILLS, LOTS):
            labels += told(world, luck, lot)
        time.sleep(luck.uniform(2.0, LONGEST_S))
        running.append(started(settings, tmp_path / "two", log))
        with suppress(subprocess.TimeoutExpired):
            first.wait(FENCED_S)
        assert first.returncode not in (None, 0), "the first one is shut out by the second, and ends"
        time_goes_on(settings, world)
        wanted = expected(settings, labels)
        shop.wait_for(
            lambda: wanted.items() <= last(settings).items(), 180,
            lambda: f"{sorted(wanted.items() - last(settings).items())[:9]} {log.read_text()[-2_000:]}",
        )  # fmt: skip
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.wait()
    found = examples(settings)
    assert max(Counter(each["example_id"] for each in found).values()) == 1
    revisions = Counter((each["target_id"], each["candidate_id"], each["name"]) for each in found)
    assert all(revisions[key] == revision + 1 for key, (_, revision) in newest(found).items()), "no revision is missing"
    known = {key for key in last(settings) if not key[0].startswith("later")}
    assert known == wanted.keys(), "nothing is said of what nobody labelled"


def expected(settings: Settings, labels: list[dict[str, Any]]) -> dict[tuple[str, str, str], float]:
    """By the oracle: orders by what was said of them, impressions by the clicks that were published."""
    served = {task: shop.read(settings, settings.topics.served(task), "served") for task in settings.tasks}
    on_topic = shop.read(settings, settings.topics.clicks, "click")
    clicks = {one["event_id"]: one for one in on_topic if one["impression_id"]}.values()
    derived = [
        {"target_id": one["impression_id"], "candidate_id": one["ad_id"], "name": "click", "value": 1.0,
         "source": "derived", "observed_at": one["event_time"], "revision": 0, "withdrawn": False}
        for one in clicks
    ]  # fmt: skip
    found: dict[tuple[str, str, str], float] = {}
    for task, said in (("fraud", labels), ("ctr", derived)):
        rule = Rule.of(make_task(task))
        closed = [one for one in served[task] if not one["target_id"].startswith("later")]
        words = last_word(rule, closed, said)
        labelled = {one["target_id"] for one in said} if task == "fraud" else {key[0] for key in words}
        found |= {key: label for key, (label, _) in words.items() if key[0] in labelled}
    return found


def last(settings: Settings) -> dict[tuple[str, str, str], float]:
    return {(target, candidate or "", name): label for (target, candidate, name), (label, _) in
            newest(examples(settings)).items()}  # fmt: skip
