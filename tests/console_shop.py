"""Alerts as a shop raises them, for tests of the console and for its pictures: a ring of stolen cards, an account that
was taken over, a reshipping address, honest customers that look odd, and what analysts and banks have said of them."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from schemas import catalog as contracts
from streams.batch import KINDS
from streams.console.answers import Label
from streams.console.rows import ROW
from streams.events import ENTITY_FIELDS
from streams.tasks.attribution import Contribution
from streams.tasks.fraud import COLUMN
from streams.tasks.sentences import sentences
from tests.records import line, money, order

NOW_MS = 1_764_000_000_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
RELEASE = "20251124T081200-e1f63af8"
ITEMS = {
    "22423": "REGENCY CAKESTAND 3 TIER", "85123A": "WHITE HANGING HEART T-LIGHT HOLDER",
    "84879": "ASSORTED COLOUR BIRD ORNAMENT",
    "47566": "PARTY BUNTING", "22178": "VICTORIAN GLASS HANGING T-LIGHT", "20725": "LUNCH BAG RED RETROSPOT",
    "23203": "JUMBO BAG VINTAGE DOILY", "21754": "HOME BUILDING BLOCK WORD", "79000": "MOROCCAN TEA GLASS",
    "22720": "SET OF 3 CAKE TINS PANTRY DESIGN", "23166": "MEDIUM CERAMIC TOP STORAGE JAR",
    "21080": "SET/20 RED RETROSPOT PAPER NAPKINS",
    "22086": "PAPER CHAIN KIT 50'S CHRISTMAS", "23084": "RABBIT NIGHT LIGHT", "84946": "ANTIQUE SILVER T-LIGHT GLASS",
}  # fmt: skip
ROWS = {name: number for number, name in enumerate(ITEMS, 1)}


History = list[tuple[str, int, float, str]]
"""(kind, seconds before the order, value, item_id)."""


def alert_id(order_id: str) -> str:
    return xxhash.xxh3_128_hexdigest(order_id.encode())


def alert(order_id: str = "order-1", **fields: Any) -> dict[str, Any]:
    """A valid FraudAlert in physical types; without more fields, what an older release said."""
    old = {
        "alert_id": alert_id(order_id), "order_id": order_id, "event_id": f"e-{order_id}", "user_id": "user-1",
        "event_time": NOW_MS - 1000, "raised_at": NOW_MS, "policy_version": "", "release": RELEASE, "probability": 0.7,
        "decision": "review", "reasons": [], "rules": [], "links": [],
    }  # fmt: skip
    return {**defaults(), **old, **fields}


def defaults() -> dict[str, Any]:
    """What a reader fills in where an older record says nothing."""
    given = {one["name"]: one["default"] for one in contracts.load("fraud_alert")["fields"] if "default" in one}
    return given | {name: b"" for name in ("amount", "features")}


def label(
    order_id: str, value: float, source: str = "analyst", revision: int = 0, at: int = NOW_MS
) -> tuple[str, Label]:
    return order_id, Label(f"{order_id}-{source}-{revision}", value, source, at, revision)


def features(fields: dict[str, float], history: "History | None" = None) -> bytes:
    """A packed row. fields: by column, as the model has them; history: the oldest first."""
    row, history = np.zeros(1, ROW), history or []
    row["fields"][0, [COLUMN[name] for name in fields]] = list(fields.values())
    for place, (kind, age, value, item) in enumerate(history[-64:], 64 - len(history[-64:])):
        row["kind"][0, place], row["age"][0, place], row["value"][0, place] = KINDS[kind], age, value
        row["quantity"][0, place], row["item"][0, place] = 1, ROWS.get(item, 0)
    row["now_kind"], row["now_value"] = KINDS["order"], math.expm1(fields.get("amount", 0.0))
    return row.tobytes()


@dataclass
class Shop:
    """What is on the topics: alerts and labels; `orders` are where the alerts say that they are."""

    alerts: list[dict[str, Any]] = field(default_factory=list)
    labels: list[tuple[str, Label]] = field(default_factory=list)
    orders: dict[int, dict[str, Any]] = field(default_factory=dict)


class _Teller:
    """Makes alerts one by one, each with the next order number."""

    def __init__(self, seed: int = 4) -> None:
        self.draw, self.shop, self.number = random.Random(seed), Shop(), 605_100

    def tell(self, minutes_ago: float, chance: float, user: str, amount: float, **known: Any) -> dict[str, Any]:
        """known: card, device, address, email, ip: tokens; country, issuer, billed; facts by column; parts: the
        contributions by group; history, rules, reasons."""
        self.number += self.draw.randint(1, 9)
        order_id, at, place = str(self.number), NOW_MS - round(minutes_ago * MINUTE), len(self.shop.orders)
        tokens = {kind: known.get(kind) or f"{kind}-{self.draw.randrange(16**10):010x}" for kind in ENTITY_FIELDS}
        tokens["ip"] = known.get("ip") or f"203.0.{self.draw.randint(2, 250)}.{self.draw.randint(2, 250)}"
        self.shop.orders[place] = self._order(order_id, user, at, amount, tokens, known)
        history, rules, country = known.get("history", []), known.get("rules", []), known.get("country", "GB")
        packed = features(_facts(amount, history) | known.get("facts", {}), history)
        parts = [Contribution(group, logit) for group, logit in known.get("parts", {}).items()]
        decision = "block" if chance >= 0.9 else "review"
        made = alert(
            order_id, user_id=user, event_time=at, raised_at=at + 40, probability=chance, decision=decision,
            amount=money(amount), currency="GBP", country=country, expected_loss=round(chance * amount * 0.92 + 8, 2),
            entities=[f"{kind}:{token}" for kind, token in tokens.items()], order_partition=0, order_offset=place,
            features_format=2, features=packed, policy_version="2025-11-20.2", rules=rules,
            reasons=known.get("reasons", []), contributions=[part._asdict() for part in parts],
            completeness_error=round(self.draw.uniform(0.02, 0.3), 3),
            sentences=sentences(decision, chance, parts, np.frombuffer(packed, ROW)["fields"][0], rules),
        )  # fmt: skip
        self.shop.alerts.append(made)
        return made

    def answer(self, made: dict[str, Any], value: float, source: str = "analyst", after: float = 9) -> None:
        self.shop.labels.append(label(made["order_id"], value, source, 0, made["raised_at"] + round(after * MINUTE)))

    def _order(
        self, order_id: str, user: str, at: int, amount: float, tokens: dict[str, str], known: dict[str, Any]
    ) -> dict[str, Any]:
        names = self.draw.sample(list(ITEMS), self.draw.randint(1, 5))
        price = money(round(amount / len(names) / 3, 2))
        country = known.get("country", "GB")
        payment = {"method": "card", "instrument": tokens["card"], "bin": "455673"}
        return order(
            order_id=order_id, user_id=user, event_id=f"e{order_id}", event_time=at, amount=money(amount),
            items=[line(item_id=name, quantity=3, unit_price=price) for name in names], currency="GBP", device="mobile",
            payment=payment | {"issuer_country": known.get("issuer", country)}, shipping_address=tokens["address"],
            billing_address=known.get("billed", tokens["address"]), device_id=tokens["device"],
            email=tokens["email"], ip=tokens["ip"], country=country,
        )  # fmt: skip


def _facts(amount: float, history: History) -> dict[str, float]:
    orders = sum(kind == "order" for kind, *_ in history)
    known = {f"{kind}_known": 1.0 for kind in ENTITY_FIELDS}
    return known | {"amount": math.log1p(amount), "orders": math.log1p(orders), "account_hours": 8.0}


def visit(ends_s: int, views: int, draw: random.Random, carts: int = 1) -> History:
    """Views and then carts, the last of them `ends_s` before the order."""
    kinds = ["view"] * views + ["cart"] * carts
    ages = [ends_s + 40 * (len(kinds) - 1 - number) for number in range(len(kinds))]
    return [
        (kind, age, round(draw.uniform(1, 20), 2), draw.choice(list(ITEMS)))
        for kind, age in zip(kinds, ages, strict=True)
    ]


def past_order(age_s: int, amount: float, *items: str) -> History:
    return [("order", age_s, amount, ""), *(("purchase", age_s, amount / len(items), item) for item in items)]


def shop(quiet: int = 40) -> Shop:
    """Some fifty alerts, most of them of the last hours; `quiet` of them are of no story and mostly answered."""
    teller = _Teller()
    for made in _background(teller, quiet):
        if teller.draw.random() < 0.8:
            teller.answer(made, float(made["probability"] > 0.75 and teller.draw.random() < 0.8))
    for story in (_reshipping, _ring, _old, _honest, _taken_over):
        story(teller)
    teller.shop.alerts.sort(key=lambda made: int(made["raised_at"]))
    return teller.shop


def _background(teller: _Teller, count: int) -> Iterator[dict[str, Any]]:
    draw = teller.draw
    for number in range(count):
        chance = round(draw.betavariate(2, 1.6) * 0.5 + 0.42, 3)
        kind = draw.choice(["device", "card", "email"])
        over = draw.uniform(0.5, 1.6)
        yield teller.tell(
            60 * 72 - number * 90, chance, f"u{14000 + number}", round(math.exp(draw.gauss(4.2, 0.9)), 2),
            country=draw.choice(["GB", "GB", "GB", "DE", "FR", "NL", "ES"]), reasons=[f"new {kind}"],
            facts={f"{kind}_known": 0.0, "amount_over_usual": over, "orders": 1.4, "clicks_1h": draw.random()},
            parts={kind: 0.9 + chance, "amount": over, "pace": 0.12, "account": -0.2},
        )  # fmt: skip


def _ring(teller: _Teller) -> None:
    """One device tries card after card within an hour; two of its orders are answered."""
    for number, amount in enumerate((412.0, 389.5, 440.0, 398.2, 455.75, 421.3)):
        shared = {"device_users": math.log1p(number + 1), "orders_1h": math.log1p(number), "device_known": 0.0}
        made = teller.tell(
            70 - 11 * number, round(0.86 + 0.02 * number, 2), f"u{18310 + number}", amount, issuer="US",
            device="device-7f3e9a41c2", address="address-b5d2c8e017" if number % 2 else "",
            reasons=["new card", f"device used by {number + 2} users", "card from another country"],
            rules=["velocity-device", "foreign-card"] if number > 1 else ["foreign-card"],
            facts={**shared, "foreign_card": 1.0, "card_known": 0.0, "is_first_event": 0.0},
            parts={"device": 2.4 + 0.2 * number, "card": 1.3, "pace": 0.9, "amount": 0.5, "history": -0.3},
            history=visit(90, 2, teller.draw),
        )  # fmt: skip
        if number < 2:
            teller.answer(made, 1.0, after=12)


def _taken_over(teller: _Teller) -> None:
    """A customer of some months, from a new device, to an address that nobody has used."""
    draw = teller.draw
    history = [
        *visit(86_400 * 61, 6, draw), *past_order(86_400 * 61 - 300, 48.2, "22423", "47566"),
        *visit(86_400 * 33, 5, draw), *past_order(86_400 * 33 - 240, 39.9, "85123A"),
        *visit(86_400 * 12, 8, draw), *past_order(86_400 * 12 - 500, 52.4, "22720", "21080", "79000"),
        ("search", 400, 0.0, ""), *visit(60, 1, draw, 3),
    ]  # fmt: skip
    strange = {"device_known": 0.0, "address_known": 0.0, "email_known": 0.0, "ships_elsewhere": 1.0}
    teller.tell(
        6, 0.943, "u15218", 894.6, billed="address-11d0a7c9e2", device="device-c0ffee1190", history=history,
        reasons=["new device", "new address", "new email", "amount 18.3 times the usual", "ships to another address"],
        rules=["new-device-and-address"], facts={**strange, "amount_over_usual": 2.9},
        parts={
            "amount": 2.1, "device": 1.4, "address": 1.25, "email": 0.4, "pace": 0.06, "time": 0.03, "ip": 0.02,
            "payment": 0.0, "basket": -0.04, "card": -0.15, "account": -0.3, "history": -0.9,
        },
    )  # fmt: skip


def _reshipping(teller: _Teller) -> None:
    """Users who share nothing but where it goes; the bank has charged the oldest back."""
    for number in range(4):
        shared = {"address_users": math.log1p(number + 1), "address_frauds": math.log1p(1), "address_known": 0.0}
        made = teller.tell(
            60 * (15 - 4 * number), round(0.71 + 0.05 * number, 2), f"u{16900 + number}", 180.0 + 35 * number,
            address="address-reship-55", country="NL", issuer="FR", facts=shared, history=visit(300, 4, teller.draw),
            reasons=["address linked to fraud", f"address used by {number + 2} users"],
            parts={"address": 1.9, "card": 0.5, "amount": 0.35, "history": -0.1},
        )  # fmt: skip
        if number == 0:
            teller.answer(made, 1.0, "chargeback", after=90)


def _honest(teller: _Teller) -> None:
    """A gift."""
    teller.tell(
        18, 0.52, "u13047", 148.0, country="DE", billed="address-0b7aa91c11",
        facts={"orders": math.log1p(22), "address_known": 0.0, "ships_elsewhere": 1.0},
        reasons=["new address", "ships to another address"], parts={"address": 1.1, "history": -1.4},
        history=[*past_order(86_400 * 20, 80.0, "20725", "23203"), *visit(600, 12, teller.draw)],
    )  # fmt: skip


def _old(teller: _Teller) -> None:
    """As a worker of an older version says it: no amount, no features, no sentence."""
    at = NOW_MS - 26 * MINUTE
    reasons = ["new card", "card from another country"]
    teller.shop.alerts.append(
        alert("605099", user_id="u12001", probability=0.64, raised_at=at, event_time=at, reasons=reasons)
    )
