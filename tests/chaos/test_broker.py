"""A broker that refuses or goes away: the worker ends, or waits, and nothing is committed that was not said."""

import random
import time

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from streams.local import LocalBroker
from streams.offsets import committed
from tests import shop
from tests.chaos.harness import Stream, crew, crowd, judge, seed, unserved

pytestmark = pytest.mark.slow


def limit(settings, topic, size):
    """Sets the longest record that a topic takes."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = AdminClient({**settings.librdkafka(), "log_level": 0})
    for answer in client.incremental_alter_configs([resource]).values():
        answer.result()


def ended(worker):
    shop.wait_for(lambda: worker.process.poll() is not None, 60, lambda: worker.log.read_text()[-3000:])
    return worker.process.returncode


def read_to(settings, topic):
    return sum(committed(settings, settings.app_id, [(topic, p) for p in range(settings.partitions)]).values())


def test_a_refused_score_ends_the_worker_and_commits_nothing(shop_settings, tmp_path):
    settings, sent = shop_settings(), crowd(random.Random(seed()), 300)
    limit(settings, settings.topics.scores_fraud, 80)
    with crew(settings, tmp_path) as group:
        worker = group.start()
        with Stream(settings, [pair for pair in sent if pair[0] == "orders"], rate=1000):
            assert ended(worker) not in (0, None)
        assert read_to(settings, settings.topics.orders) == 0
        assert "MSG_SIZE_TOO_LARGE" in worker.log.read_text()
        limit(settings, settings.topics.scores_fraud, 1_000_000)
        group.start()
        with Stream(settings, [pair for pair in sent if pair[0] != "orders"], rate=1000):
            pass
        group.finish()
        judge("refused scores", settings, sent, group)


def test_scores_that_were_not_served_are_served_after_the_restart_and_not_said_again(shop_settings, tmp_path):
    settings, sent = shop_settings(), crowd(random.Random(seed()), 400)
    served = [settings.topics.served(task) for task in settings.tasks]
    for topic in served:
        limit(settings, topic, 80)
    with crew(settings, tmp_path) as group:
        with Stream(settings, sent, rate=5000):
            pass
        assert ended(group.start(ready=False)) not in (0, None)
        half = unserved(settings)
        assert half > 0
        assert sum(read_to(settings, topic) for topic in settings.topics.inputs) == 0
        for topic in served:
            limit(settings, topic, 1_000_000)
        group.start()
        group.finish()
        report = judge("refused served", settings, sent, group)
        print("said and not served:", half)
        assert report.repeated_scores == 0
        assert sum(group.half_said()) >= half


@pytest.mark.parametrize("crash", [False, True], ids=["in order", "by SIGKILL"])
def test_a_broker_restart_loses_nothing(fresh_settings, registry, tmp_path, crash):
    rng = random.Random(seed())
    broker = LocalBroker(tmp_path / "kafka", outlive=False)
    broker.start()
    try:
        settings, sent = on_broker(fresh_settings, broker), crowd(rng, 2500)
        with crew(settings, tmp_path) as group, Stream(settings, sent, rate=130) as stream:
            worker = group.start()
            time.sleep(rng.uniform(1.0, 3.0))
            broker.restart(crash=crash)
            stream.join()
            if worker.process.poll() is not None:
                print("the worker ended with", worker.process.returncode, "and is started again")
                assert worker.process.returncode != 0
                group.start()
            group.finish()
            judge(f"broker restart, crash={crash}", settings, sent, group)
    finally:
        broker.stop()


def on_broker(fresh_settings, broker):
    store, _ = shop.releases()
    settings = fresh_settings(
        brokers=broker.address, release_store=store, session_timeout_s=30, state={"flush_interval_s": 0.7},
        deadlines_ms={"fraud": 3_600_000, "recommendations": 3_600_000, "ctr": 3_600_000}, batch={"max_events": 64},
    )  # fmt: skip
    shop.furnish(settings)
    return settings
