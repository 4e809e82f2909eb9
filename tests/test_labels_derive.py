"""Labels that follow from events: what a click or an order answers, and what was bought after an ad."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import StateError
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.labels import rows
from streams.labels.derive import (
    CONVERSION_WINDOW_MS,
    MAX_AD_CLICKS,
    AdClick,
    conversions,
    heartbeat,
    of_click,
    of_order,
    pack_clicks,
    remember,
    unpack_clicks,
)
from streams.labels.rules import Rule
from streams.tasks import make_task
from tests.records import NOON_MS, click, impression, line, order

AD_CLICK = {"action": "click", "impression_id": "event-1", "ad_id": "ad-2"}
ANSWER = {"request_id": "c7", "item_id": "item-3", "position": 0}


def about(labels: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(one["task"], one["target_id"], one["candidate_id"], one["name"], one["value"]) for one in labels]


def test_a_click_that_names_its_impression_labels_the_ad() -> None:
    (one,) = of_click(click(**AD_CLICK, event_time=NOON_MS + 5))
    assert about([one]) == [("ctr", "event-1", "ad-2", "click", 1.0)]
    assert (one["source"], one["observed_at"], one["revision"]) == ("derived", NOON_MS + 5, 0)


def test_the_target_is_the_one_that_the_impression_was_served_under() -> None:
    (one,) = of_click(click(**AD_CLICK))
    assert one["target_id"] == make_task("ctr").target(impression(request_id="another id"))


@pytest.mark.parametrize("action", ["view", "click", "cart", "wish"])
def test_a_click_that_answers_a_recommendation_labels_the_item(action: str) -> None:
    labels = of_click(click(**ANSWER, action=action))
    assert about(labels) == [("recommendations", "c7", "item-3", "click", 1.0)]
    assert labels[0]["target_id"] == make_task("recommendations").target(click(event_id="c7"))


def test_a_click_may_answer_both() -> None:
    assert [one["task"] for one in of_click(click(**AD_CLICK, **ANSWER))] == ["ctr", "recommendations"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"impression_id": "event-1"},
        {"ad_id": "ad-2"},
        {"request_id": "c7", "item_id": None, "action": "search"},
        {"request_id": "c7", "action": "uncart"},
        {"request_id": "c7", "action": "unknown"},
    ],
)
def test_a_click_that_answers_nothing_is_no_label(fields: dict[str, Any]) -> None:
    assert of_click(click(**fields)) == []


def test_an_order_labels_each_recommended_item_once() -> None:
    lines = [
        line(item_id="a", request_id="c1"), line(item_id="a", request_id="c1", quantity=2),
        line(item_id="b", request_id="c2"), line(item_id="c"),
    ]  # fmt: skip
    assert about(of_order(order(items=lines))) == [
        ("recommendations", "c1", "a", "purchase", 1.0),
        ("recommendations", "c2", "b", "purchase", 1.0),
    ]


def test_labels_of_one_thing_have_one_id_and_of_two_things_two() -> None:
    first, again = of_click(click(**AD_CLICK)), of_click(click(**AD_CLICK, event_id="another", event_time=NOON_MS + 9))
    assert first[0]["label_id"] == again[0]["label_id"]
    others = [
        *of_click(click(impression_id="event-1", ad_id="ad-3")),
        *of_click(click(impression_id="event-2", ad_id="ad-2")),
        *of_click(click(request_id="event-1", item_id="ad-2")),
        *of_order(order(items=[line(request_id="event-1", item_id="ad-2")])),
    ]
    assert len({one["label_id"] for one in [*first, *others]}) == 5


def test_labels_fit_their_contract_and_the_rules_of_their_task() -> None:
    registry = MemoryRegistry()
    encode, decode = Encoder(registry, "events.labels", "label"), Decoder(registry, "label")
    clicks = remember((), click(**AD_CLICK), {"ad-2": "item-1"})
    labels = [
        *of_click(click(**AD_CLICK, **ANSWER)), *of_order(order(items=[line(request_id="c1")])),
        *conversions(order(), clicks), heartbeat("ctr", "derived", NOON_MS),
    ]  # fmt: skip
    assert [decode(encode(one)) for one in labels] == labels
    for one in labels[:-1]:
        Rule.of(make_task(one["task"])).check(one, NOON_MS)


# -- conversions ---------------------------------------------------------------------------------------------

HOUR = 3_600_000


def ad_click(time: int, impression_id: str = "i1", ad: str = "ad-1") -> dict[str, Any]:
    return click(event_time=NOON_MS + time, impression_id=impression_id, ad_id=ad, action="click")


def test_an_order_of_what_a_clicked_ad_advertises_is_its_conversion() -> None:
    clicks = remember((), ad_click(0), {"ad-1": "item-1"})
    labels = conversions(order(event_time=NOON_MS + HOUR), clicks)
    assert about(labels) == [("ctr", "i1", "ad-1", "conversion", 1.0)]
    assert labels[0]["observed_at"] == NOON_MS + HOUR


@pytest.mark.parametrize(
    ("time", "item", "converts"),
    [
        (0, "item-1", True),
        (CONVERSION_WINDOW_MS, "item-1", True),
        (CONVERSION_WINDOW_MS + 1, "item-1", False),
        (-1, "item-1", False),
        (HOUR, "item-2", False),
    ],
)
def test_a_conversion_is_within_the_window_after_the_click(time: int, item: str, converts: bool) -> None:
    clicks = remember((), ad_click(0), {"ad-1": "item-1"})
    assert bool(conversions(order(event_time=NOON_MS + time, items=[line(item_id=item)]), clicks)) == converts


def test_the_last_click_before_the_order_is_credited() -> None:
    advertised = {"ad-1": "item-1", "ad-2": "item-1"}
    clicks = remember(remember((), ad_click(0), advertised), ad_click(HOUR, "i2", "ad-2"), advertised)
    clicks = remember(clicks, ad_click(3 * HOUR, "i3"), advertised)
    labels = conversions(order(event_time=NOON_MS + 2 * HOUR, items=[line(), line()]), clicks)
    assert about(labels) == [("ctr", "i2", "ad-2", "conversion", 1.0)]


@pytest.mark.parametrize("other", [click(), ad_click(0, ad="ad-9"), click(ad_id="ad-1")])
def test_clicks_on_no_ad_of_a_known_item_are_not_remembered(other: dict[str, Any]) -> None:
    assert remember((), other, {"ad-1": "item-1"}) == ()


clicks_of_a_user = st.lists(
    st.builds(ad_click, st.integers(0, 2 * CONVERSION_WINDOW_MS), st.sampled_from("ijk"), st.just("ad-1")), max_size=40
)


@given(clicks_of_a_user, st.randoms())
def test_what_is_remembered_is_a_bounded_function_of_the_set_of_clicks(some: list[Any], random: Any) -> None:
    def remembered(those: list[Any]) -> tuple[AdClick, ...]:
        clicks: tuple[AdClick, ...] = ()
        for one in those:
            clicks = remember(clicks, one, {"ad-1": "item-1"})
        return clicks

    shuffled = [*some, *some[:3]]
    random.shuffle(shuffled)
    assert remembered(some) == remembered(shuffled)
    assert len(remembered(some)) <= MAX_AD_CLICKS
    if some:
        newest = max(one["event_time"] for one in some)
        assert remembered(some)[-1].time == newest
        assert all(newest - one.time <= CONVERSION_WINDOW_MS for one in remembered(some))


def test_a_users_ad_clicks_are_a_row_that_is_due_when_the_last_is_over() -> None:
    clicks = remember((), ad_click(0), {"ad-1": "item-é"})
    row = pack_clicks(clicks)
    assert unpack_clicks(row) == clicks
    assert unpack_clicks(None) == ()
    place = rows.due_key(rows.row_key("ad_clicks", "ann"), row)
    assert place.startswith(rows.timeline(rows.FORGET, "ad_clicks"))
    assert (NOON_MS + CONVERSION_WINDOW_MS).to_bytes(8, "big") in place


def test_a_row_that_is_no_note_is_refused() -> None:
    with pytest.raises(StateError, match="no note"):
        unpack_clicks(rows.Entry(rows.WAITING, 5).pack())


def test_no_conversion_that_is_derived_comes_too_late_for_the_join() -> None:
    rule = Rule.of(make_task("ctr"))
    assert rule.limit_ms("conversion") >= rule.limit_ms("click") + CONVERSION_WINDOW_MS
