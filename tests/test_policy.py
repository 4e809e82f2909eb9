"""Policies: what is refused when one is loaded, what fires, and what is decided by rules, money and thresholds."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadRecord, PolicyError
from streams.policy.costs import IN_ORDER, cheapest, expected
from streams.policy.decide import Policy
from streams.policy.document import Money, digest, parse
from streams.policy.facts import FACTS
from streams.policy.lists import LISTS, TYPES, Lists, key, parse_key
from streams.tasks.base import Verdict
from streams.tasks.fraud import COLUMN, FIELDS
from tests.records import NOON_MS, money
from tests.records import order as any_order

FIELDS_OF_NOTHING = np.zeros(len(FIELDS), np.float32)
MONEY = """
[money]
currency = "EUR"
rates = { USD = 0.5 }
chargeback_fee = 15.0
margin = 0.25
goodwill = 5.0
review_cost = 4.0
"""


def order(**over: Any) -> dict[str, Any]:
    return any_order(**{"currency": "EUR"} | over)


def rule(when: str, then: str = "review", name: str = "one", because: str = "") -> str:
    said = f'because = "{because}"\n' if because else ""
    return f"[[rules]]\nid = \"{name}\"\nwhen = '''{when}'''\nthen = \"{then}\"\n{said}"


def policy(text: str, lists: Lists | None = None) -> Policy:
    return Policy.parse(f'name = "shop"\n{text}', lists or Lists(), "here")


def fields(**known: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Columns by name, counts and money as they are (columns hold log1p)."""
    row = np.zeros(len(FIELDS), np.float32)
    for name, value in known.items():
        row[COLUMN[name]] = np.log1p(value) if name not in ("card_known", "foreign_card", "guest") else value
    return row


def decided(text: str, event: dict[str, Any] | None = None, probability: float = 0.1, **known: float) -> Verdict:
    return policy(text).decide(event or order(), probability, fields(**known))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nme = 1", r"nme: Extra inputs"),
        ("[thresholds]\nreview = 0.9\nblock = 0.5", "thresholds: review may not be above block"),
        ("[thresholds]\nreview = 2", r"thresholds\.review: .*less than or equal to 1"),
        (rule("true", "refuse"), r"rules\[1\]\.then: .*'approve'"),
        (rule("true") + rule("true"), "two rules with the id 'one'"),
        ("[money]\ncurrency = \"euro\"", r"money\.currency"),
        ("[money]\ncurrency = \"EUR\"\nreview_cost = -1", r"money\.review_cost: .*greater than or equal to 0"),
        ("[money]\ncurrency = \"EUR\"\nrates = { USD = 0 }", r"money\.rates\.USD"),
        ("x = [", "no TOML"),
        (rule("order.amout > 5.0"), r"rule one: line 1, column 6: undeclared reference to 'order\.amout'"),
        (rule("order.amount > 500"), r"no matching overload.*500\.0"),
        (rule('order.amount > "x"'), "no matching overload"),
        (rule("order.amount + 1.0"), "it is a double, and must be true or false"),
        (rule("order.amount >"), "Syntax error"),
        (rule("card.blocked && os.system('x')"), "undeclared reference"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_when_it_is_loaded_and_says_where(text: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        policy(text)


def test_every_bad_rule_is_named_at_once() -> None:
    with pytest.raises(PolicyError, match=r"rule one: .*; rule two: .*; at here; .*headrace policy facts"):
        policy(rule("nothing") + rule("order.lines", name="two"))


def test_a_document_that_is_too_large_is_refused() -> None:
    with pytest.raises(PolicyError, match="at most"):
        parse("#" * 300_000, "here")


def test_the_version_is_of_the_text_and_nothing_else() -> None:
    one, other = policy("# a"), policy("# b")
    assert one.version == "shop@" + digest('name = "shop"\n# a')[:12]
    assert one.version != other.version


@pytest.mark.parametrize("name", sorted(FACTS))
def test_every_fact_has_the_type_that_it_says_and_can_be_read_of_any_order(name: str) -> None:
    kinds = {"bool": f"{name} == true || {name} == false", "string": f"size({name}) >= 0", "int": f"{name} >= 0",
             "double": f"{name} >= -1.0", "map(string, dyn)": f"size({name}) >= 0"}  # fmt: skip
    when = kinds.get(FACTS[name].type, f"{name}.all(line, line.quantity >= 1)")
    for event in (order(), order(country=None, email=None, ip=None, device_id=None, attributes={"vpn": True})):
        assert decided(rule(when), event).rules == ("one",), name


@pytest.mark.parametrize(
    ("when", "known"),
    [
        ("user.orders_1h >= 3", {"orders_1h": 3}),
        ("user.amount_24h > 999.0 && user.amount_24h < 1001.0", {"amount_24h": 1000}),
        ("card.users == 4 && card.frauds == 1", {"card_users": 4, "card_frauds": 1}),
        ("order.foreign_card && !user.guest", {"foreign_card": 1}),
        ("card.given && !card.known", {"card_known": 0}),
        ("!card.given", {"card_known": -1}),
        ("score > 0.09 && score < 0.11", {}),
    ],
)
def test_rules_read_the_features_in_the_units_that_people_use(when: str, known: dict[str, Any]) -> None:
    assert decided(rule(when), **known).decision == "review"
    assert decided(rule(f"!({when})"), **known).decision == "approve"


def test_rules_read_the_order_as_it_came() -> None:
    event = order(
        amount=money(120), currency="EUR", country="FR", event_time=NOON_MS,
        items=[{"item_id": "phone", "quantity": 2, "unit_price": money(60), "request_id": None}],
        attributes={"vpn": True, "age": 31.5, "note": "x", "none": None},
    )  # fmt: skip
    for when in (
        'order.amount == 120.0 && order.currency == "EUR" && order.country in ["FR", "BE"]',
        'order.items.exists(line, line.item_id == "phone" && line.unit_price == 60.0)',
        'attributes.vpn == true && attributes["age"] > 30.0 && !("missing" in attributes)',
        "order.hour == 22 && order.weekday == 1 && order.lines == 1 && order.quantity == 2",
        'user.id.startsWith("u")',
    ):
        assert decided(rule(when), event).rules == ("one",), when


def test_the_first_rule_that_is_no_note_decides_and_all_that_fired_are_told() -> None:
    text = (
        rule("true", "note", "seen") + rule("false", "block", "never") + rule("true", "approve", "trusted")
        + rule("true", "block", "after", "late to the party")
    )  # fmt: skip
    found = decided(text, probability=0.99)
    assert (found.decision, found.decided_by) == ("approve", "trusted")
    assert found.rules == ("seen", "trusted", "after")
    assert found.because == ("rule seen", "rule trusted", "late to the party")


def test_a_rule_that_cannot_judge_an_order_does_not_fire_and_is_counted_once() -> None:
    made = policy(rule('attributes["risk"] == 1.0', "block"))
    assert made.decide(order(), 0.1, fields()).decision == "approve"
    assert made.decide(order(attributes={"risk": 1.0}), 0.1, fields()).decision == "block"
    assert made.take_failures() == {"one": 1}
    assert made.take_failures() == {}


def test_a_rule_that_would_run_for_long_is_cut_off() -> None:
    numbers = str(list(range(60)))
    when = f"{numbers}.all(a, {numbers}.all(b, {numbers}.all(c, {numbers}.all(d, a + b + c + d >= 0))))"
    made = policy(rule(when, "block"))
    assert made.decide(order(), 0.1, fields()).decision == "approve"
    assert made.take_failures() == {"one": 1}


def test_without_money_the_thresholds_decide() -> None:
    text = "[thresholds]\nreview = 0.3\nblock = 0.6"
    assert [decided(text, probability=p).decision for p in (0.29, 0.3, 0.59, 0.6)] == [
        "approve", "review", "review", "block",
    ]  # fmt: skip
    assert decided(text).expected_loss is None


def test_money_approves_what_is_cheap_to_lose_reviews_between_and_blocks_what_is_dear() -> None:
    cheap, dear = order(amount=money(5)), order(amount=money(1_000))
    assert decided(MONEY, cheap, 0.05).decision == "approve"
    assert decided(MONEY, dear, 0.05).decision == "review"
    assert decided(MONEY, dear, 0.9).decision == "block"
    assert decided(MONEY, dear, 0.05).expected_loss == pytest.approx(0.05 * 1_015)


def test_an_order_in_another_currency_counts_at_its_rate_and_without_one_the_thresholds_decide() -> None:
    assert decided(MONEY, order(currency="USD", amount=money(200)), 0.1).expected_loss == pytest.approx(0.1 * 115)
    unknown = decided(MONEY, order(currency="JPY", amount=money(10_000)), 0.55)
    assert (unknown.decision, unknown.expected_loss) == ("review", None)


@given(st.floats(0, 1), st.floats(0, 1e6), st.floats(0, 1e3), st.floats(0, 1))
def test_what_is_decided_costs_no_more_than_anything_else(p: float, amount: float, price: float, margin: float) -> None:
    costs = expected(p, amount, Money(currency="EUR", review_price=price, margin=margin))
    assert costs[cheapest(costs)] == min(costs.values())
    assert all(cost >= 0 for cost in costs.values())


def test_of_equal_costs_the_customer_is_troubled_least() -> None:
    assert cheapest(dict.fromkeys(IN_ORDER, 1.0)) == "approve"
    assert cheapest({"approve": 2.0, "review": 1.0, "block": 1.0}) == "review"


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_probability_is_never_treated_more_kindly(one: float, other: float) -> None:
    low, high = sorted((one, other))
    places = [IN_ORDER.index(decided(MONEY, order(amount=money(300)), p).decision) for p in (low, high)]
    assert places[0] <= places[1]


def entry(until: int | None = None) -> dict[str, Any]:
    return {"until": until, "reason": "chargeback"}


def test_lists_are_read_by_user_and_by_each_entity_until_they_end_in_event_time() -> None:
    lists = Lists()
    event = order(event_time=NOON_MS)
    made = policy(
        rule("card.blocked", "block", "card")
        + rule("user.watched", "note", "user")
        + rule("any.allowed", "note", "any"),
        lists,
    )
    assert made.decide(event, 0.1, fields()).rules == ()
    lists.put("block", "card", event["payment"]["instrument"], entry(NOON_MS + 1))
    lists.put("watch", "user", event["user_id"], entry())
    lists.put("allow", "email", event["email"], entry())
    assert made.decide(event, 0.1, fields()).rules == ("card", "user", "any")
    later = {**event, "event_time": NOON_MS + 1}
    assert made.decide(later, 0.1, fields()).rules == ("user", "any")


@given(st.sampled_from(LISTS), st.sampled_from(TYPES), st.text(min_size=1))
def test_a_lists_key_says_what_is_on_it_whatever_the_token_is(name: str, kind: str, token: str) -> None:
    assert parse_key(key(name, kind, token)) == (name, kind, token)


@pytest.mark.parametrize("text", ["block", "deny/card:1", "block/iban:1", "block/card:", "block/card"])
def test_another_key_is_a_bad_record(text: str) -> None:
    with pytest.raises(BadRecord, match="LIST/TYPE:TOKEN"):
        parse_key(text)


def test_an_amount_is_what_the_contract_says() -> None:
    assert decided(rule("order.amount == 12.3456"), order(amount=money(12.3456))).rules == ("one",)
