"""The schema registry away: at the start the worker waits and says so; later only unknown schemas wait."""

import json
import random
import urllib.error
import urllib.request
from contextlib import closing

import confluent_kafka
import pytest

from schemas.catalog import load
from schemas.confluent import ConfluentRegistry
from schemas.wire import Encoder
from streams.local import LocalRegistry
from streams.offsets import bounds
from tests import checker, shop
from tests.chaos.harness import PATIENT, Stream, crew, crowd, judge, seed
from tests.records import NOON_MS, click

pytestmark = pytest.mark.slow


@pytest.fixture
def own_registry(tmp_path):
    server = LocalRegistry(tmp_path / "own-registry", outlive=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(fresh_settings, own_registry):
    store, _ = shop.releases()
    made = fresh_settings(
        registry_url=own_registry.url, release_store=store, deadlines_ms=PATIENT, session_timeout_s=6.0,
        state={"flush_interval_s": 0.7},
    )  # fmt: skip
    shop.furnish(made)
    return made


def readiness(worker):
    """Status and text of /readyz."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.settings.web.port}/readyz", timeout=2) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_a_worker_without_a_registry_says_so_waits_and_becomes_ready_with_it(settings, own_registry, tmp_path):
    sent = crowd(random.Random(seed()), 100)
    with Stream(settings, sent, rate=5000):
        pass
    own_registry.stop()
    with crew(settings, tmp_path) as group:
        worker = group.start(ready=False)
        shop.wait_for(lambda: readiness(worker)[0] == 503 and "registry" in readiness(worker)[1], 30)
        shop.wait_for(lambda: "registry" in worker.log.read_text(), 30)
        assert worker.process.poll() is None
        own_registry.start()
        worker.wait_ready()
        group.finish()
        judge("registry away at start", settings, sent, group)
        assert not checker.dead_letters(settings)


def said(settings, task):
    """How many scores are on the topic; needs no registry."""
    topic = settings.topics.scores(task)
    ends = bounds(settings, [(topic, partition) for partition in range(settings.partitions)])
    return sum(high for _, high in ends.values())


def newer_click():
    """The click contract with one optional field more: a schema that no worker has met."""
    schema = json.loads(json.dumps(load("click")))
    schema["fields"].append({"name": "campaign", "type": ["null", "string"], "default": None})
    return schema


def test_with_the_registry_away_known_schemas_go_on_and_unknown_ones_wait(settings, own_registry, tmp_path):
    sent = crowd(random.Random(seed()), 200)
    with closing(ConfluentRegistry(settings.registry())) as registry:
        schema_id = registry.register(f"{settings.topics.clicks}-value", newer_click())
        known = Encoder(registry, settings.topics.clicks, "click")
    with crew(settings, tmp_path) as group:
        worker = group.start()
        with Stream(settings, sent[:100], rate=1000):
            pass
        group.finish()
        stream = Stream(settings, sent[100:150], rate=1000)
        later = Stream(settings, [pair for pair in sent[150:] if pair[0] != "clicks"], rate=1000)
        own_registry.stop()
        with stream:
            pass
        group.finish()  # all of known schemas are scored without it
        strange = [click(event_id=f"new-{n}", event_time=NOON_MS + n, user_id="newcomer") for n in range(20)]
        producer = confluent_kafka.Producer(settings.librdkafka() | {"partitioner": "murmur2_random"})
        for event in strange:
            # An absent optional field at the end is one byte: branch 0 of its union.
            value = b"\0" + schema_id.to_bytes(4, "big") + known(event)[5:] + b"\0"
            producer.produce(settings.topics.clicks, value, b"newcomer")
        assert producer.flush(30) == 0
        shop.wait_for(lambda: "waits" in worker.log.read_text(), 30)
        with later:  # the other topics go on beside the held partition
            pass
        ids = checker.events_by_task([*sent[:150], *(pair for pair in sent[150:] if pair[0] != "clicks")])
        for task in ("fraud", "ctr"):
            shop.wait_for(lambda task=task: said(settings, task) == len(ids[task]), 30)
        assert said(settings, "recommendations") == len(ids["recommendations"])
        assert worker.process.poll() is None
        own_registry.start()
        group.finish()
        every = [*sent[:150], *(pair for pair in sent[150:] if pair[0] != "clicks")]
        every += [("clicks", event) for event in strange]
        judge("registry away while running", settings, every, group)
        assert not checker.dead_letters(settings)
