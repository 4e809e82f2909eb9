"""The published past and what is drawn from it: facts hold only what came before."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.sources import risk
from streams.sources.advertising import SLATE, Appeal, make_ads, slates
from streams.sources.book import HOUR_MS, Book, OrderFacts, Shopper
from streams.sources.draws import Draws
from streams.sources.outcomes import fraud_labels
from streams.sources.people import Card, Checkout, Device, Population, households
from streams.sources.shop import Items
from streams.sources.taxonomy import CATEGORIES, STYLES, classify

NOON = 1_320_000_000_000
TEXTS = [
    "RED RETROSPOT MUG",
    "CHRISTMAS BAUBLE",
    "PAPER LANTERN",
    "WOODEN BOX",
    "ROSE CUSHION",
    "SOMETHING ELSE",
]


def paid(card: str = "card-1", device: str = "dev-1", address: str = "home-1", ip: str = "ip-1") -> Checkout:
    return Checkout("card", Card(card, "400001", "GB"), "mail-1", "home-1", address, ip, Device(device, "mobile"))


def facts(book: Book, user: int = 1, time: int = NOON, amount: float = 50.0, **tokens: str) -> OrderFacts:
    return book.facts(user, time, amount, {1: 1.0}, paid(**tokens), "GB")


@pytest.fixture
def book() -> Book:
    return Book(len(CATEGORIES), len(STYLES))


@pytest.fixture
def items() -> Items:
    category, style = classify(TEXTS)
    return Items([str(n) for n in range(len(TEXTS))], TEXTS, category, style, np.full(len(TEXTS), 10_000))


def test_a_first_order_has_no_past(book: Book) -> None:
    first = facts(book)
    assert (first.earlier_orders, first.orders_last_hour, first.device_users) == (0, 0, 0)
    assert not any((first.new_card, first.new_device, first.new_address, first.new_ip))
    assert first.taste_mismatch == 1.0


def test_a_token_is_new_until_its_user_has_used_it(book: Book) -> None:
    book.order(1, NOON - HOUR_MS // 2, 25.0, paid())
    assert not facts(book).new_card
    second = facts(book, card="card-2", device="dev-2")
    assert (second.new_card, second.new_device, second.new_address) == (True, True, False)
    assert second.orders_last_hour == 1
    assert second.amount_log_ratio == pytest.approx(math.log(2))


def test_only_other_users_of_a_device_count(book: Book) -> None:
    for user in (1, 1, 2, 3):
        book.order(user, NOON - HOUR_MS, 20.0, paid())
    assert facts(book, user=1).device_users == 2
    assert facts(book, user=9).device_users == 3
    assert facts(book, user=9, device="dev-9").device_users == 0


def test_an_order_within_the_tastes_of_its_user_is_no_mismatch(book: Book) -> None:
    book.shopper(1).touch(0, 1, 0, 1.0)
    assert facts(book).taste_mismatch == pytest.approx(0.0)
    book.shopper(2).touch(0, 2, 0, 1.0)
    assert facts(book, user=2).taste_mismatch == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.1, 2)), min_size=1, max_size=60), st.integers(1, 60))
def test_interest_is_the_same_whenever_its_scale_is_renewed(touches: list[tuple[int, float]], when: int) -> None:
    plain, renewed = Shopper(6, 2), Shopper(6, 2)
    for number, (category, weight) in enumerate(touches):
        plain.touch(0, category, 0, weight)
        if number % when == 0:
            renewed.gain *= 1e99
            renewed.categories = [value * 1e99 for value in renewed.categories]
            renewed.styles = [value * 1e99 for value in renewed.styles]
            renewed.interest *= 1e99
        renewed.touch(0, category, 0, weight)
    shares = [[value / shopper.interest for value in shopper.categories] for shopper in (plain, renewed)]
    assert shares[0] == pytest.approx(shares[1])


ANY_FACTS = st.builds(
    OrderFacts,
    amount=st.floats(0.01, 1e6),
    earlier_orders=st.integers(0, 1000),
    orders_last_hour=st.integers(0, 20),
    days_since_first_order=st.floats(0, 1000),
    amount_log_ratio=st.floats(-12, 12),
    new_card=st.booleans(),
    new_device=st.booleans(),
    new_address=st.booleans(),
    new_ip=st.booleans(),
    device_users=st.integers(0, 1000),
    address_users=st.integers(0, 1000),
    clicks_last_half_hour=st.integers(0, 20),
    taste_mismatch=st.floats(0, 1),
    foreign_card=st.booleans(),
    ships_elsewhere=st.booleans(),
    refunds=st.integers(0, 6),
)


@given(ANY_FACTS, st.booleans(), st.integers(0, 100))
def test_any_facts_have_a_probability_of_fraud(order: OrderFacts, new_kind: bool, seed: int) -> None:
    draws = Draws(np.random.default_rng(seed))
    chance, kind, cause, new = risk.outcome(order, draws, new_kind=new_kind)
    assert 0 <= new <= chance < 1
    assert chance > 0
    assert new_kind or new == 0
    assert kind in ("", risk.OPPORTUNIST, *risk.KINDS)
    assert new_kind or kind != risk.NEW_KIND
    assert cause in ("", *risk.CAUSES)
    assert kind or not cause


@given(ANY_FACTS)
def test_the_new_kind_of_fraud_only_ever_adds(order: OrderFacts) -> None:
    draws = Draws(np.random.default_rng(0))
    before, after = (risk.outcome(order, draws, new_kind=begun)[0] for begun in (False, True))
    assert after >= before


def test_a_slate_shows_only_ads_that_have_started(items: Items) -> None:
    rng = np.random.default_rng(1)
    ads = make_ads(items, np.ones(len(TEXTS), np.int64), len(TEXTS), NOON, NOON + HOUR_MS, rng)
    assert ads.starts.max() > NOON
    picked = slates(ads, np.full(500, NOON), np.zeros(500, np.int16), rng)
    assert picked.shape == (500, SLATE)
    assert (ads.starts[picked] <= NOON).all()


def test_an_ad_is_likelier_clicked_at_the_top_and_where_its_item_was_seen(items: Items) -> None:
    ads = make_ads(items, np.ones(len(TEXTS), np.int64), len(TEXTS), NOON, NOON + 1, np.random.default_rng(1))
    appeal = Appeal(ads, items, 0.02, np.random.default_rng(2))
    shopper = Shopper(len(CATEGORIES), len(STYLES))
    top, below = appeal.probabilities(shopper, [0, 0], NOON, 0, -1)
    assert 0 < below < top < 1
    shopper.touch(ads.item[0], ads.category[0], ads.style[0], 1.0)
    assert appeal.probabilities(shopper, [0], NOON, 0, -1)[0] > top


def test_many_slates_in_a_row_tire_their_user(items: Items) -> None:
    ads = make_ads(items, np.ones(len(TEXTS), np.int64), len(TEXTS), NOON, NOON + 1, np.random.default_rng(1))
    appeal = Appeal(ads, items, 0.02, np.random.default_rng(2))
    shopper = Shopper(len(CATEGORIES), len(STYLES))
    fresh = appeal.probabilities(shopper, [0], NOON, 0, -1)
    shopper.impressions.extend([NOON - 1000] * 5)
    assert appeal.probabilities(shopper, [0], NOON, 0, -1) < fresh


def test_families_share_a_home() -> None:
    draws = Draws(np.random.default_rng(3))
    hosts = households(200, 0.3, draws)
    people = Population(["GB"], hosts, draws)
    user = int(np.flatnonzero(hosts != np.arange(200))[0])
    assert people.person(user, "GB").address == people.person(int(hosts[user]), "GB").address


def test_users_keep_most_of_their_tokens_and_change_some() -> None:
    draws = Draws(np.random.default_rng(3))
    people = Population(["GB"], np.arange(50, dtype=np.int32), draws)
    for user in range(50):
        seen = [people.checkout(user, "GB") for _ in range(20)]
        assert len({checkout.device.token for checkout in seen}) < 10
    devices = {people.checkout(1, "GB").device.token for _ in range(300)}
    assert len(devices) > 1


def test_an_innocent_order_gets_a_verdict_or_nothing() -> None:
    draws = Draws(np.random.default_rng(5))
    labels = [label for _ in range(500) for label in fraud_labels("order-1", NOON, "", draws)]
    assert {(label["source"], label["value"]) for label in labels} == {("analyst", 0.0)}


def test_a_missed_fraud_is_revised_by_its_chargeback() -> None:
    draws = Draws(np.random.default_rng(5))
    for _ in range(3000):
        labels = fraud_labels("order-1", NOON, "bust_out", draws)
        assert labels[-1]["value"] == 1.0
        assert [label["revision"] for label in labels] == list(range(len(labels)))
        assert [label["observed_at"] for label in labels] == sorted(label["observed_at"] for label in labels)
