"""Replaying recorded events: rows as in serving, a choice of examples that never changes, and a border in time."""

import numpy as np
import pytest

from finetune.history import Links, catalogue_from, replay
from streams.sources.world import World, WorldConfig, milliseconds
from streams.tasks import make_task
from streams.vectors import HashingEncoder, catalogue_vectors
from tests.records import NOON_MS, click, impression, order

TASKS = ("recommendations", "fraud", "ctr")


@pytest.fixture(scope="module")
def catalog():
    items = [{"item_id": f"item-{n}", "text": f"thing {n}", "price": b"\x01", "available": True} for n in range(5)]
    ads = [{"ad_id": f"ad-{n}", "text": f"buy {n}", "active": True} for n in range(3)]
    return catalogue_from(items, ads, catalogue_vectors(items, ads, HashingEncoder()))


def events():
    """Forty clicks of two users, one a minute, then an order and an impression."""
    for n in range(40):
        record = click(event_id=f"c{n}", event_time=NOON_MS + n * 60_000, user_id=f"u{n % 2}", item_id=f"item-{n % 5}")
        yield "clicks", record
    yield "orders", order(event_id="o", event_time=NOON_MS + 3_000_000, user_id="u0")
    yield "impressions", impression(event_id="i", event_time=NOON_MS + 3_000_001, user_id="u1")


def replayed(catalog, keep=None):
    return replay(events(), [make_task(name) for name in TASKS], catalog, keep)


def test_every_event_of_a_topic_is_an_example_of_its_task(catalog):
    assert {name: len(each) for name, each in replayed(catalog).examples.items()} == {
        "recommendations": 40, "fraud": 1, "ctr": 1,
    }  # fmt: skip


def test_a_row_knows_only_what_its_user_did_before(catalog):
    rows = replayed(catalog).examples["recommendations"].rows
    assert (rows["kind"] > 0).sum(axis=1).tolist() == [n // 2 for n in range(40)]
    assert rows["now_item"].tolist() == [n % 5 + 1 for n in range(40)]


def test_a_sample_is_the_same_in_every_run_and_its_rows_are_those_of_the_whole(catalog):
    whole, some, again = (
        replayed(catalog, keep) for keep in (None, {"recommendations": 0.5}, {"recommendations": 0.5})
    )
    mine, other = some.examples["recommendations"], again.examples["recommendations"]
    assert 0 < len(mine) < 40
    assert mine.place.tolist() == other.place.tolist()
    assert mine.rows.tobytes() == whole.examples["recommendations"].rows[mine.place].tobytes()
    assert len(some.clicks.item) == 40


def test_a_repeated_event_is_no_second_example(catalog):
    twice = [next(events()), *events()]
    assert len(replay(twice, [make_task("recommendations")], catalog).clicks.time) == 40


def test_before_a_border_nothing_later_is_known(catalog):
    border = NOON_MS + 10 * 60_000
    whole = replayed(catalog)
    early = whole.before(border)
    assert early.clicks.time.max() < border
    assert [len(early.examples[name]) for name in TASKS] == [10, 0, 0]
    assert [len(whole.since(border)[name]) for name in TASKS] == [30, 1, 1]
    assert early.until == border


def test_no_events_make_no_examples(catalog):
    recording = replay([], [make_task("fraud")], catalog)
    assert len(recording.examples["fraud"]) == len(recording.clicks.time) == 0


def test_links_count_other_users_only_once_there_are_two():
    links = Links()
    tokens = np.array([[7, 0, 0, 0, 0]] * 4, np.uint64)
    counts = links.seen(tokens, ["a", "a", "b", "a"])
    assert counts[:, 0, 0].tolist() == [0, 0, 0, 2]
    assert not counts[:, 1:].any()
    assert not counts[..., 1].any()


def test_links_stop_counting_where_the_owner_does():
    links = Links()
    tokens = np.full((70, 5), 9, np.uint64)
    assert links.seen(tokens, [f"u{n}" for n in range(70)])[-1, 0, 0] == 64


def test_a_world_replays_to_equal_bytes():
    config = WorldConfig(start="2011-09-01", end="2011-09-04", shop="generated", orders_a_day=10, ads=20)

    def rows():
        world = World(config, 3)
        items, ads = world.catalog()
        catalog = catalogue_from(items, ads, catalogue_vectors(items, ads, HashingEncoder()))
        told = ((event.topic, event.record) for event in world.events())
        recording = replay(told, [make_task(name) for name in TASKS], catalog)
        assert recording.until <= milliseconds("2011-09-05")
        return b"".join(recording.examples[name].rows.tobytes() for name in TASKS)

    assert rows() == rows()
