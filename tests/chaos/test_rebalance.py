"""Workers that come and go in mid-stream, in order: a rebalance and a rolling restart."""

import random
import time

import pytest

from tests.chaos.harness import Stream, crew, crowd, judge, seed

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("flush_interval_s", [0.7, 0.02], ids=["", "while it always flushes"])
def test_a_second_worker_joins_and_leaves(shop_settings, tmp_path, flush_interval_s):
    rng = random.Random(seed())
    settings = shop_settings(partitions=4, state={"flush_interval_s": flush_interval_s})
    sent = crowd(rng, 3000, users=400)
    with crew(settings, tmp_path) as group, Stream(settings, sent, rate=150) as stream:
        first = group.start("a")
        second = group.start("b")
        time.sleep(rng.uniform(1.0, 4.0))
        assert second.end() == 0, second.log.read_text()[-3000:]
        time.sleep(rng.uniform(0.5, 2.0))
        third = group.start("b")
        stream.join()
        group.finish()
        assert first.process.poll() is None, first.log.read_text()[-3000:]
        judge("rebalance", settings, sent, group)
        assert [first.end(), third.end()] == [0, 0]


def test_a_rolling_restart_repeats_nothing(shop_settings, tmp_path):
    rng = random.Random(seed())
    settings, sent = shop_settings(), crowd(rng, 3000)
    with crew(settings, tmp_path) as group, Stream(settings, sent, rate=110) as stream:
        for home in ("a", "b", "a"):
            worker = group.start(home)
            time.sleep(rng.uniform(1.0, 3.0))
            assert worker.end() == 0, worker.log.read_text()[-3000:]
        last = group.start("b")
        stream.join()
        group.finish()
        report = judge("rolling restart", settings, sent, group)
        assert (report.repeated_scores, report.repeated_served) == (0, 0)
        assert last.end() == 0
