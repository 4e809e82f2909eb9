"""Mapped topics on a real broker: JSON, Avro and Protobuf of a stranger's to scores; poison; kills; two at once."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from os import environ
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.confluent import ConfluentRegistry
from schemas.errors import Fenced, SettingsError
from schemas.unframed import MARK, fingerprint
from streams.cli import app
from streams.demo.stage import environment
from streams.mapping.mapper import Mapper
from streams.mapping.service import Follower, mapped_topic
from streams.offsets import bounds, places, read_range
from streams.partitioning import partition_for
from streams.ports import free_port
from tests import mapped_shop, shop
from tests.mapped_shop import as_json, make_topic, order, produce, write_mapping


@pytest.fixture
def settings(fresh_settings, registry):
    return fresh_settings(mapping_web={"port": 0})


@pytest.fixture
def orders(settings, tmp_path):
    """A JSON topic of three partitions without keys, and its mapping's file: (topic, path)."""
    topic = make_topic(settings, f"{settings.app_id}.shop.orders")
    return topic, write_mapping(tmp_path, mapped_shop.ORDERS, name="orders", source=topic, format="json")


def carry(settings, path, history=False, **options):
    """Follows until the end of what is there; the follower's counts."""
    with closing(ConfluentRegistry(settings.registry())) as known:
        follower = Follower(settings, known, mapped_topic(settings, Mapper.of(settings, known, path), history=history))
        follower.run(until_end=True, **options)
        return follower.carried


def raw(settings, topic):
    found = bounds(settings, places(settings, topic))
    return [
        message
        for (_, partition), (low, high) in found.items()
        for messages in read_range(settings, topic, partition, low, high)
        for message in messages
    ]


def test_a_nested_json_topic_without_keys_is_scored(fresh_settings, registry, tmp_path):
    store, _ = shop.releases()
    settings = fresh_settings(release_store=store, web={"port": free_port()}, deadlines_ms={"fraud": 60_000})
    shop.furnish(settings)
    topic = make_topic(settings, f"{settings.app_id}.shop.orders", partitions=5)
    path = write_mapping(tmp_path, mapped_shop.ORDERS, name="orders", source=topic, format="json")
    guest = order(99, customer={"id": None, "email_hash": None})
    produce(settings, topic, as_json(*(order(n) for n in range(30)), guest, order(1, kind="order.shipped")))
    with shop.worker(settings, tmp_path / "worker.log"):
        assert carry(settings, path, start="beginning").published == 31
        shop.wait_for(lambda: len(shop.scores(settings, "fraud")) == 31)
    scores = {score["order_id"]: score for score in shop.scores(settings, "fraud")}
    assert set(scores) == {f"SO-{n}" for n in range(30)} | {"SO-99"}
    assert scores["SO-99"]["user_id"] == "anon:s99"
    assert scores["SO-0"]["event_time"] == 1_772_362_800_000


def test_events_lie_with_their_user_and_say_where_they_came_from(settings, orders):
    topic, path = orders
    produce(settings, topic, as_json(*(order(n) for n in range(20))))
    carry(settings, path, start="beginning")
    messages = raw(settings, settings.topics.orders)
    assert all(each.partition() == partition_for(each.key(), settings.partitions) for each in messages)
    sources = {dict(each.headers())["headrace-source"].decode() for each in messages}
    assert sources == {f"{topic}/{n % 3}/{n // 3}" for n in range(20)}
    ids = {each["event_id"] for each in shop.read(settings, settings.topics.orders, "order")}
    assert ids == sources


def test_poison_is_a_dead_letter_with_its_bytes_and_stops_nothing(settings, orders):
    topic, path = orders
    good = as_json(order(1))[0]
    poison = [
        b"\xff\xfe",
        b"{",
        b"[1]",
        None,
        *as_json(order(2, total={"minor": "x", "currency": "GBP"}), order(3, placed_at="yesterday")),
    ]
    deep = b'{"kind":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    produce(settings, topic, [*poison, deep, good], key=b"k")
    carried = carry(settings, path, start="beginning")
    assert (carried.published, carried.left_out) == (1, 1)
    assert carried.bad == Counter(undecodable=3, wrong_type=3)
    letters = shop.read(settings, settings.topics.deadletters, "dead_letter")
    assert {letter["value"] for letter in letters} == {each for each in [*poison, deep] if each is not None}
    assert {(letter["topic"], letter["key"]) for letter in letters} == {(topic, b"k")}
    assert any("amount, mapped from total.minor" in letter["message"] for letter in letters)


def test_a_mended_mapping_brings_dead_letters_home(settings, orders, tmp_path, logging_as_it_was):
    topic, path = orders
    produce(settings, topic, as_json(order(1, total={"minor": 5, "currency": "pounds"})))
    assert carry(settings, path, start="beginning").bad == Counter(out_of_range=1)
    Path(path).write_text(Path(path).read_text().replace('"total.currency"', '{ value = "GBP" }'))
    run = CliRunner().invoke(app, ["deadletters", "replay", "--all"], env=environment(settings), prog_name="headrace")
    assert run.exit_code == 0, run.output
    assert carry(settings, path).published == 1


def test_it_begins_with_what_comes_and_goes_on_where_it_was(settings, orders):
    topic, path = orders
    produce(settings, topic, as_json(order(1)))
    assert carry(settings, path).all == 0
    produce(settings, topic, as_json(order(2)))
    assert carry(settings, path).published == 1
    assert carry(settings, path).all == 0
    assert [each["order_id"] for each in shop.read(settings, settings.topics.orders, "order")] == ["SO-2"]


def test_kills_lose_and_repeat_nothing(settings, orders, tmp_path):
    topic, path = orders
    count, kills, log = 30_000, 3, tmp_path / "run.log"
    produce(settings, topic, as_json(*(order(n) for n in range(count))))
    for kill in range(kills):
        before = len(committed_ids(settings))
        with running(settings, path, "committed" if kill else "beginning", log) as process:
            shop.wait_for(lambda b=before: len(committed_ids(settings)) > b, 120, log.read_text)
            time.sleep(0.013 * kill)  # at another moment of a transaction
            process.kill()
    assert before < count
    carry(settings, path)
    ids = committed_ids(settings)
    assert len(ids) == len(set(ids)) == count


def committed_ids(settings):
    return [dict(each.headers())["headrace-source"] for each in raw(settings, settings.topics.orders)]


@contextmanager
def running(settings, path, start, log):
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams", "mapping", "run", path, "--start", start],
            env=environ | environment(settings), stdout=file, stderr=file,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_a_second_one_shuts_the_first_one_out(settings, orders):
    topic, path = orders
    with closing(ConfluentRegistry(settings.registry())) as known:
        first = Follower(settings, known, mapped_topic(settings, Mapper.of(settings, known, path)))
        ended: list[BaseException] = []

        def follow() -> None:
            try:
                first.run()
            except Fenced as error:
                ended.append(error)

        thread = threading.Thread(target=follow)
        thread.start()
        time.sleep(1)
        carry(settings, path)
        produce(settings, topic, as_json(order(1)))
        thread.join(30)
        assert ended


def test_avro_of_another_schema(settings, tmp_path):
    topic = make_topic(settings, f"{settings.app_id}.shop.views")
    path = write_mapping(tmp_path, mapped_shop.CLICKS, name="views", source=topic)
    with closing(ConfluentRegistry(settings.registry())) as known:
        schema_id = known.register(f"{topic}-value", mapped_shop.AVRO_SCHEMA)
    record = {"visitor": None, "at": 1_772_362_800_000, "page": {"product": 7, "what": "BASKET"}, "value": b"\x01\x00"}
    value = mapped_shop.framed(schema_id, mapped_shop.avro_body(record))
    produce(settings, topic, [value, value[:-3], mapped_shop.framed(999_999, b"x")], key=b"visit-1")
    carried = carry(settings, path, start="beginning")
    assert carried.bad == Counter(truncated=1, unknown_schema=1)
    (click,) = shop.read(settings, settings.topics.clicks, "click")
    assert (click["user_id"], click["action"], click["item_id"]) == ("anon:visit-1", "cart", "item-7")
    assert (click["event_time"], click["attributes"]) == (1_772_362_800_000, {"worth": 2.56})


@pytest.mark.parametrize("framing", ["none", "single_object"])
def test_avro_that_no_registry_knows(settings, tmp_path, framing, logging_as_it_was):
    topic = make_topic(settings, f"{settings.app_id}.shop.views")
    (tmp_path / "pageview.avsc").write_text(json.dumps(mapped_shop.AVRO_SCHEMA))
    told = f'[avro]\nframing = "{framing}"\nschemas = "pageview.avsc"\n'
    path = write_mapping(tmp_path, mapped_shop.CLICKS + told, name="views", source=topic)
    record = {"visitor": "v1", "at": 1_772_362_800_000, "page": {"product": 7, "what": "BASKET"}, "value": b"\x01\x00"}
    head = b"" if framing == "none" else MARK + fingerprint(mapped_shop.AVRO_SCHEMA)
    value = head + mapped_shop.avro_body(record)
    produce(settings, topic, [value, value[:-3]])
    checked = CliRunner().invoke(app, ["mapping", "check", path, "--json"], env=environment(settings))
    assert checked.stdout, checked
    report = json.loads(checked.stdout)
    assert (checked.exit_code, report["good"], [reason["code"] for reason in report["reasons"]]) == (
        1,
        1,
        ["truncated"],
    )
    assert carry(settings, path, start="beginning").bad == Counter(truncated=1)
    (click,) = shop.read(settings, settings.topics.clicks, "click")
    assert (click["user_id"], click["action"], click["item_id"]) == ("v1", "cart", "item-7")
    assert (click["event_time"], click["attributes"]) == (1_772_362_800_000, {"worth": 2.56})


def test_history_of_a_topic_comes_first_and_the_mapping_goes_on_behind_it(settings, orders):
    topic, path = orders
    produce(settings, topic, as_json(*(order(n) for n in range(10))))
    assert carry(settings, path, history=True).published == 10
    produce(settings, topic, as_json(order(10)))
    assert carry(settings, path).published == 1
    marks = Counter("headrace-history" in dict(each.headers()) for each in raw(settings, settings.topics.orders))
    assert marks == {True: 10, False: 1}
    with pytest.raises(SettingsError, match="followed already"):
        carry(settings, path, history=True)
