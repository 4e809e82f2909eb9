"""`delivery = "exactly_once"` through kills, a freeze and rebalances: a reader of committed records sees each score,
each `served` and each alert once, and none is missing.
"""

import random
import time

import pytest

from tests import shop
from tests.chaos.harness import Stream, crew, crowd, judge, kill, seed, woken_too_late

pytestmark = pytest.mark.slow


@pytest.fixture
def exact_settings(shop_settings):
    return lambda **over: shop_settings(delivery="exactly_once", transaction_ms=50, **over)


def judge_once(name, settings, sent, group):
    """All that is judged of any run, and that nothing is there twice."""
    report = judge(name, settings, sent, group)
    assert report.scores == len({event["event_id"] for _, event in sent})
    assert (report.repeated_scores, report.repeated_served) == (0, 0)
    alerts = [alert["order_id"] for alert in shop.read(settings, settings.topics.alerts, "fraud_alert")]
    assert len(alerts) == len(set(alerts))
    assert not any(group.half_said())  # what was said and what was read are one


def test_three_kills_repeat_nothing(exact_settings, tmp_path):
    rng = random.Random(seed())
    settings, sent = exact_settings(), crowd(rng, 4000)
    with crew(settings, tmp_path) as group, Stream(settings, sent, rate=120) as stream:
        for number in range(3):
            worker = group.start("a" if number < 2 else "b")  # the last one has neither a local copy nor the same id
            time.sleep(rng.uniform(1.0, 4.0))
            kill(worker)
        group.start("c")
        stream.join()
        group.finish()
        judge_once("exactly once, three kills", settings, sent, group)
        assert group.workers[-1].end() == 0


def test_a_frozen_worker_that_wakes_adds_nothing(exact_settings, tmp_path):
    rng = random.Random(seed())
    settings, sent = exact_settings(), crowd(rng, 3000)
    with crew(settings, tmp_path) as group, Stream(settings, sent, rate=110) as stream:
        woken_too_late(rng, group)
        stream.join()
        group.finish()
        judge_once("exactly once, frozen", settings, sent, group)


def test_workers_that_come_and_go_repeat_nothing(exact_settings, tmp_path):
    rng = random.Random(seed())
    settings, sent = exact_settings(partitions=4), crowd(rng, 3000, users=400)
    with crew(settings, tmp_path) as group, Stream(settings, sent, rate=150) as stream:
        first, second = group.start("a"), group.start("b")
        time.sleep(rng.uniform(1.0, 4.0))
        assert second.end() == 0, second.log.read_text()[-3000:]
        time.sleep(rng.uniform(0.5, 2.0))
        third = group.start("b")
        stream.join()
        group.finish()
        judge_once("exactly once, rebalance", settings, sent, group)
        assert [first.end(), third.end()] == [0, 0]


def test_what_a_killed_worker_of_at_least_once_has_said_is_not_said_again(shop_settings, tmp_path):
    """Taken into use after a crash: scores that are on their topics stay the only ones."""
    rng = random.Random(seed())
    settings = shop_settings(commit_interval_s=10.0, state={"flush_interval_s": 10.0})
    sent = crowd(rng, 1500)
    with crew(settings, tmp_path) as group, Stream(settings, sent, rate=150) as stream:
        worker = group.start("a")
        time.sleep(rng.uniform(2.0, 3.0))
        kill(worker)
        group.settings = settings.model_copy(update={"delivery": "exactly_once"})
        group.start("a")
        stream.join()
        group.finish()
        report = judge("at least once, then exactly once", settings, sent, group)
        assert report.repeated_scores == 0
        assert any(group.half_said())  # there was something that could have been said again
        assert group.workers[-1].end() == 0
