"""The policy changes while workers die and share anew: each order that is held keeps its one alert, whoever decides."""

import random
import time
from contextlib import closing

import pytest

from schemas.confluent import ConfluentRegistry
from streams.policy_topic import apply
from tests import shop
from tests.chaos.harness import Stream, crew, crowd, judge, kill, seed

pytestmark = pytest.mark.slow

POLICY = """name = "shop"
[[rules]]
id = "dear"
when = "order.amount > {amount}"
then = "{then}"
[[rules]]
id = "others"
when = "true"
then = "approve"
"""
CHANGES = (("60.0", "review"), ("30.0", "block"), ("80.0", "review"), ("10.0", "review"))


def test_each_order_has_one_alert_whatever_dies_and_whichever_policy_decides(shop_settings, tmp_path):
    rng = random.Random(seed())
    settings, sent = shop_settings(), crowd(rng, 3000)
    with closing(ConfluentRegistry(settings.registry())) as registry, crew(settings, tmp_path) as group:
        put(settings, registry, 0)
        first = group.start("a")
        with Stream(settings, sent, rate=110) as stream:
            time.sleep(rng.uniform(1.0, 4.0))
            put(settings, registry, 1)
            time.sleep(rng.uniform(0.0, 0.5))
            kill(first)  # some is said under the second policy and not acknowledged
            group.start("a")
            put(settings, registry, 2)
            second = group.start("b")  # shares the partitions
            time.sleep(rng.uniform(1.0, 4.0))
            put(settings, registry, 3)
            time.sleep(rng.uniform(0.0, 0.5))
            kill(second)
            stream.join()
        group.finish()
        report = judge("policies", settings, sent, group)
        assert report.alerts > 100
        alerts = list(shop.read(settings, settings.topics.alerts, "fraud_alert"))
        assert len({alert["policy_version"] for alert in alerts}) > 1
        assert group.workers[1].end() == 0


def put(settings, registry, number: int) -> None:
    amount, then = CHANGES[number]
    apply(settings, registry, POLICY.format(amount=amount, then=then), by="test", now_ms=number + 1)
