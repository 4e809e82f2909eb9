"""What a rule may read of an order: typed names, the same in serving and in a backtest.
All of them are from before the order or the order's own; the user's habits are those that the model saw.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.events import ENTITY_FIELDS, Record, money, order_entities
from streams.features import MINOR_UNITS
from streams.policy.lists import LISTS, Lists
from streams.tasks.fraud import COLUMN, PAYMENT_METHODS

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
WEEKDAY_OF_1970 = 3  # it began on a Thursday; Monday is 0
NOT_GIVEN = ""


class Order(NamedTuple):
    """One order as rules see it. fields: its columns of streams.tasks.fraud.FIELDS."""

    event: Record
    fields: NDArray[np.float32]
    probability: float
    expected_loss: float
    lists: Lists


class Fact(NamedTuple):
    """type: as CEL writes it."""

    type: str
    meaning: str
    read: Callable[[Order], Any]


def _text(*path: str) -> Callable[[Order], str]:
    def read(order: Order) -> str:
        value: Any = order.event
        for part in path:
            value = value[part]
        return NOT_GIVEN if value is None else str(value)

    return read


def _count(column: str) -> Callable[[Order], int]:
    """Columns hold log1p of it."""
    at = COLUMN[column]
    return lambda order: round(float(np.expm1(order.fields[at])))


def _size(column: str) -> Callable[[Order], float]:
    at = COLUMN[column]
    return lambda order: float(np.expm1(order.fields[at]))


def _plain(column: str) -> Callable[[Order], float]:
    at = COLUMN[column]
    return lambda order: float(order.fields[at])


def _flag(column: str) -> Callable[[Order], bool]:
    at = COLUMN[column]
    return lambda order: bool(order.fields[at] > 0)


def _since_order(order: Order) -> float:
    value = float(order.fields[COLUMN["hours_since_order"]])
    return -1.0 if value < 0 else float(np.expm1(value))


def _items(order: Order) -> list[dict[str, Any]]:
    return [
        {
            "item_id": line["item_id"],
            "quantity": line["quantity"],
            "unit_price": money(line["unit_price"]) / MINOR_UNITS,
        }
        for line in order.event["items"]
    ]


def _on(name: str, kind: str, place: int) -> Callable[[Order], bool]:
    """place: among the order's entities; -1: the user."""

    def read(order: Order) -> bool:
        token = order.event["user_id"] if place < 0 else order_entities(order.event)[place]
        return order.lists.on(name, kind, token, order.event["event_time"])

    return read


def _on_any(name: str) -> Callable[[Order], bool]:
    kinds = [_on(name, kind, place) for place, kind in enumerate(("user", *ENTITY_FIELDS), -1)]
    return lambda order: any(one(order) for one in kinds)


ADJECTIVES = dict(zip(LISTS, ("blocked", "allowed", "watched"), strict=True))


def _facts() -> dict[str, Fact]:
    facts = {
        "score": Fact("double", "calibrated probability of fraud", lambda order: order.probability),
        "expected_loss": Fact("double", "of approving it, in the policy's currency", lambda order: order.expected_loss),
        "attributes": Fact("map(string, dyn)", "the shop's own signals", lambda order: dict(order.event["attributes"])),
    }
    facts |= {f"order.{name}": fact for name, fact in _order_facts().items()}
    facts |= {f"user.{name}": fact for name, fact in _user_facts().items()}
    for place, kind in enumerate(ENTITY_FIELDS):
        facts |= {f"{kind}.{name}": fact for name, fact in _entity_facts(place, kind).items()}
    for name, adjective in ADJECTIVES.items():
        facts[f"any.{adjective}"] = Fact("bool", f"something of the order is on the {name} list", _on_any(name))
    return facts


def _order_facts() -> dict[str, Fact]:
    return {
        "id": Fact("string", "order_id", _text("order_id")),
        "amount": Fact("double", "what the customer pays", lambda o: money(o.event["amount"]) / MINOR_UNITS),
        "currency": Fact("string", "ISO 4217", _text("currency")),
        "country": Fact("string", "of the delivery, ISO 3166-1 alpha-2; empty if not given", _text("country")),
        "lines": Fact("int", "order lines", lambda o: len(o.event["items"])),
        "quantity": Fact("int", "pieces", lambda o: sum(line["quantity"] for line in o.event["items"])),
        "items": Fact("list(map(string, dyn))", "item_id, quantity and unit_price of each line", _items),
        "top_line_share": Fact("double", "of the amount, the dearest line", _plain("top_line_share")),
        "payment_method": Fact("string", f"{', '.join(PAYMENT_METHODS)}, or your own", _text("payment", "method")),
        "bin": Fact("string", "of the card; empty if not given", _text("payment", "bin")),
        "issuer_country": Fact("string", "of the card; empty if not given", _text("payment", "issuer_country")),
        "foreign_card": Fact("bool", "the card's country is not the order's", _flag("foreign_card")),
        "ships_elsewhere": Fact("bool", "to another address than the bill", _flag("ships_elsewhere")),
        "device": Fact("string", "device class; empty if not given", _text("device")),
        "hour": Fact("int", "of the day, UTC", lambda o: o.event["event_time"] // HOUR_MS % 24),
        "weekday": Fact("int", "0 is Monday, UTC", lambda o: (o.event["event_time"] // DAY_MS + WEEKDAY_OF_1970) % 7),
    }


def _user_facts() -> dict[str, Fact]:
    facts = {
        "id": Fact("string", "user_id", _text("user_id")),
        "guest": Fact("bool", "has no account", _flag("guest")),
        "first_event": Fact("bool", "nothing was known of the user before", _flag("is_first_event")),
        "account_hours": Fact("double", "since the user's first event", _size("account_hours")),
        "orders": Fact("int", "before this one", _count("orders")),
        "clicks": Fact("int", "before this order", _count("clicks")),
        "usual_amount": Fact("double", "mean of the orders before", _size("usual_amount")),
        "amount_over_usual": Fact(
            "double", "the order's amount in usual amounts; 1 for a first order",
            lambda order: float(np.exp(order.fields[COLUMN["amount_over_usual"]])),
        ),
        "amount_24h": Fact("double", "of the orders of the day before", _size("amount_24h")),
        "hours_since_order": Fact("double", "-1 if there was none", _since_order),
    }  # fmt: skip
    for name in ("orders_1h", "orders_24h", "orders_7d", "clicks_1h"):
        facts[name] = Fact("int", f"{name.replace('_', ' in the last ')}, in event time", _count(name))
    for name, adjective in ADJECTIVES.items():
        facts[adjective] = Fact("bool", f"on the {name} list", _on(name, "user", -1))
    return facts


def _entity_facts(place: int, kind: str) -> dict[str, Fact]:
    known = COLUMN[f"{kind}_known"]
    facts = {
        "token": Fact("string", "empty if not given", lambda order: order_entities(order.event)[place] or NOT_GIVEN),
        "given": Fact("bool", f"the order names its {kind}", lambda order: bool(order.fields[known] >= 0)),
        "known": Fact("bool", "the user used it before", lambda order: bool(order.fields[known] > 0)),
        "users": Fact("int", "that used it, if several did", _count(f"{kind}_users")),
        "frauds": Fact("int", "users with a fraud on it", _count(f"{kind}_frauds")),
    }
    for name, adjective in ADJECTIVES.items():
        facts[adjective] = Fact("bool", f"on the {name} list", _on(name, kind, place))
    return facts


FACTS: Mapping[str, Fact] = _facts()


def facts_of(order: Order, names: Collection[str]) -> dict[str, Any]:
    """The named facts; only what rules ask for is computed."""
    return {name: FACTS[name].read(order) for name in names}
