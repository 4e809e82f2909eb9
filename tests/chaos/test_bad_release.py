"""A bad release that a person forced past the gate, with a real worker and a real learner: what the users of its canary
were told can be traced and had again, and it is taken back by itself, by its scores or by its labels.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from engines.releases import ReleaseStore
from schemas.confluent import ConfluentRegistry
from streams.config import Settings
from streams.demo.stage import environment
from streams.labels.derive import heartbeat
from streams.pointers import live_pointers
from streams.tracing.catalogue import read_catalogue
from streams.tracing.reproduce import EQUAL, reproduce
from tests import shop
from tests.records import NOON_MS, money, order
from tests.traced_shop import label, send

ORDERS, LATER, MOST_LABELS = 450, 40, 500
DAY_MS = 86_400_000
BROKEN = {"a": 0.1, "b": 9.0}
"""A calibration by which every order is a fraud: what a head that has lost its mind says."""


def orders(first: int, count: int, start: int = NOON_MS) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("orders", order(event_id=f"o{n}", order_id=f"order-{n}", user_id=f"user-{n % 97}", event_time=start + 1000 * n,
                         amount=money(5.0 + n % 50)))
        for n in range(first, first + count)
    ]  # fmt: skip


def served(settings: Settings) -> list[dict[str, Any]]:
    return shop.read(settings, settings.topics.served("fraud"), "served")


def by_release(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in served(settings):
        found.setdefault(one["release"], []).append(one)
    return found


@contextmanager
def learner(settings: Settings, log: Path) -> Iterator[None]:
    with log.open("ab") as file:
        running = subprocess.Popen(
            [sys.executable, "-m", "streams", "learner"], env=os.environ | environment(settings), stderr=file
        )
    try:
        yield
    finally:
        running.terminate()
        running.wait(60)


def headrace(settings: Settings, *line: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "streams", *line], env=os.environ | environment(settings), check=True,
        capture_output=True, text=True,
    ).stdout  # fmt: skip


@pytest.mark.slow
def test_a_bad_release_serves_a_canary_that_can_be_traced_and_is_taken_back_within_500_labels(
    shop_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    store, good = str(tmp_path / "store"), shop.releases()[1]["fraud"]
    shutil.copytree(shop.releases()[0], store)
    bad = shop.copy_release(store, "fraud", good, "bad", calibration=BROKEN)
    settings = shop_settings(
        release_store=store, tasks=("fraud",), partitions=2, learner_web={"port": 0}, learning={"examples": 10**6},
        swap={"shadow_events": 0, "shadow_wait_s": 0, "sample": 1, "stagger_s": 0, "canary_share": 0.5, "canary_s": 15},
    )  # fmt: skip
    log = tmp_path / "learner.log"
    with shop.worker(settings, tmp_path / "worker.log"):
        headrace(settings, "releases", "promote", f"fraud/{bad}")
        number = 0
        while f"fraud/{bad}" not in by_release(settings):
            assert number < ORDERS // 2, (tmp_path / "worker.log").read_text()[-3_000:]
            shop.publish(settings, orders(number, 20))
            number += 20
            shop.wait_for(lambda number=number: len(served(settings)) >= number, 120)
        shop.publish(settings, orders(number, ORDERS - number))
        shop.wait_for(lambda: len(served(settings)) >= ORDERS, 240)
        both = by_release(settings)
        assert both.keys() == {f"fraud/{good}", f"fraud/{bad}"}, "others were still served by the one before"
        traced(settings, both[f"fraud/{bad}"][:20], bad)
        shop.publish(settings, orders(ORDERS, LATER, start=NOON_MS + 29 * DAY_MS))
        shop.wait_for(lambda: len(served(settings)) >= ORDERS + LATER, 240)
        with learner(settings, log):
            say(settings)
            shop.wait_for(
                lambda: live_pointers(settings)["fraud"].version == good, 240, lambda: log.read_text()[-3_000:]
            )
        shop.wait_for(lambda: says_live(settings, good), 120)
    announced = shop.read(settings, settings.topics.releases, "model_release")
    (said,) = [one for one in announced if one["version"] == bad and one["state"] == "rolled back"]
    told = json.loads(said["gate"])
    assert told["action"] == "rollback"
    assert told["labels"] <= MOST_LABELS


def says_live(settings: Settings, version: str) -> bool:
    """The worker serves it again."""
    first = len(served(settings)) + 10_000
    shop.publish(settings, orders(first, 1, start=NOON_MS + 30 * DAY_MS))
    shop.wait_for(lambda: any(one["event_id"] == f"o{first}" for one in served(settings)), 60)
    (one,) = [one for one in served(settings) if one["event_id"] == f"o{first}"]
    return str(one["release"]) == f"fraud/{version}"


def traced(settings: Settings, canary: list[dict[str, Any]], version: str) -> None:
    """What the canary's users were told comes out again, bit by bit, and its lineage names the release that said it."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        catalogue = read_catalogue(settings, registry)
    found = reproduce(settings, ReleaseStore(settings.release_store), catalogue, canary)
    assert {each.verdict for each in found} == {EQUAL}, [each.notes for each in found]
    lineage = json.loads(headrace(settings, "lineage", canary[0]["event_id"], "--json"))
    assert lineage["release"]["release"] == f"fraud/{version}"
    assert lineage["served"]["cut"] == canary[0]["cut"]
    assert lineage["input"]["offset"] == canary[0]["cut"]["orders"]


def say(settings: Settings) -> None:
    """A fraud in twenty is told by the bank; of the others its silence says that they are none."""
    topic, frauds = settings.topics.labels, [label("fraud", f"order-{n}", 1.0) for n in range(0, ORDERS, 20)]
    alive = heartbeat("fraud", "chargeback", NOON_MS + 29 * DAY_MS)
    send(settings, [(topic, "label", one["target_id"].encode(), one) for one in frauds])
    send(settings, [(topic, "label", str(n).encode(), alive) for n in range(16)])
