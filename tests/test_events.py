import numpy as np
import pytest

from schemas.errors import BadRecord
from streams.batch import CLICKS, IMPRESSIONS, KINDS, ORDERS
from streams.catalog import Catalogue
from streams.events import ENTRY_LINES, EVENT_TYPES, check, entity_token, event_batch
from tests.records import NOON_MS, click, impression, line, money, order

GOOD = [(CLICKS, click()), (ORDERS, order()), (IMPRESSIONS, impression())]


@pytest.mark.parametrize(("topic", "record"), GOOD)
def test_a_plain_event_passes_its_checks(topic, record):
    check(record, EVENT_TYPES[topic], NOON_MS)


@pytest.mark.parametrize(
    ("topic", "record", "field"),
    [
        (CLICKS, click(user_id=""), "user_id"),
        (CLICKS, click(event_id="x" * 257), "event_id"),
        (CLICKS, click(event_time=NOON_MS // 1000), "event_time"),
        (CLICKS, click(event_time=NOON_MS + 2 * 86_400_000), "event_time"),
        (CLICKS, click(position=-1), "position"),
        (CLICKS, click(attributes={str(n): 1.0 for n in range(257)}), "attributes"),
        (ORDERS, order(order_id=""), "order_id"),
        (ORDERS, order(items=[]), "items"),
        (ORDERS, order(items=[line(), line(quantity=0)]), "items[1]"),
        (ORDERS, order(items=[line(unit_price=money(-1))]), "items[0]"),
        (ORDERS, order(amount=money(-0.01)), "amount"),
        (ORDERS, order(currency="POUND"), "currency"),
        (IMPRESSIONS, impression(slate=[]), "slate"),
        (IMPRESSIONS, impression(request_id=""), "request_id"),
    ],
)
def test_a_value_that_no_shop_can_mean_is_named_with_what_was_expected(topic, record, field):
    with pytest.raises(BadRecord) as caught:
        check(record, EVENT_TYPES[topic], NOON_MS)
    assert caught.value.code == "out_of_range"
    assert caught.value.where == field
    assert caught.value.expected


def test_an_order_enters_the_history_as_itself_and_then_its_lines():
    batch = event_batch([order(items=[line(quantity=2), line(item_id="item-2")])], [ORDERS], [0], [7], Catalogue())
    assert batch.entry_kind.tolist() == [KINDS["order"], KINDS["purchase"], KINDS["purchase"]]
    assert batch.entry_quantity.tolist() == [2, 2, 1]
    assert batch.increments.tolist() == [[0, 1, 0, 125_000, 3]]


def test_a_huge_order_keeps_its_dearest_lines():
    lines = [line(item_id=f"item-{n}", unit_price=money(n)) for n in range(40)]
    batch = event_batch([order(items=lines)], [ORDERS], [0], [0], Catalogue())
    assert len(batch.entry_kind) == 1 + ENTRY_LINES
    assert batch.entry_value[1:].min() == 25 * 10_000


def test_entities_are_hashed_by_type_and_token_and_absent_ones_are_zero():
    batch = event_batch([order(ip=None), click()], [ORDERS, CLICKS], [0, 0], [0, 1], Catalogue())
    assert batch.tokens[0, 0] == entity_token("card", "card-1")
    assert batch.tokens[0, 4] == 0
    assert not np.any(batch.tokens[1])
    assert entity_token("card", "1") != entity_token("ip", "1")


def test_the_shipping_address_counts_and_the_billing_address_stands_in():
    batch = event_batch(
        [order(shipping_address="away"), order(shipping_address=None)],
        [ORDERS] * 2,
        [0, 0],
        [0, 1],
        Catalogue(),
    )
    assert batch.tokens[:, 2].tolist() == [entity_token("address", "away"), entity_token("address", "home-1")]


def test_an_empty_batch_is_a_batch():
    batch = event_batch([], [], [], [], Catalogue())
    assert len(batch.time) == 0
    assert len(batch.entry_kind) == 0
