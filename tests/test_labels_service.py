"""The label join on a real broker: labels meet what was served, and a killed one loses nothing and repeats nothing."""

import threading
import time
from collections import Counter
from contextlib import AbstractContextManager, closing
from typing import Any

import confluent_kafka
import numpy as np
import pytest

from schemas.confluent import ConfluentRegistry
from schemas.wire import Encoder
from streams.config import Settings
from streams.joining.service import LabelService
from streams.labels.derive import heartbeat
from streams.local import LocalRegistry
from tests import shop
from tests.conftest import FreshSettings
from tests.records import NOON_MS, click, order
from tests.running import running

MINUTE = 60_000
HOUR = 60 * MINUTE


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    made: Settings = fresh_settings(partitions=2)
    return made


class Shop:
    """Publishes what a worker has served, and what the shop says later."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._producer = confluent_kafka.Producer(settings.librdkafka() | {"partitioner": "murmur2_random"})
        with closing(ConfluentRegistry(settings.registry())) as registry:
            topics = settings.topics
            self._encode_served = {task: Encoder(registry, topics.served(task), "served") for task in settings.tasks}
            self._encode = {
                "label": Encoder(registry, topics.labels, "label"),
                "click": Encoder(registry, topics.clicks, "click"),
                "order": Encoder(registry, topics.orders, "order"),
                "ad": Encoder(registry, topics.ads, "catalog_ad"),
            }

    def served(
        self, task: str, target: str, time_ms: int, candidates: list[str], event_id: str = "", user_id: str = "u"
    ) -> bytes:
        """A served record, of the first order of its partition; returns its features."""
        features = np.random.default_rng(abs(hash(target)) % 2**32).bytes(40)
        record: dict[str, Any] = {
            "event_id": event_id or target, "task": task, "target_id": target, "user_id": user_id,
            "event_time": time_ms, "served_at": time_ms, "release": f"{task}/1", "engine": "null",
            "bucket": 1, "row": 0,
            "features_format": 1, "features": features, "candidates": candidates,
            "prediction": [0.5] * max(1, len(candidates)), "decision": "approve" if task == "fraud" else None,
            "propensity": 1.0, "late": False, "fallback": None, "cut": {"clicks": 0, "orders": 0, "impressions": 0},
        }  # fmt: skip
        self._producer.produce(self.settings.topics.served(task), self._encode_served[task](record), target.encode())
        return features

    def label(self, record: dict[str, Any], partition: int | None = None) -> None:
        key = record["target_id"].encode() or None
        where = -1 if partition is None else partition
        self._producer.produce(self.settings.topics.labels, self._encode["label"](record), key, where)

    def alive(self, task: str, source: str, time_ms: int) -> None:
        for partition in range(self.settings.partitions):
            self.label(heartbeat(task, source, time_ms), partition)

    def event(self, kind: str, record: dict[str, Any]) -> None:
        topic = {"click": self.settings.topics.clicks, "order": self.settings.topics.orders}[kind]
        self._producer.produce(topic, self._encode[kind](record), record["user_id"].encode())

    def ad(self, ad_id: str, item_id: str) -> None:
        record: dict[str, Any] = {
            "ad_id": ad_id, "text": ad_id, "category": None, "item_id": item_id, "image": None, "active": True,
            "updated_at": NOON_MS, "attributes": {},
        }  # fmt: skip
        self._producer.produce(self.settings.topics.ads, self._encode["ad"](record), ad_id.encode())

    def flush(self) -> None:
        assert self._producer.flush(30) == 0


def joining(settings: Settings) -> AbstractContextManager[LabelService]:
    return running(LabelService(settings))


def examples(settings: Settings) -> list[dict[str, Any]]:
    return shop.read(settings, settings.topics.examples, "training_example")


def newest(found: list[dict[str, Any]]) -> dict[tuple[str, str | None, str], tuple[float, int]]:
    """(label, revision) of the newest example of each target, candidate and name."""
    out: dict[tuple[str, str | None, str], tuple[float, int]] = {}
    for example in found:
        key = example["target_id"], example["candidate_id"], example["name"]
        if key not in out or out[key][1] < example["revision"]:
            out[key] = example["label"], example["revision"]
    return out


def fraud(order_id: str, value: float, time_ms: int, revision: int = 0) -> dict[str, Any]:
    return {
        "label_id": f"{order_id}-{revision}", "task": "fraud", "target_id": order_id, "candidate_id": None,
        "name": "fraud", "value": value, "source": "chargeback", "observed_at": time_ms, "revision": revision,
    }  # fmt: skip


def test_clicks_chargebacks_and_silence_become_examples_with_the_features_that_were_served(settings: Settings) -> None:
    world = Shop(settings)
    world.ad("ad-1", "item-1")
    features = {
        "imp-1": world.served("ctr", "imp-1", NOON_MS, ["ad-1", "ad-2"]),
        "rec-1": world.served("recommendations", "rec-1", NOON_MS, ["item-1", "item-2"]),
        "o-1": world.served("fraud", "o-1", NOON_MS, []),
    }
    world.flush()
    with joining(settings) as service:
        answers = click(
            event_id="c-1", user_id="ann", event_time=NOON_MS + MINUTE, item_id="item-1", impression_id="imp-1",
            ad_id="ad-1", request_id="rec-1",
        )  # fmt: skip
        world.event("click", answers)
        world.event("order", order(event_id="b-1", order_id="b-1", user_id="ann", event_time=NOON_MS + 2 * MINUTE))
        world.label(fraud("o-1", 1.0, NOON_MS + HOUR))
        world.label(fraud("o-1", 0.0, NOON_MS + 2 * HOUR, revision=1))
        # Event time goes on in every input, or no window would close.
        for number in range(20):
            user = f"user-{number}"
            world.event("click", click(event_id=f"z-{number}", user_id=user, event_time=NOON_MS + 9 * HOUR))
            world.event("order", order(event_id=f"y-{number}", user_id=user, event_time=NOON_MS + 9 * HOUR))
            for task in settings.tasks:
                world.served(task, f"later-{task}-{number}", NOON_MS + 9 * HOUR, ["item-1"] if task != "fraud" else [])
        world.alive("fraud", "chargeback", NOON_MS + 9 * HOUR)
        world.flush()
        wanted = {
            ("imp-1", "ad-1", "click"): (1.0, 0),
            ("rec-1", "item-1", "click"): (1.0, 0),
            ("o-1", None, "fraud"): (0.0, 1),
        }
        shop.wait_for(lambda: wanted.items() <= newest(examples(settings)).items(), 60, lambda: str(examples(settings)))
        assert service.derived >= 2
        assert service.join_s is not None
        assert 0 <= service.join_s < 60, "from the broker's time of a label to what followed of it"
    found = examples(settings)
    for example in found:
        if example["target_id"] in features:
            assert example["features"] == features[example["target_id"]]
            assert example["release"] == f"{example['task']}/1"
    assert max(Counter(example["example_id"] for example in found).values()) == 1


def test_silence_becomes_a_negative_once_the_source_is_alive_on_any_partition(settings: Settings) -> None:
    world, day = Shop(settings), 24 * HOUR
    for number in range(20):
        world.served("fraud", f"o-{number}", NOON_MS + number, [])
        for task in settings.tasks:
            world.served(task, f"later-{task}-{number}", NOON_MS + 29 * day, ["item-1"] if task != "fraud" else [])
    world.label(heartbeat("fraud", "chargeback", NOON_MS + 29 * day), 1)
    world.flush()
    with joining(settings):
        shop.wait_for(lambda: len(examples(settings)) >= 20, 60)
    found = newest(examples(settings))
    assert {key: label for key, (label, _) in found.items()} == {(f"o-{n}", None, "fraud"): 0.0 for n in range(20)}


def test_a_service_that_is_shut_out_or_ends_at_any_moment_makes_each_example_once(settings: Settings) -> None:
    world, count = Shop(settings), 400
    for number in range(count):
        world.served("fraud", f"o-{number}", NOON_MS + number, [])
    world.flush()
    done = threading.Event()

    def label() -> None:
        for number in range(count):
            world.label(fraud(f"o-{number}", float(number % 2), NOON_MS + HOUR + number))
            if number % 20 == 0:
                world.flush()
                time.sleep(0.1)
        world.flush()
        done.set()

    labelling = threading.Thread(target=label)
    labelling.start()
    while not done.is_set():
        with joining(settings):
            time.sleep(0.7)
    with joining(settings):
        shop.wait_for(lambda: len(newest(examples(settings))) == count, 60)
    labelling.join()
    found = examples(settings)
    assert len(found) == count
    assert {example["target_id"]: example["label"] for example in found} == {
        f"o-{number}": float(number % 2) for number in range(count)
    }


def test_a_label_that_nobody_can_use_is_set_aside_with_its_reason(settings: Settings) -> None:
    world = Shop(settings)
    world.served("fraud", "o-1", NOON_MS, [])
    world.label(fraud("o-1", 7.0, NOON_MS))
    world.label(fraud("o-1", 1.0, NOON_MS) | {"task": "tea"})
    producer = confluent_kafka.Producer(settings.librdkafka())
    producer.produce(settings.topics.labels, b"no label", b"o-1")
    producer.flush()
    world.label(fraud("o-1", 1.0, NOON_MS + 1))
    world.flush()
    with joining(settings):
        shop.wait_for(lambda: len(examples(settings)) == 1, 60)
    letters = shop.read(settings, settings.topics.deadletters, "dead_letter")
    assert sorted(letter["code"] for letter in letters) == ["out_of_range", "out_of_range", "undecodable"]
    assert {letter["topic"] for letter in letters} == {settings.topics.labels}


def test_what_a_fraudulent_order_used_is_tainted_for_all(settings: Settings) -> None:
    world = Shop(settings)
    world.event("order", order(event_id="e-1", order_id="o-1", user_id="eve", event_time=NOON_MS, device_id="device-9"))
    world.event("order", order(event_id="e-2", order_id="o-2", user_id="ann", event_time=NOON_MS, device_id="device-1"))
    world.served("fraud", "o-1", NOON_MS, [], event_id="e-1", user_id="eve")
    world.served("fraud", "o-2", NOON_MS, [], event_id="e-2", user_id="ann")
    world.label(fraud("o-1", 1.0, NOON_MS + HOUR))
    world.label(fraud("o-2", 0.0, NOON_MS + HOUR))
    world.flush()
    with joining(settings):
        shop.wait_for(lambda: len(examples(settings)) == 2, 60)
    touches = shop.read(settings, settings.topics.entity_events, "entity_touch")
    assert ("device", "device-9", "eve", True) in {(t["type"], t["token"], t["user_id"], t["fraud"]) for t in touches}
    assert {t["user_id"] for t in touches} == {"eve"}


def test_a_verdict_that_the_bank_contradicts_is_taken_back_from_what_the_order_used(settings: Settings) -> None:
    world = Shop(settings)
    world.event("order", order(event_id="e-1", order_id="o-1", user_id="eve", event_time=NOON_MS, device_id="device-9"))
    world.served("fraud", "o-1", NOON_MS, [], event_id="e-1", user_id="eve")
    world.label(fraud("o-1", 1.0, NOON_MS + HOUR) | {"source": "analyst", "label_id": "verdict"})
    world.flush()
    with joining(settings):
        shop.wait_for(lambda: len(examples(settings)) == 1, 60)
        world.label(fraud("o-1", 0.0, NOON_MS + HOUR))
        world.flush()
        shop.wait_for(lambda: len(examples(settings)) == 2, 60)
    touches = shop.read(settings, settings.topics.entity_events, "entity_touch")
    assert [t["fraud"] for t in touches if t["token"] == "device-9"] == [True, False]
