"""What a recorded stream says of clicks on ads: bought, not bought, or nothing yet; and what is learned from it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.conversion_head import IDS
from finetune.conversion_fit import LEAST, ad_effects, enough
from finetune.conversions import Conversions
from finetune.labels import Labels, conversion_labels
from streams.labels.derive import CONVERSION_WINDOW_MS, MAX_AD_CLICKS
from tests.records import NOON_MS, click, impression, line, order

HOUR, WINDOW = 3_600_000, CONVERSION_WINDOW_MS
ADVERTISED = {"a1": "i1", "a2": "i2", "again": "i1"}
LATER = NOON_MS + 30 * 24 * HOUR


def on(impression_id: str, ad: str = "a1", at: int = 0, **over: Any) -> tuple[str, dict[str, Any]]:
    return "clicks", click(event_time=NOON_MS + at, impression_id=impression_id, ad_id=ad, action="click", **over)


def bought(item: str = "i1", at: int = HOUR, **over: Any) -> tuple[str, dict[str, Any]]:
    return "orders", order(event_time=NOON_MS + at, items=[line(item_id=item)], **over)


def told(*stream: tuple[str, dict[str, Any]]) -> Conversions:
    labels = Labels()
    for topic, record in sorted(stream, key=lambda each: (each[1]["event_time"], each[0])):
        labels.add(topic, record, ADVERTISED)
    return labels.conversions


def test_a_click_is_bought_when_its_item_is_ordered_within_seven_days() -> None:
    found = told(on("m1"), bought(), on("m2", "a2"), bought("i2", WINDOW + 1))
    assert found.told(("m1", "a1"), LATER) is True
    assert found.told(("m2", "a2"), LATER) is False


def test_nothing_is_known_of_a_click_before_its_seven_days_are_over_not_even_of_one_that_was_bought() -> None:
    found = told(on("m1"), bought(), on("m2", "a2"))
    for pair in (("m1", "a1"), ("m2", "a2")):
        assert found.told(pair, NOON_MS + WINDOW - 1) is None
        assert found.told(pair, NOON_MS + WINDOW) is not None
    assert found.told(("m3", "a1"), LATER) is None


def test_an_ad_of_no_known_item_can_earn_nothing_and_is_no_negative() -> None:
    assert told(on("m1", "of nothing")).told(("m1", "of nothing"), LATER) is None


def test_the_last_click_is_credited_and_the_ones_before_it_say_nothing() -> None:
    found = told(on("m1"), on("m2", "again", at=HOUR), bought(at=2 * HOUR), on("m3", at=3 * HOUR))
    assert found.told(("m1", "a1"), LATER) is None
    assert found.told(("m2", "again"), LATER) is True
    assert found.told(("m3", "a1"), LATER) is False


def test_a_click_that_was_followed_by_another_and_never_bought_is_a_negative() -> None:
    found = told(on("m1"), on("m2", at=HOUR))
    assert found.told(("m1", "a1"), LATER) is found.told(("m2", "a1"), LATER) is False


def test_a_click_that_newer_ones_push_out_is_no_negative_unless_it_was_bought_before() -> None:
    newer = [on(f"n{number}", "a2", at=2 * HOUR + number) for number in range(MAX_AD_CLICKS)]
    assert told(on("m1"), *newer).told(("m1", "a1"), LATER) is None
    assert told(on("m1"), *newer[1:]).told(("m1", "a1"), LATER) is False
    assert told(on("m1"), bought(), *newer).told(("m1", "a1"), LATER) is True
    aged = [on(f"n{number}", "a2", at=WINDOW + HOUR + number) for number in range(MAX_AD_CLICKS)]
    assert told(on("m1"), *aged).told(("m1", "a1"), LATER) is False


def test_orders_of_other_users_count_for_nothing() -> None:
    assert told(on("m1"), bought(user_id="somebody else")).told(("m1", "a1"), LATER) is False


STREAMS = st.lists(
    st.one_of(
        st.builds(
            on, st.sampled_from(["m1", "m2", "m3"]), st.sampled_from([*ADVERTISED, "of nothing"]),
            st.integers(0, 2 * WINDOW),
        ),
        st.builds(bought, st.sampled_from(["i1", "i2"]), st.integers(0, 2 * WINDOW)),
    ),
    max_size=25,
)  # fmt: skip


@given(STREAMS, st.integers(0, 3 * WINDOW))
def test_what_is_known_by_a_moment_is_what_a_stream_says_that_ends_there(stream: list[Any], at: int) -> None:
    moment = NOON_MS + at
    early = [(topic, record) for topic, record in stream if record["event_time"] < moment]
    whole, cut = told(*stream).known_by(moment), told(*early)
    clicked = {(record["impression_id"], record["ad_id"]) for topic, record in early if topic == "clicks"}
    once = [pair for pair in clicked if clicks_of(stream, pair) == 1]  # of one clicked later too, the later days count
    assert [whole.told(pair, moment) for pair in once] == [cut.told(pair, moment) for pair in once]


def clicks_of(stream: list[Any], pair: tuple[str, str]) -> int:
    return sum(topic == "clicks" and (record["impression_id"], record["ad_id"]) == pair for topic, record in stream)


@given(STREAMS)
def test_whoever_is_not_bought_has_an_item_that_was_not_ordered_for_seven_days(stream: list[Any]) -> None:
    found = told(*stream)
    ordered = [
        (record["items"][0]["item_id"], record["event_time"]) for topic, record in stream if topic == "orders"
    ]  # fmt: skip
    for topic, record in stream:
        pair = record.get("impression_id"), record.get("ad_id")
        if topic == "clicks" and found.told(pair, LATER) is False:
            item, time = ADVERTISED[record["ad_id"]], record["event_time"]
            assert not any(what == item and time <= when <= time + WINDOW for what, when in ordered)


def test_labels_stand_where_the_ads_of_the_slate_do() -> None:
    labels = Labels()
    for topic, record in (on("m1"), on("m1", "a2", at=1), bought()):
        labels.add(topic, record, ADVERTISED)
    ads = [{"ad_id": ad, "position": 1, "bid": None, "shown": True} for ad in ("a2", "again", "a1")]
    found, known = conversion_labels([impression(event_id="m1", slate=ads)], labels, 4, LATER)
    assert found.tolist() == [[0, 0, 1, 0]]
    assert known.tolist() == [[1, 0, 1, 0]]


# -- what is learned from it


@pytest.mark.parametrize(("yes", "no", "fine"), [(LEAST, LEAST, True), (LEAST - 1, 9999, False), (9999, 0, False)])
def test_a_head_needs_enough_of_both_kinds(yes: int, no: int, fine: bool) -> None:
    assert enough(np.repeat([True, False], [yes, no])) == fine


def test_ads_that_sell_alike_keep_no_effect_and_ads_that_differ_keep_most_of_it() -> None:
    draw, ad = np.random.default_rng(0), np.repeat(np.arange(200), 200)
    due = np.full(len(ad), 0.05)
    alike = ad_effects(ad, 1.0 * (draw.random(len(ad)) < 0.05), due)
    assert np.abs(alike).max() < 0.1
    true = draw.normal(0, 0.7, 200)
    apart = ad_effects(ad, 1.0 * (draw.random(len(ad)) < 0.05 * np.exp(true)[ad]), due)[:200]
    assert np.corrcoef(apart, true)[0, 1] > 0.7
    assert 0.5 < apart.std() / true.std() < 1.1


def test_an_ad_that_was_never_clicked_has_no_effect() -> None:
    found = ad_effects(np.array([3, 3, 5]), np.array([1.0, 1.0, 0.0]), np.full(3, 0.1))
    assert found.shape == (IDS,)
    assert set(np.flatnonzero(found).tolist()) <= {3, 5}
