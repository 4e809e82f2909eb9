"""What was served is what replaying the topics to the score's cut gives, byte for byte."""

import random

import pytest

from bench.replay import replayed
from streams.ports import free_port
from tests import checker, shop
from tests.chaos.harness import PATIENT, crowd


@pytest.fixture
def settings(fresh_settings, registry):
    store, _ = shop.releases()
    made = fresh_settings(
        release_store=store, web={"port": free_port()}, deadlines_ms=PATIENT, state={"flush_interval_s": 0.5}
    )
    shop.furnish(made)
    return made


def test_replaying_to_the_cut_gives_the_features_that_were_served(settings, tmp_path):
    sent = crowd(random.Random(11), 300, users=15)
    with shop.worker(settings, tmp_path / "worker.log") as worker:
        shop.publish(settings, sent)
        shop.wait_for(lambda: checker.finished(settings), 60, lambda: (tmp_path / "worker.log").read_text()[-3000:])
        found = replayed(settings)
        assert found.compared == 300
        assert not found.differences
        assert not found.cuts
        assert not checker.differing_users(checker.state_rows(settings), found.rows)
        assert worker.end() == 0
