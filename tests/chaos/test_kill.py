"""Processes that die or freeze: by SIGKILL at random moments, and by SIGSTOP past the session."""

import random
import re
import time

import pytest

from tests import checker, shop
from tests.chaos.harness import Stream, crew, crowd, judge, kill, seed, unserved, woken_too_late

pytestmark = pytest.mark.slow


def test_three_kills_lose_nothing_and_repeat_nothing_differently(shop_settings, tmp_path):
    rng = random.Random(seed())
    settings, sent = shop_settings(), crowd(rng, 4000)
    missing = []
    with crew(settings, tmp_path) as group, Stream(settings, sent, rate=120) as stream:
        for number in range(3):
            worker = group.start("a" if number < 2 else "b")  # the last one starts without a local copy
            time.sleep(rng.uniform(1.0, 4.0))
            kill(worker)
            missing.append(unserved(settings))
        group.start("b")
        stream.join()
        group.finish()
        print("scores without served after each kill:", missing)
        judge("three kills", settings, sent, group)
        assert group.workers[-1].end() == 0


def test_a_killed_run_ends_in_the_state_of_an_undisturbed_one(shop_settings, fresh_settings, tmp_path):
    rng = random.Random(seed())
    settings, sent = shop_settings(), crowd(rng, 1500)
    (tmp_path / "disturbed").mkdir()
    with crew(settings, tmp_path / "disturbed") as group:
        worker = group.start()
        with Stream(settings, sent, rate=300):
            time.sleep(rng.uniform(1.0, 4.0))
            kill(worker)
            group.start()
        group.finish()
        judge("one kill", settings, sent, group)
    inputs = {name: getattr(settings.topics, name) for name in ("clicks", "orders", "impressions", "items", "ads")}
    inputs |= {name: getattr(settings.topics, name) for name in ("vectors", "releases")}
    calm = shop_settings_on(fresh_settings, settings, inputs)
    (tmp_path / "calm").mkdir()
    with crew(calm, tmp_path / "calm") as group:
        group.start()
        group.finish()
        assert group.workers[0].end() == 0
    assert not checker.differing_users(checker.state_rows(settings), checker.state_rows(calm))


def shop_settings_on(fresh_settings, settings, topics):
    """A second group on the same inputs, with outputs and state of its own."""
    keep = settings.model_dump(include={"release_store", "deadlines_ms", "session_timeout_s", "state", "batch"})
    return fresh_settings(topics=topics, **keep)


def test_a_frozen_worker_overwrites_nothing_whether_it_is_fenced_or_joins_again(shop_settings, tmp_path):
    """Woken, it either has something to send and is told that it may not, or has nothing, and joins as a new member."""
    rng = random.Random(seed())
    settings, sent = shop_settings(), crowd(rng, 3000)
    with crew(settings, tmp_path) as group, Stream(settings, sent, rate=110) as stream:
        frozen, successor = woken_too_late(rng, group)
        anew = settings.partitions  # it had restored all of them before
        shop.wait_for(lambda: ended(frozen) or restored(frozen) > anew, 60, lambda: frozen.log.read_text()[-3000:])
        stream.join()
        group.finish()
        report = judge("frozen", settings, sent, group)
        assert report.repeated_scores == 0
        assert successor.end() == 0
        if ended(frozen):
            assert frozen.process.returncode != 0
            assert "membership" in frozen.log.read_text() or "fenced" in frozen.log.read_text().lower()
        else:
            assert frozen.end() == 0


def ended(worker) -> bool:
    return worker.process.poll() is not None


def restored(worker) -> int:
    """How many partitions it has restored so far: what it gets after its session is over it must not remember."""
    return len(re.findall(r"partition \d+ restored", worker.log.read_text(errors="replace")))
