"""Labels: what is known by a moment, and what a user went on to."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetune.labels import (
    AUTOMATED_WEIGHT,
    Labels,
    click_labels,
    click_weights,
    fraud_labels,
    next_items,
    shown_ads,
)
from streams.batch import KINDS
from streams.config import Settings
from streams.tasks import make_task
from tests.records import click, impression, order


def verdict(target: str, value: float, at: int, revision: int = 0):
    return {
        "label_id": f"{target} {at} {revision}", "task": "fraud", "name": "fraud", "target_id": target, "value": value,
        "observed_at": at, "revision": revision, "source": "analyst",
    }  # fmt: skip


def labelled(*records):
    labels = Labels()
    for record in records:
        labels.add("labels" if "revision" in record else "clicks", record)
    return labels


def test_the_newest_revision_counts_in_whatever_order_they_came():
    labels = labelled(
        verdict("o1", 1.0, 20, 1), verdict("o1", 0.0, 10), verdict("o2", 1.0, 10), verdict("o2", 0.0, 20, 1)
    )
    found = fraud_labels([order(order_id=name) for name in ("o1", "o2", "o3")], labels)
    assert found.tolist() == [1.0, 0.0, 0.0]


def test_a_chargeback_of_tomorrow_is_not_known_today():
    labels = labelled(verdict("o1", 0.0, 10), verdict("o1", 1.0, 20, 1))
    assert not labels.known_by(20).is_fraud("o1")
    assert labels.known_by(21).is_fraud("o1")


def test_the_bank_outranks_a_verdict_and_what_is_withdrawn_says_nothing():
    bank = verdict("o1", 1.0, 10) | {"source": "chargeback"}
    assert labelled(verdict("o1", 0.0, 20, 5), bank).is_fraud("o1")
    assert not labelled(verdict("o2", 1.0, 10), verdict("o2", 1.0, 20, 1) | {"withdrawn": True}).is_fraud("o2")


def test_clicks_that_look_automated_weigh_a_twentieth_in_a_first_training_as_in_the_learners():
    task = make_task("ctr")
    rows = np.zeros(2, task.features)
    rows["kind"][0] = KINDS["click"]
    rows["age"][0] = np.arange(64, 0, -1) // 2  # two clicks a second
    rows["kind"][1, -3:], rows["age"][1, -3:] = KINDS["view"], (900, 400, 60)
    events = [impression(event_id="i1"), impression(event_id="i2")]
    assert np.unique(click_weights(rows, events, Labels(), 3), axis=1).tolist() == [
        [np.float32(AUTOMATED_WEIGHT)],
        [1.0],
    ]
    assert Settings().learning.automated_weight == AUTOMATED_WEIGHT


def test_a_click_is_the_label_of_the_ad_that_it_names():
    labels = labelled(click(impression_id="i1", ad_id="ad-1", event_time=50), click())
    shown = [impression(event_id="i1"), impression(event_id="i2")]
    assert click_labels(shown, labels, 8).nonzero() == (np.array([0]), np.array([1]))
    assert not click_labels(shown, labels.known_by(50), 8).any()


def test_an_ad_out_of_view_does_not_count_as_shown():
    slate = [
        {"ad_id": "a", "position": 0, "bid": None, "shown": True},
        {"ad_id": "b", "position": 1, "bid": None, "shown": False},
    ]
    assert shown_ads([impression(slate=slate)], 4).tolist() == [[1, 0, 0, 0]]


def test_labels_of_other_tasks_are_left_alone():
    labels = Labels()
    labels.add("labels", verdict("o1", 1.0, 5) | {"task": "returns"})
    assert not labels.is_fraud("o1")


def test_a_sign_of_life_is_no_verdict():
    labels = Labels()
    labels.add("labels", verdict("", 0.0, 5) | {"name": "heartbeat"})
    assert not labels.verdicts


def following(clicks, window: int):
    """What `next_items` finds for clicks of (user, time, item)."""
    user, time, item = np.array(clicks, np.int64).reshape(-1, 3).T
    return next_items(user, time, item.astype(np.int32), window).tolist()


def test_the_next_item_is_the_users_next_other_one_in_the_window():
    clicks = [(1, 0, 5), (2, 1, 9), (1, 2, 5), (1, 3, 6), (2, 90, 8), (1, 4, 0), (1, 60, 7)]
    assert following(clicks, 50) == [6, 0, 6, 0, 0, 0, 0]
    assert following(clicks, 100) == [6, 8, 6, 7, 0, 7, 0]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=30), st.integers(0, 20))
def test_the_next_item_is_what_a_plain_search_finds(drawn, window):
    clicks = [(user, number, item) for number, (user, item) in enumerate(drawn)]
    expected = [
        next((i for u, t, i in clicks[n + 1 :] if u == user and i not in (0, item) and t - time <= window), 0)
        for n, (user, time, item) in enumerate(clicks)
    ]
    assert following(clicks, window) == expected
