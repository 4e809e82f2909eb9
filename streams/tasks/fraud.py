"""Fraud on orders: the probability that an order will be charged back or judged fraudulent, and what to do about it.
The row holds the order's fields, the user's habits in event-time windows and what its card, device, address, email
and ip are known for; every one of them is a fact from before the order.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from streams.batch import KINDS, ORDERS
from streams.events import ENTITY_FIELDS, Record, money, order_entities
from streams.features import MINOR_UNITS, SEQUENCE_FIELDS, Inputs, Rows, Table, look_up_mean, sequence_inputs
from streams.tasks.base import Context, LabelRule, Result, Serving, Task, calibrated

BASKET_LINES = 16
ATTRIBUTE_COLUMNS = 8
PAYMENT_METHODS = ("card", "paypal", "bank_transfer", "invoice", "wallet", "voucher")
HOUR, DAY, WEEK = 3_600_000, 86_400_000, 604_800_000

FIELDS: tuple[str, ...] = (
    *("amount", "lines", "quantity", "top_line_share", "usual_amount", "amount_over_usual"),
    *("orders", "clicks", "account_hours", "is_first_event"),
    *("orders_1h", "orders_24h", "orders_7d", "amount_24h", "clicks_1h", "hours_since_order"),
    *(f"{name}_known" for name in ENTITY_FIELDS),
    *(f"{name}_users" for name in ENTITY_FIELDS),
    *(f"{name}_frauds" for name in ENTITY_FIELDS),
    *("foreign_card", "ships_elsewhere", "guest", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos"),
    *(f"paid_by_{name}" for name in PAYMENT_METHODS),
    *(f"attribute_{number}" for number in range(ATTRIBUTE_COLUMNS)),
)
"""The columns of `fields`: counts and money as log1p, shares and flags in [-1, 1]; -1 in *_known is "not given".

The shop's own numbers and flags share the attribute columns by a hash of their names (Weinberger et al. 2009).
"""
COLUMN = {name: number for number, name in enumerate(FIELDS)}


class Fraud(Task):
    """A score is a probability and a decision; its label is a chargeback or an analyst's verdict on the order."""

    name = "fraud"
    topic = ORDERS
    schema = "fraud_score"
    features = np.dtype([*SEQUENCE_FIELDS, ("basket", "<i4", (BASKET_LINES,)), ("fields", "<f4", (len(FIELDS),))])
    labels = LabelRule("fraud", 45 * 86_400)
    loss = "binary_cross_entropy"
    metric = "pr_auc"
    raises_alerts = True
    late_is_scored = True

    def target(self, event: Record) -> str:
        return str(event["order_id"])

    def fill(self, rows: Rows, events: Sequence[Record], context: Context) -> None:
        fields: NDArray[np.float32] = rows["fields"]
        for number, event in enumerate(events):
            items = [context.catalog.items.get(line["item_id"], 0) for line in event["items"][:BASKET_LINES]]
            rows["basket"][number, : len(items)] = items
            _order_fields(fields[number], event)
        _habit_fields(fields, context)
        _entity_fields(fields, context)

    def inputs(self, rows: Rows, table: Table) -> Inputs:
        return sequence_inputs(rows, table) | {
            "fields": np.ascontiguousarray(rows["fields"]),
            "basket_vectors": look_up_mean(table, rows["basket"]),
        }

    def results(
        self, outputs: Mapping[str, NDArray[Any]], events: Sequence[Record], rows: Rows, serving: Serving
    ) -> list[Result]:
        chances = calibrated(outputs["logit"], serving.calibration).tolist()
        review, block = serving.settings.get("review", 0.5), serving.settings.get("block", 0.9)
        return [
            _result(event, chance, _decide(chance, review, block), reasons(row) if chance >= review else [])
            for event, chance, row in zip(events, chances, rows["fields"], strict=True)
        ]

    def fallback(self, events: Sequence[Record], serving: Serving) -> list[Result]:
        """Review, at the base rate: an order is never approved or blocked unseen."""
        base_rate = float(serving.settings.get("mean", 0.0))
        return [_result(event, base_rate, "review", ["not scored in time"]) for event in events]

    def said(self, score: Record) -> Result:
        return _result(score, score["probability"], score["decision"], list(score["reasons"]))


def reasons(fields: NDArray[np.float32]) -> list[str]:
    """What is unusual about an order, in words: facts that the model saw, not its arithmetic."""
    value = {name: float(fields[column]) for name, column in COLUMN.items()}
    said = [f"new {name}" for name in ENTITY_FIELDS if value[f"{name}_known"] == 0 and value["orders"] > 0]
    said += [
        f"{name} used by {np.expm1(value[f'{name}_users']):.0f} users"
        for name in ENTITY_FIELDS
        if value[f"{name}_users"] > 0.7
    ]
    said += [f"{name} linked to fraud" for name in ENTITY_FIELDS if value[f"{name}_frauds"] > 0]
    if value["amount_over_usual"] > 1:
        said.append(f"amount {np.exp(value['amount_over_usual']):.1f} times the usual")
    if value["orders_1h"] > 0.7:
        said.append(f"{np.expm1(value['orders_1h']):.0f} orders in the last hour")
    if value["foreign_card"] > 0:
        said.append("card from another country")
    if value["ships_elsewhere"] > 0:
        said.append("ships to another address")
    return said


def _result(event: Record, probability: float, decision: str, why: list[str]) -> Result:
    fields = {"order_id": event["order_id"], "probability": probability, "decision": decision, "reasons": why}
    return Result(fields, [], [probability], decision)


def _decide(probability: float, review: float, block: float) -> str:
    if probability >= block:
        return "block"
    return "review" if probability >= review else "approve"


def _order_fields(out: NDArray[np.float32], event: Record) -> None:
    lines = [money(line["unit_price"]) * line["quantity"] for line in event["items"]]
    payment, total = event["payment"], sum(lines)
    out[COLUMN["amount"]] = np.log1p(money(event["amount"]) / MINOR_UNITS)
    out[COLUMN["lines"]] = np.log1p(len(lines))
    out[COLUMN["quantity"]] = np.log1p(sum(line["quantity"] for line in event["items"]))
    out[COLUMN["top_line_share"]] = max(lines) / total if total else 0.0
    out[COLUMN["foreign_card"]] = bool(payment["issuer_country"]) and payment["issuer_country"] != event["country"]
    out[COLUMN["ships_elsewhere"]] = bool(event["shipping_address"]) and (
        event["shipping_address"] != event["billing_address"]
    )
    out[COLUMN["guest"]] = event["user_id"].startswith("anon:")
    if payment["method"] in PAYMENT_METHODS:
        out[COLUMN[f"paid_by_{payment['method']}"]] = 1.0
    _attribute_fields(out, event["attributes"])
    given = [1.0 if token else 0.0 for token in order_entities(event)]
    out[COLUMN["card_known"] : COLUMN["ip_known"] + 1] = given


def _attribute_fields(out: NDArray[np.float32], attributes: Mapping[str, Any]) -> None:
    """Numbers keep their sign and are scaled as log1p of their size; texts and what is not finite are left out."""
    for name, value in attributes.items():
        if isinstance(value, float | int) and math.isfinite(value):
            column = COLUMN["attribute_0"] + xxhash.xxh3_64_intdigest(name.encode()) % ATTRIBUTE_COLUMNS
            out[column] += math.copysign(math.log1p(abs(value)), value)


def _habit_fields(fields: NDArray[np.float32], context: Context) -> None:
    """The user's own pace and size, in event time; every window ends just before the order."""
    history, time = context.history, context.time
    age = np.where(history.kind > 0, time[:, None] - history.time, np.iinfo(np.int64).max)
    is_order = history.kind == KINDS["order"]
    is_click = (history.kind > 0) & (history.kind <= KINDS["search"])

    def count(kind: NDArray[np.bool_], window: int) -> NDArray[np.float64]:
        counted: NDArray[np.float64] = np.log1p((kind & (age <= window)).sum(axis=1))
        return counted

    orders, clicks, spent = context.totals[:, 1], context.totals[:, 0], context.totals[:, 3] / MINOR_UNITS
    usual = np.log1p(spent / np.maximum(orders, 1))
    since_order = np.where(is_order, age, np.iinfo(np.int64).max).min(axis=1)
    has_order = since_order < np.iinfo(np.int64).max
    age_hours = np.where(context.first_time > 0, (time - context.first_time) / HOUR, 0.0)
    fields[:, COLUMN["usual_amount"]] = usual
    fields[:, COLUMN["amount_over_usual"]] = np.where(orders > 0, fields[:, COLUMN["amount"]] - usual, 0.0)
    fields[:, COLUMN["orders"]] = np.log1p(orders)
    fields[:, COLUMN["clicks"]] = np.log1p(clicks)
    fields[:, COLUMN["account_hours"]] = np.log1p(np.maximum(age_hours, 0.0))
    fields[:, COLUMN["is_first_event"]] = context.first_time == 0
    fields[:, COLUMN["orders_1h"]] = count(is_order, HOUR)
    fields[:, COLUMN["orders_24h"]] = count(is_order, DAY)
    fields[:, COLUMN["orders_7d"]] = count(is_order, WEEK)
    amount_24h = np.where(is_order & (age <= DAY), history.value, 0).sum(axis=1) / MINOR_UNITS
    fields[:, COLUMN["amount_24h"]] = np.log1p(amount_24h)
    fields[:, COLUMN["clicks_1h"]] = count(is_click, HOUR)
    fields[:, COLUMN["hours_since_order"]] = np.where(has_order, np.log1p(since_order / HOUR), -1.0)
    day = 2 * np.pi * (time % DAY) / DAY
    week = 2 * np.pi * ((time // DAY) % 7) / 7
    fields[:, COLUMN["hour_sin"]], fields[:, COLUMN["hour_cos"]] = np.sin(day), np.cos(day)
    fields[:, COLUMN["weekday_sin"]], fields[:, COLUMN["weekday_cos"]] = np.sin(week), np.cos(week)


def _entity_fields(fields: NDArray[np.float32], context: Context) -> None:
    known = slice(COLUMN["card_known"], COLUMN["ip_known"] + 1)
    fields[:, known] = np.where(fields[:, known] > 0, context.known, -1.0)
    users = slice(COLUMN["card_users"], COLUMN["ip_users"] + 1)
    frauds = slice(COLUMN["card_frauds"], COLUMN["ip_frauds"] + 1)
    fields[:, users] = np.log1p(context.entities[:, :, 0])
    fields[:, frauds] = np.log1p(context.entities[:, :, 1])
