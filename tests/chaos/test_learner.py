"""A learner that is killed at twenty random moments: nothing trains twice or never, and no half release is seen."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from streams.config import Settings
from streams.demo.stage import environment
from streams.learner.standing import Standing
from streams.local import LocalRegistry
from streams.offsets import bounds, places, read_range
from streams.pointers import live_pointers
from tests import shop
from tests.conftest import FreshSettings
from tests.finetune_examples import MINUTE, START, rare
from tests.school import LEARNING, School, decoded, graduate

KILLS, SEED = 20, 7
LONGEST_S = 9.0
LOTS, LOT_S = 12, 20.0
Place = tuple[int, int]
"""Partition and offset."""
NOISE = 0.01
"""Labels that are wrong: the gate takes a model that is nearly perfect for one that has seen the answer."""


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    learning = LEARNING | {"examples": 2_000}
    made: Settings = fresh_settings(tasks=("fraud",), learning=learning, learner_web={"port": 0})
    return made


def started(settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "streams", "learner"], env=os.environ | environment(settings), stderr=file
        )


@pytest.mark.slow
def test_killed_at_random_moments_each_example_trains_once_and_each_release_is_whole(
    settings: Settings, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    luck, log = random.Random(SEED), tmp_path / "learner.log"
    school = School(settings, graduate(tmp_path_factory.mktemp("graduate")))
    taught = []
    for kill in range(KILLS):
        if kill % 5 == 0:  # new labels come in between
            more = rare(5_000, seed=kill + 1, start=START + kill * 1_100 * MINUTE, noise=NOISE)
            school.teach(more)
            taught += more
        learner = started(settings, log)
        time.sleep(luck.uniform(0.5, LONGEST_S))
        learner.send_signal(signal.SIGKILL)
        learner.wait()
        for version in school.store.list("fraud"):
            school.store.open("fraud", version)  # whole: all digests are right
    learner = started(settings, log)
    try:
        taught += until_two_went_live(settings, school, log)
        time.sleep(5)
    finally:
        learner.terminate()
        learner.wait(60)
    announced = Counter(
        (record["version"], record["state"])
        for record in shop.read(settings, settings.topics.releases, "model_release")
        if record["kind"] == "release"
    )
    assert max(announced.values()) == 1
    assert len(school.store.list("fraud")) - 1 <= len(announced) + 1, "one more may be made and not announced yet"
    lineage = [school.store.open("fraud", live_pointers(settings)["fraud"].version).manifest]
    while lineage[-1].trained.get("champion") in school.store.list("fraud") and "standing" in lineage[-1].trained:
        lineage.append(school.store.open("fraud", lineage[-1].trained["champion"]).manifest)
    cycles = [manifest.trained for manifest in lineage if "standing" in manifest.trained]
    every, oldest_first = everything(settings), cycles[::-1]
    known = [set[Place](), *(learned(every, Standing.of(each)) for each in oldest_first)]
    for before, after, said in zip(known, known[1:], oldest_first, strict=False):
        assert before < after, "what was learned stays learned"
        assert len(after - before) == said["examples"], "what is called learned has trained, each once"
        assert said["held_back"] == 0
    first = oldest_first[0]
    held_out = {
        (part, offset) for (part, offset), time in every.items()
        if first["standing"]["until"] < time <= first["held_until"]
        and offset < first["standing"]["end"].get(str(part), 0)
    }  # fmt: skip
    assert len(held_out) == first["held_out"]
    assert not held_out & known[1], "what it was stopped by has not trained"
    assert held_out & known[2], "and trains with the next"
    assert len(known[-1]) == sum(said["examples"] for said in cycles) <= len(taught)


def until_two_went_live(settings: Settings, school: School, log: Path) -> list[dict[str, Any]]:
    """Labels go on coming, as the gate refuses some candidates for good reasons; what was taught meanwhile."""
    taught: list[dict[str, Any]] = []
    for lot in range(LOTS):
        if live_pointers(settings)["fraud"].epoch >= 3:
            return taught
        start = START + (KILLS + lot) * 1_100 * MINUTE
        more = rare(3_000, seed=KILLS + lot + 1, start=start, noise=NOISE)
        school.teach(more)
        taught += more
        time.sleep(LOT_S)
    raise AssertionError(log.read_text()[-3_000:])


def everything(settings: Settings) -> dict[Place, int]:
    """Event times of all examples, from the topic itself."""
    found = dict[Place, int]()
    for (topic, part), (low, high) in bounds(settings, places(settings, settings.topics.examples)).items():
        for messages in read_range(settings, topic, part, low, high):
            for message, record in zip(messages, decoded(settings, messages), strict=True):
                found[part, message.offset()] = record["event_time"]
    return found


def learned(every: dict[Place, int], standing: Standing) -> set[Place]:
    """What a standing covers."""
    return {
        (part, offset) for (part, offset), time in every.items()
        if offset < standing.start.get(part, 0) or (offset < standing.end.get(part, 0) and time <= standing.until)
    }  # fmt: skip
