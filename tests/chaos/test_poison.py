"""Ten thousand bad messages among good ones: the good are scored, the bad kept with bytes and reason, memory is flat,
and what can be mended comes home and counts once.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from typing import Any

import confluent_kafka
import psutil  # type: ignore[import-untyped]
import pytest

from bench.replay import read_topic
from schemas.confluent import ConfluentRegistry
from schemas.registry import subject_of
from schemas.wire import Encoder
from streams.demo.stage import environment
from streams.partitioning import partition_for
from tests import checker
from tests.chaos.harness import CONTRACTS, crew, crowd, judge, seed
from tests.chaos.test_registry_away import newer_click
from tests.records import NOON_MS, click

pytestmark = pytest.mark.slow

BAD = 10_000
LIMIT = 20_000  # bytes of an input
GROWTH_MB = 80  # of the worker's memory over the second half of the flood: allocator noise, no more


class Poison:
    """Bad messages of every kind, each with the reason that it must get; None: it comes home and is scored."""

    def __init__(self, settings, rng, unknown_id, wrong_id):
        self.settings, self.rng, self.unknown_id, self.wrong_id = settings, rng, unknown_id, wrong_id
        with closing(ConfluentRegistry(settings.registry())) as registry:
            self.encode = Encoder(registry, settings.topics.clicks, CONTRACTS["clicks"])
        self.makers = [
            (self.malformed, "undecodable", 25), (self.truncated, "truncated", 20),
            (self.unknown, "unknown_schema", 15),
            (self.wrong_type, "wrong_type", 10), (self.out_of_range, "out_of_range", 17),
            (self.misplaced, None, 10), (self.oversized, "oversized", 3),
        ]  # fmt: skip
        self.events: dict[str | None, list[dict[str, Any]]] = {"unknown_schema": [], None: []}

    def make(self, n):
        """(value, key, partition or None, reason)."""
        maker, reason, _ = self.rng.choices(self.makers, [weight for *_, weight in self.makers])[0]
        event = click(event_id=f"bad-{n}", event_time=NOON_MS + n, user_id=f"user-{self.rng.randrange(40)}")
        value, partition = maker(event)
        if reason in self.events:
            self.events[reason].append(event)
        return value, event["user_id"].encode(), partition, reason

    def malformed(self, event):
        return b"\1" + self.rng.randbytes(self.rng.randrange(60)), None

    def truncated(self, event):
        whole = self.encode(event)
        return whole[: self.rng.randrange(1, len(whole) - 1)], None

    def unknown(self, event):
        return b"\0" + self.unknown_id.to_bytes(4, "big") + self.encode(event)[5:] + b"\0", None

    def wrong_type(self, event):
        return b"\0" + self.wrong_id.to_bytes(4, "big") + b"\2", None

    def out_of_range(self, event):
        return self.encode(event | {"event_time": self.rng.choice([5, 2**45, -1])}), None

    def misplaced(self, event):
        home = partition_for(event["user_id"].encode(), self.settings.partitions)
        return self.encode(event), (home + 1) % self.settings.partitions

    def oversized(self, event):
        return self.encode(event | {"query": "q" * LIMIT}), None


def dummy(number):
    return {"type": "record", "name": f"Dummy{number}", "fields": [{"name": "x", "type": "int"}]}


def register(registry, name, schema):
    return registry.register(subject_of(name), schema)


def replay(settings):
    command = [sys.executable, "-m", "streams", "deadletters", "replay", "--code", "unknown_schema", "--json"]
    done = subprocess.run(command, env=os.environ | environment(settings), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_bad_messages_among_good_ones(shop_settings, tmp_path):
    chosen = seed()
    rng = random.Random(chosen)
    settings, sent = shop_settings(max_message_bytes=LIMIT, batch={"max_events": 256}), crowd(rng, 2000)
    with closing(ConfluentRegistry(settings.registry())) as registry:
        wrong_id = register(registry, f"wrong-{chosen}", dummy(chosen))
        unknown_id = wrong_id + 60  # past all that a worker will register
    poison = Poison(settings, rng, unknown_id, wrong_id)
    encoders = {}
    with closing(ConfluentRegistry(settings.registry())) as registry:
        encoders = {n: Encoder(registry, getattr(settings.topics, n), c) for n, c in CONTRACTS.items()}
    producer = confluent_kafka.Producer(
        settings.librdkafka() | {"partitioner": "murmur2_random", "message.max.bytes": 1_000_000}
    )
    reasons: Counter[str | None] = Counter()
    sizes: list[int] = []
    with crew(settings, tmp_path) as group:
        process = psutil.Process(group.start().process.pid)
        for n in range(BAD):
            value, key, partition, reason = poison.make(n)
            where = {} if partition is None else {"partition": partition}
            producer.produce(settings.topics.clicks, value, key, **where)
            reasons[reason] += 1
            for name, event in sent[n * len(sent) // BAD : (n + 1) * len(sent) // BAD]:
                producer.produce(getattr(settings.topics, name), encoders[name](event), event["user_id"].encode())
            producer.poll(0)
            if n % 500 == 499:
                assert producer.flush(30) == 0
                time.sleep(1.0)
                sizes.append(process.memory_info().rss >> 20)
        group.finish(240)
        sizes.append(process.memory_info().rss >> 20)
        print("bad:", dict(reasons), "RSS MB:", sizes)
        misplaced = [("clicks", event) for event in poison.events[None]]
        judge("poison", settings, [*sent, *misplaced], group)
        letters = checker.dead_letters(settings)
        check_letters(letters, reasons, settings)
        assert sizes[-1] - sizes[len(sizes) // 2] < GROWTH_MB
        logged = group.workers[0].log.stat().st_size
        assert logged < 2_000_000, f"{logged} bytes of log"
        mended = [("clicks", event) for event in poison.events["unknown_schema"]]
        mend(settings, chosen, wrong_id, unknown_id)
        already = mended[: len(mended) // 4]  # their shop has sent these again by itself, in a known schema
        for _, event in already:
            producer.produce(settings.topics.clicks, encoders["clicks"](event), event["user_id"].encode())
        assert producer.flush(30) == 0
        group.finish()
        time.sleep(11)  # an unknown id is asked for again after ten seconds
        assert replay(settings)["sent"] == len(mended)
        assert replay(settings)["sent"] == 0
        group.finish()
        report = judge("mended", settings, [*sent, *misplaced, *mended], group, replay=False)
        assert report.repeated_scores == 0
        assert len(checker.dead_letters(settings)) == len(letters)
        assert group.workers[0].end() == 0


def check_letters(letters, reasons, settings):
    found = Counter(letter["code"] for letter in letters)
    assert found == {reason: count for reason, count in reasons.items() if reason}, found
    assert all(letter["value"] and letter["message"] and letter["expected"] for letter in letters)
    originals = {}
    for partition in range(settings.partitions):
        for message in read_topic(settings, settings.topics.clicks, partition):
            originals[partition, message.offset()] = message.value()
    assert all(letter["value"] == originals[letter["partition"], letter["offset"]] for letter in letters)


def mend(settings, chosen, wrong_id, unknown_id):
    """Registers the missing schema under the id that the messages name."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        number = wrong_id
        while number < unknown_id - 1:
            number = register(registry, f"filler-{chosen}-{number}", dummy(chosen + number + 1))
        schema = newer_click() | {"doc": f"of {chosen}"}
        assert register(registry, settings.topics.clicks, schema) == unknown_id
