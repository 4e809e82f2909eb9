"""A policy over a span of orders: what it would have decided, what that costs, and what keeps the budget of alerts."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from streams.policy.decide import Policy
from streams.policy.lists import Lists
from streams.policy.trial import DAY_MS, Decided, Trial, days, lowest_price, per_day
from tests.records import NOON_MS, money, order
from tests.test_policy import FIELDS_OF_NOTHING

DOCUMENT = """
name = "shop"
[money]
currency = "EUR"
chargeback_fee = 10.0
margin = 0.5
goodwill = 0.0
review_cost = 5.0
review_catches = 1.0
review_rejects = 0.0
[[rules]]
id = "tiny"
when = "order.amount < 2.0"
then = "block"
"""


def one(
    day: float = 0, p: float = 0.1, amount: float = 100, before: str = "approve", fraud: bool | None = None, **over: Any
) -> Decided:
    event = order(event_time=NOON_MS + round(day * DAY_MS), amount=money(amount), currency="EUR", **over)
    return Decided(event, p, FIELDS_OF_NOTHING, before, fraud)


def tried(orders: list[Decided], document: str = DOCUMENT) -> dict[str, Any]:
    trial = Trial(Policy.parse(document, Lists(), "here"))
    trial.add(orders[: len(orders) // 2])
    trial.add(orders[len(orders) // 2 :])
    return trial.report()


def test_decisions_are_counted_beside_those_that_were_taken() -> None:
    found = tried([one(p=0.001), one(p=0.2), one(p=0.99), one(p=0.2, before="review")])
    assert found["decisions"] == [
        {"approve": 3, "review": 1, "block": 0}, {"approve": 1, "review": 2, "block": 1},
    ]  # fmt: skip
    assert found["changed"] == {"approve->review": 1, "approve->block": 1}


def test_each_rule_says_what_it_fired_on_and_what_that_was() -> None:
    found = tried([one(amount=1, fraud=True), one(amount=1, fraud=False), one(amount=1), one(amount=5)])
    assert found["rules"]["tiny"] == {
        "fired": 3, "decided": 3, "frauds": 1, "good": 1, "alerts_per_day": 3.0, "saved": 11.0 - 0.5,
    }  # fmt: skip


def test_what_a_rule_saves_is_of_the_orders_that_it_decided() -> None:
    """A fraud of 1 approved costs 11, and blocked nothing; a good order of 1 that is blocked costs half of it."""
    orders = [one(day=d, amount=1, fraud=d == 0) for d in range(4)] + [one(day=4, p=0.99, amount=500, fraud=True)]
    found = tried(orders)
    assert found["rules"]["tiny"]["saved"] == 11.0 - 3 * 0.5
    assert found["rules"]["tiny"]["alerts_per_day"] == 1.0
    assert found["money"]["saved"] > found["rules"]["tiny"]["saved"]


def test_outcomes_are_of_labelled_orders_alone() -> None:
    found = tried([one(p=0.5, fraud=True), one(p=0.0, fraud=True), one(p=0.5, fraud=False), one(p=0.5)])
    assert found["labelled"] == 3
    assert found["outcomes"] == [
        {"caught": 0, "missed": 2, "false_positives": 0, "precision": None, "recall": 0.0},
        {"caught": 1, "missed": 1, "false_positives": 1, "precision": 0.5, "recall": 0.5},
    ]


def test_money_is_what_each_side_cost_once_the_outcome_is_known() -> None:
    """A fraud of 100 approved costs 110; reviewed, 5. A good order of 100 reviewed costs 5; blocked, 50."""
    found = tried([one(p=0.2, fraud=True), one(p=0.2, fraud=False), one(p=0.99, fraud=False, before="review")])
    assert found["money"] == {
        "currency": "EUR", "orders": 3, "cost": [110 + 0 + 5.0, 5 + 5 + 50.0], "cost_of_approving_all": 110.0,
        "saved": 55.0,
    }  # fmt: skip


def test_orders_without_a_rate_or_a_label_cost_nothing_here() -> None:
    foreign = one(p=0.2, fraud=True)
    found = tried([foreign._replace(event={**foreign.event, "currency": "JPY"}), one(p=0.2)])
    assert found["money"]["orders"] == 0


def test_alerts_a_day_are_the_mean_and_the_busiest_day() -> None:
    orders = [one(day=day / 10, p=0.5) for day in range(21)]
    assert tried(orders)["alerts_per_day"][1] == {"mean": 10.5, "most": 10}
    assert tried([one(p=0.5)])["alerts_per_day"][1] == {"mean": 1.0, "most": 1}


def test_a_budget_that_is_exceeded_comes_with_the_price_that_keeps_it() -> None:
    dice = np.random.default_rng(1)
    orders = [one(day=day, p=p) for day, p in zip(dice.uniform(0, 4, 400), dice.uniform(0, 0.3, 400), strict=True)]
    assert tried(orders, DOCUMENT + "[budget]\nalerts_per_day = 200")["budget"]["kept"]
    found = tried(orders, DOCUMENT + "[budget]\nalerts_per_day = 20")["budget"]
    assert not found["kept"]
    priced = DOCUMENT.replace("review_cost = 5.0", f"review_cost = 5.0\nreview_price = {found['review_price']}")
    again = tried(orders, priced + "[budget]\nalerts_per_day = 20")
    assert again["budget"]["kept"]
    assert again["alerts_per_day"][1]["mean"] > 15


def test_where_no_price_keeps_the_budget_that_is_said() -> None:
    found = tried([one(day=n / 10, p=0.999) for n in range(30)], DOCUMENT + "[budget]\nalerts_per_day = 1")
    assert found["budget"] == {"alerts_per_day": 1, "kept": False, "review_price": None}


@given(arrays(np.float64, (3, 30), elements=st.floats(0, 1e3)), st.integers(0, 30))
def test_the_price_is_enough_and_a_smaller_one_is_not(costs: np.ndarray[Any, Any], most: int) -> None:
    named = dict(zip(("approve", "review", "block"), costs, strict=True))

    def flagged(price: float) -> int:
        return int((costs[0] > np.minimum(costs[1] + price, costs[2])).sum())

    price = lowest_price(named, most)
    if price is None:
        assert flagged(1e6) > most
    else:
        assert flagged(price) <= most
        assert price < 1e-3 or flagged(price - 1e-3) > most or flagged(0.0) <= most


def test_a_span_is_a_day_at_least() -> None:
    time = np.array([NOON_MS, NOON_MS + 1])
    assert days(time) == 1.0
    assert days(np.array([], np.int64)) == 1.0
    assert per_day(time, np.array([0, 0])) == {"mean": 0.0, "most": 0}


def test_a_span_without_orders_reports_none() -> None:
    assert tried([])["orders"] == 0


@pytest.mark.parametrize("before", ["approve", "review", "block"])
def test_the_report_is_of_plain_values(before: str) -> None:
    import json

    assert json.loads(json.dumps(tried([one(before=before, fraud=True)])))["orders"] == 1
