"""History: absorbed once whatever is killed, never scored, and what the first releases are trained on."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from functools import partial
from os import environ
from types import SimpleNamespace

import confluent_kafka
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from schemas.confluent import ConfluentRegistry
from schemas.values import to_json
from schemas.wire import Encoder
from streams.asking.jobs import untold
from streams.backfill.pacing import Pace, Standing
from streams.backfill.plans import plan
from streams.backfill.workers import Workers
from streams.batch import CLICKS
from streams.cli import app
from streams.cli.backfill import Meter
from streams.demo.stage import environment
from streams.history import HISTORY, history_among
from streams.joining.deriver import Deriver
from streams.labels.store import LabelStore
from streams.mapping.reading import AT_ONCE
from streams.mapping.service import Follower
from streams.offsets import bounds, places, read_range
from streams.ports import free_port
from streams.raw import RawRecord
from streams.recorded import Recorded
from streams.tasks import make_task
from tests import mapped_shop, shop
from tests.mapped_shop import order, write_mapping
from tests.records import NOON_MS, click


@pytest.fixture
def settings(fresh_settings, registry):
    return fresh_settings()


@pytest.fixture
def headrace(settings, logging_as_it_was):
    def run(*words):
        return CliRunner().invoke(app, [str(word) for word in words], env=environment(settings), prog_name="headrace")

    return run


def clicks_file(tmp_path, count, name="clicks.ndjson", days=60):
    """Clicks of 50 users in time order, in the contract: rows as JSON has them."""
    step = days * 86_400_000 // count
    rows = [
        click(event_id=f"c{n}", user_id=f"user-{n % 50}", item_id=f"item-{n % 40}", event_time=NOON_MS + n * step)
        for n in range(count)
    ]
    path = tmp_path / name
    path.write_text("".join(json.dumps(to_json("click", row)) + "\n" for row in rows), "utf-8")
    return path


def published(settings, topic):
    return [
        message
        for (_, partition), (low, high) in bounds(settings, places(settings, topic)).items()
        for messages in read_range(settings, topic, partition, low, high)
        for message in messages
    ]


def test_rows_of_a_file_are_history_and_a_second_call_does_nothing(settings, headrace, tmp_path):
    path = clicks_file(tmp_path, 100)
    first = headrace("backfill", path, "--to", settings.topics.clicks)
    assert first.exit_code == 0, first.output
    assert "done: 100 of 100 read; 100 published now" in first.output
    again = headrace("backfill", path, "--to", settings.topics.clicks)
    assert "0 published now" in again.output
    messages = published(settings, settings.topics.clicks)
    assert len(messages) == 100
    assert all("headrace-history" in dict(each.headers()) for each in messages)


def test_parquet_through_a_mapping_and_bad_rows_to_be_mended(settings, headrace, tmp_path):
    rows = [order(n) for n in range(20)] + [order(20, placed_at="never")]
    pq.write_table(pa.Table.from_pylist(rows), path := tmp_path / "orders.parquet")
    mapping = write_mapping(tmp_path, mapped_shop.ORDERS, name="orders", source="shop.orders", format="json")
    bad = tmp_path / "bad.ndjson"
    done = headrace("backfill", path, "--mapping", mapping, "--bad", bad, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["absorbed"] == 20
    [row] = [json.loads(line) for line in bad.read_text().splitlines()]
    bad.write_text(json.dumps(row | {"placed_at": "2026-03-01T12:00:00Z"}) + "\n")
    assert headrace("backfill", bad, "--mapping", mapping).exit_code == 0
    ids = Counter(each["order_id"] for each in shop.read(settings, settings.topics.orders, "order"))
    assert ids == Counter(f"SO-{n}" for n in range(21))


def test_a_backfill_that_is_killed_goes_on_and_publishes_each_row_once(settings, tmp_path):
    count = 30_000
    path = clicks_file(tmp_path, count)
    kills, ids = 0, list[bytes]()
    deadline = time.monotonic() + 240
    while len(ids) < count and time.monotonic() < deadline:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams", "backfill", str(path), "--to", settings.topics.clicks],
            env=environ | environment(settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        before = len(ids)
        shop.wait_for(lambda p=process, b=before: p.poll() is not None or count_of(settings) > b, 120)
        if process.poll() is None:
            process.kill()
            kills += 1
        process.communicate()
        ids = [dict(each.headers())["headrace-source"] for each in published(settings, settings.topics.clicks)]
        assert len(ids) == len(set(ids))
    assert kills
    assert len(ids) == count


def count_of(settings):
    return len(published(settings, settings.topics.clicks))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["no.ndjson", "--to", "clicks"], "no.ndjson is no file"),
        (["x.ndjson"], "one of a mapping and --to"),
        (["x.ndjson", "--to", "scores_fraud"], "written by Headrace itself"),
        (["no.such.topic", "--to", "clicks"], "exist"),
    ],
)
def test_what_cannot_be_taken_in_is_said(headrace, words, complaint):
    done = headrace("backfill", *words)
    assert done.exit_code == 2
    assert complaint in done.output


def test_the_meter_says_what_is_left(capsys, monkeypatch):
    moments = iter([0.0, 0.0, 20.0, 40.0])
    monkeypatch.setattr("streams.cli.backfill.time.monotonic", lambda: next(moments))
    meter = Meter()
    for done in (0, 500, 1000):
        meter(done, 4000)
    assert capsys.readouterr().err.splitlines()[-1] == "1,000 of 4,000 (25%), 25/s, 2 min 00 s left"


def test_the_meter_says_what_it_waits_for(capsys, monkeypatch):
    moments = iter([0.0, 0.0, 20.0])
    monkeypatch.setattr("streams.cli.backfill.time.monotonic", lambda: next(moments))
    meter = Meter()
    meter(0, 4000)
    meter(500, 4000, "the workers are 31,204 records behind")
    line = "500 of 4,000 (12%), 25/s, waits: the workers are 31,204 records behind\n"
    assert capsys.readouterr().err == line


def test_history_waits_while_the_workers_are_behind_and_goes_on_when_they_are_not(settings, tmp_path):
    settings = settings.model_copy(update={"backfill_lag": 1_000})
    path, topic = clicks_file(tmp_path, 9_000), settings.topics.clicks
    told = []
    with worker_like(settings) as worker, closing(ConfluentRegistry(settings.registry())) as known:
        follower = Follower(settings, known, plan(settings, known, str(path), to=topic))
        pace = Pace(settings.backfill_lag, Workers(settings))
        run = partial(follower.run, until_end=True, hold=pace, progress=lambda done, _, why: told.append((done, why)))
        thread = threading.Thread(target=run)
        thread.start()
        shop.wait_for(lambda: follower.waits, 60)
        stood = follower.carried.published
        time.sleep(2)
        assert follower.carried.published == stood <= 2 * AT_ONCE
        assert "the workers are" in follower.waits
        while thread.is_alive():
            worker.read()
            assert worker.behind() <= 1_000 + AT_ONCE
        thread.join()
    assert follower.carried.published == count_of(settings) == 9_000
    assert {"waits" if why else "goes on" for _, why in told} == {"waits", "goes on"}


def test_history_waits_for_nobody_before_the_first_worker(settings, tmp_path):
    settings = settings.model_copy(update={"backfill_lag": 1})
    path = clicks_file(tmp_path, 5_000)
    assert Workers(settings)() == Standing(0, 0)
    with closing(ConfluentRegistry(settings.registry())) as known:
        follower = Follower(settings, known, plan(settings, known, str(path), to=settings.topics.clicks))
        follower.run(until_end=True, hold=Pace(1, Workers(settings)))
    assert follower.carried.published == 5_000
    standing = Workers(settings)()
    assert standing.lag >= 5_000  # the marks of transactions have offsets, too
    assert standing.members == 0


class WorkerLike:
    """A member of the workers' group that reads and commits when it is told to."""

    def __init__(self, settings):
        self.settings = settings
        conf = {"group.id": settings.app_id, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        self.consumer = confluent_kafka.Consumer(settings.librdkafka() | conf)
        self.consumer.subscribe(list(settings.topics.inputs))
        shop.wait_for(lambda: self.consumer.consume(1, 0.1) == [] and self.consumer.assignment(), 60)

    def read(self):
        if self.consumer.consume(500, 0.1):
            self.consumer.commit(asynchronous=False)

    def behind(self):
        return Workers(self.settings)().lag


@contextmanager
def worker_like(settings):
    worker = WorkerLike(settings)
    try:
        yield worker
    finally:
        worker.consumer.close()


def test_history_is_left_out_of_what_is_scored_and_the_rest_is_not():
    places = [RawRecord("clicks", 0, n, NOON_MS, None, b"", headers) for n, headers in enumerate(HEADERS)]
    fresh, topic = np.array([True, True, True, False]), np.array([CLICKS, CLICKS, CLICKS, CLICKS])
    work = SimpleNamespace(
        absorbed=SimpleNamespace(fresh=fresh),
        batch=SimpleNamespace(topic=topic),
        told={},
        history=history_among(places),
    )
    assert untold(make_task("recommendations"), work).tolist() == [0, 2]  # type: ignore[arg-type]  # it looks at no more


def test_no_label_is_derived_from_history(fresh_settings, registry, tmp_path):
    settings = fresh_settings(partitions=1)
    answers = {"position": 0, "item_id": "item-1", "action": "click"}
    with closing(ConfluentRegistry(settings.registry())) as known:
        encode = Encoder(known, settings.topics.clicks, "click")
        producer = confluent_kafka.Producer(settings.librdkafka())
        for event_id, headers in (("old", [(HISTORY, b"1")]), ("new", [])):
            value = encode(click(event_id=event_id, **answers, request_id=event_id))
            producer.produce(settings.topics.clicks, value, b"user-1", 0, headers=headers)
        assert producer.flush(30) == 0
        store = LabelStore(tmp_path / "labels")
        deriver = Deriver(settings, known, {}, 0, store)
        deriver.open(NOON_MS)
        made = sum(deriver.step(NOON_MS + n) for n in range(20))
        deriver.close()
    assert made == 1
    labels = [each for each in shop.read(settings, settings.topics.labels, "label") if each["target_id"]]
    assert [each["target_id"] for each in labels] == ["new"]


HEADERS = [(), ((HISTORY, b"1"),), (("other", b"1"),), ()]


def test_events_and_labels_come_in_order_of_time_from_runs_on_disk(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("streams.recorded.RUN_BYTES", 20_000)
    times = [NOON_MS + n * 7919 % 1000 for n in range(1000)]
    events = [("clicks", click(event_id=f"c{n}", user_id=f"u{n}", event_time=at)) for n, at in enumerate(times)]
    shop.publish(settings, events)
    shop.send(settings, settings.topics.clicks, b"u", b"vandal")
    (folder := tmp_path / "runs").mkdir()
    with closing(ConfluentRegistry(settings.registry())) as registry:
        recorded = Recorded(settings, registry, folder, since=NOON_MS + 100, until=NOON_MS + 900)
        counted = recorded.read()
        times = [record["event_time"] for _, record in recorded]
        assert times == [record["event_time"] for _, record in recorded]  # a second pass
    assert (counted.found, counted.bad) == ((800, 0, 0, 0), 1)
    assert times == sorted(times)
    assert len(list(folder.iterdir())) > 2


@pytest.mark.slow
def test_history_then_a_first_release_then_a_worker_that_serves_it(fresh_settings, registry, tmp_path):
    """History is not scored; the releases are of it; and a score sees what was backfilled."""
    settings = fresh_settings(
        release_store=str(tmp_path / "releases"), tasks=("recommendations",), web={"port": free_port()},
        deadlines_ms={"recommendations": 60_000},
    )  # fmt: skip
    shop.furnish_catalog(settings)
    env = environ | environment(settings)
    path = clicks_file(tmp_path, 6_000)
    for words in (
        ["backfill", str(path), "--to", settings.topics.clicks],
        ["train", "--tasks", "recommendations", "--to", "2030-01-01T00:00Z"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "streams", *words], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    with shop.worker(settings, tmp_path / "worker.log"):
        live = click(event_id="live", user_id="user-3", item_id="item-3", event_time=NOON_MS + 61 * 86_400_000)
        shop.publish(settings, [("clicks", live)])
        shop.wait_for(lambda: shop.scores(settings, "recommendations"), 120)
    [score] = shop.scores(settings, "recommendations")
    assert score["event_id"] == "live"
    [served] = shop.read(settings, settings.topics.served("recommendations"), "served")
    kinds = served["features"][256 : 256 + 64]
    assert sum(map(bool, kinds)) == 64  # the history of user-3 is there: 120 clicks, of which 64 are kept
