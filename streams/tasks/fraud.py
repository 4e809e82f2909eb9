"""Fraud on orders: the probability that an order will be charged back or judged fraudulent, and what to do about it.
The row holds the order's fields, the user's habits in event-time windows and what its card, device, address, email
and ip are known for; every one of them is a fact from before the order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from streams.batch import KINDS, ORDERS
from streams.events import ENTITY_FIELDS, Record, money, order_entities
from streams.features import MINOR_UNITS, SEQUENCE_FIELDS, Inputs, Rows, Table, look_up_mean, sequence_inputs
from streams.tasks import attributes
from streams.tasks.base import Context, LabelRule, Result, Serving, Task, Verdict, calibrated
from streams.tasks.codes import encoded
from streams.tasks.exploration import HALF, NOTHING, Exploration

BASKET_LINES = 16
PAYMENT_METHODS = ("card", "paypal", "bank_transfer", "invoice", "wallet", "voucher")
HOUR, DAY, WEEK = 3_600_000, 86_400_000, 604_800_000
NEVER = np.iinfo(np.int64).max
LET_THROUGH = "let through for learning, would be blocked"
UNCERTAIN = "drawn for review, its score is near the boundary"

FIELDS: tuple[str, ...] = (
    *("amount", "lines", "quantity", "top_line_share", "usual_amount", "amount_over_usual"),
    *("orders", "clicks", "account_hours", "is_first_event"),
    *("orders_1h", "orders_24h", "orders_7d", "amount_24h", "clicks_30m", "clicks_1h"),
    *("hours_since_first_order", "hours_since_order"),
    *(f"{name}_known" for name in ENTITY_FIELDS),
    *(f"{name}_users" for name in ENTITY_FIELDS),
    *(f"{name}_frauds" for name in ENTITY_FIELDS),
    *("foreign_card", "ships_elsewhere", "guest", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos"),
    *(f"paid_by_{name}" for name in PAYMENT_METHODS),
)
"""The columns of `fields`: counts and money as log1p, shares and flags in [-1, 1]; -1 in *_known is "not given".

The shop's own attributes stand beside them: streams.tasks.attributes.
"""
COLUMN = {name: number for number, name in enumerate(FIELDS)}


class Fraud(Task):
    """A score is a probability and a decision; its label is a chargeback or an analyst's verdict on the order."""

    name = "fraud"
    topic = ORDERS
    schema = "fraud_score"
    features = np.dtype(
        [
            *SEQUENCE_FIELDS,
            ("basket", "<i4", (BASKET_LINES,)),
            ("fields", "<f4", (len(FIELDS),)),
            *attributes.ATTRIBUTE_FIELDS,
        ]
    )
    labels = LabelRule(
        "fraud", 28 * 86_400, grace_s=60 * 86_400, at_once=True, sources=("chargeback",), unanswered=("block",)
    )
    loss = "binary_cross_entropy"
    metric = "pr_auc"
    raises_alerts = True
    late_is_scored = True
    exploration = NOTHING

    def explore(self, exploration: Exploration) -> None:
        self.exploration = exploration

    def target(self, event: Record) -> str:
        return str(event["order_id"])

    def fill(self, rows: Rows, events: Sequence[Record], context: Context) -> None:
        fields: NDArray[np.float32] = rows["fields"]
        basket: NDArray[np.int32] = rows["basket"]
        row_of = context.catalog.items.get
        for number, event in enumerate(events):
            items = [row_of(line["item_id"], 0) for line in event["items"][:BASKET_LINES]]
            basket[number, : len(items)] = items
        attributes.fill(rows, (event["attributes"] for event in events))
        _order_fields(fields, events)
        _habit_fields(fields, context)
        _entity_fields(fields, context)

    def inputs(self, rows: Rows, table: Table) -> Inputs:
        return sequence_inputs(rows, table) | {
            "fields": encoded(rows["fields"]),
            "attribute_ids": rows["attribute_id"].astype(np.int32),
            "attributes": attributes.codes(rows),
            "basket_vectors": look_up_mean(table, rows["basket"]),
        }

    def results(
        self, outputs: Mapping[str, NDArray[Any]], events: Sequence[Record], rows: Rows, serving: Serving
    ) -> list[Result]:
        chances = calibrated(outputs["logit"], serving.calibration).tolist()
        policy = serving.policy or Thresholds.of(serving.settings)
        return [
            self._decided(event, chance, policy.decide(event, chance, row), row, serving)
            for event, chance, row in zip(events, chances, rows["fields"], strict=True)
        ]

    def fallback(self, events: Sequence[Record], rows: Rows, serving: Serving) -> list[Result]:
        """Review, at the base rate: an order is never approved or blocked unseen."""
        base_rate = float(serving.settings.get("mean", 0.0))
        return [_result(event, base_rate, verdict("review"), ["not scored in time"]) for event in events]

    def said(self, score: Record) -> Result:
        told = Verdict(
            score["decision"], score["decided_by"], tuple(score["rules"]), (), score["policy_version"],
            score["expected_loss"],
        )  # fmt: skip
        drawn = Drawn(score["decision"], score["propensity"], score["otherwise"])
        return _result(score, score["probability"], told, list(score["reasons"]), drawn)

    def _decided(
        self, event: Record, probability: float, told: Verdict, fields: NDArray[np.float32], serving: Serving
    ) -> Result:
        """What a rule decides stands; of what the score decides, a little is drawn: see streams.tasks.exploration."""
        drawn = self._drawn(event["event_id"], probability, told, serving)
        seen = reasons(fields) if drawn.decision != "approve" else []
        why = [*drawn.because, *told.because, *seen]
        return _result(event, probability, told._replace(decision=drawn.decision), why, drawn)

    def _drawn(self, event_id: str, probability: float, told: Verdict, serving: Serving) -> "Drawn":
        explored = self.exploration
        if told.decided_by:
            return Drawn(told.decision)
        if told.decision == "block" and explored.share > 0:
            through = explored.lets_through(event_id, probability)
            chance = explored.propensity(probability, let_through=through)
            return Drawn("review", chance, "block", (LET_THROUGH,)) if through else Drawn("block", chance, "review")
        if told.decision != "block" and serving.policy is None and explored.is_near(probability, serving.settings):
            if explored.reviews(event_id):
                return Drawn("review", HALF, "approve", (UNCERTAIN,))
            return Drawn("approve", HALF, "review")
        return Drawn(told.decision)


class Drawn(NamedTuple):
    """A decision, the chance with which it was taken, and what else it could have been; None: it was not drawn."""

    decision: str
    propensity: float = 1.0
    otherwise: str | None = None
    because: tuple[str, ...] = ()


class Thresholds(NamedTuple):
    """A release's own, which decide where there is no policy."""

    review: float
    block: float
    version: str = ""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        return cls(settings.get("review", 0.5), settings.get("block", 0.9))

    def decide(self, event: Record, probability: float, fields: NDArray[np.float32]) -> Verdict:
        if probability >= self.block:
            return verdict("block")
        return verdict("review" if probability >= self.review else "approve")


def verdict(decision: str) -> Verdict:
    """That of no policy."""
    return Verdict(decision, "", (), (), "", None)


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


def _result(event: Record, probability: float, told: Verdict, why: list[str], drawn: Drawn | None = None) -> Result:
    drawn = drawn or Drawn(told.decision)
    fields = {
        "order_id": event["order_id"], "probability": probability, "decision": told.decision, "reasons": why,
        "policy_version": told.version, "decided_by": told.decided_by, "rules": list(told.rules),
        "expected_loss": told.expected_loss, "propensity": drawn.propensity, "otherwise": drawn.otherwise,
    }  # fmt: skip
    return Result(fields, [], [probability], told.decision, drawn.propensity, drawn.otherwise)


def _columns(first: str, last: str) -> slice:
    return slice(COLUMN[first], COLUMN[last] + 1)


# Array operations have a price each, however few orders a micro-batch has: neighbouring columns are made together.
SIZES, ELSEWHERE = _columns("amount", "quantity"), _columns("foreign_card", "guest")
HABITS, CLOCK = _columns("usual_amount", "hours_since_order"), _columns("hour_sin", "weekday_cos")
KNOWN, SHARED = _columns("card_known", "ip_known"), _columns("card_users", "ip_frauds")
ORDER_WINDOWS = slice(COLUMN["orders_1h"] - HABITS.start, COLUMN["orders_7d"] + 1 - HABITS.start)
WINDOWS, TURNS = np.array([[HOUR], [DAY], [WEEK]]), np.array([[DAY], [7]])
IS_CLICK = np.array([0 < kind <= KINDS["search"] for kind in range(256)])
PAID_BY = {name: COLUMN[f"paid_by_{name}"] for name in PAYMENT_METHODS}


def _order_fields(fields: NDArray[np.float32], events: Sequence[Record]) -> None:
    """What the orders themselves say."""
    sizes, shares, elsewhere, given = [], [], [], []
    for number, event in enumerate(events):
        quantities = [line["quantity"] for line in event["items"]]
        lines = [money(line["unit_price"]) * n for line, n in zip(event["items"], quantities, strict=True)]
        payment, ships_to, total = event["payment"], event["shipping_address"], sum(lines)
        sizes.append((money(event["amount"]) / MINOR_UNITS, len(lines), sum(quantities)))
        shares.append(max(lines) / total if total else 0.0)
        elsewhere.append(
            (
                bool(payment["issuer_country"]) and payment["issuer_country"] != event["country"],
                bool(ships_to) and ships_to != event["billing_address"],
                event["user_id"].startswith("anon:"),
            )
        )
        given.append([bool(token) for token in order_entities(event)])
        if (column := PAID_BY.get(payment["method"])) is not None:
            fields[number, column] = 1.0
    fields[:, SIZES] = np.log1p(np.array(sizes, np.float64))
    fields[:, COLUMN["top_line_share"]] = shares
    fields[:, ELSEWHERE] = elsewhere
    fields[:, KNOWN] = given


def _habit_fields(fields: NDArray[np.float32], context: Context) -> None:
    """The user's own pace and size, in event time; every window ends just before the order."""
    kind_BL, time_B = context.history.kind, context.time
    age_BL = time_B[:, None] - context.history.time
    order_age_BL = np.where(kind_BL == KINDS["order"], age_BL, NEVER)
    since_order_B = order_age_BL.min(axis=1)
    clicks_B, orders_B = context.totals[:, 0], context.totals[:, 1]
    habits = np.zeros((len(fields), HABITS.stop - HABITS.start))  # columns as FIELDS has them, before log1p

    def put(name: str, values: NDArray[Any]) -> None:
        habits[:, COLUMN[name] - HABITS.start] = values

    put("usual_amount", context.totals[:, 3] / MINOR_UNITS / np.maximum(orders_B, 1))
    put("orders", orders_B)
    put("clicks", clicks_B)
    age_hours = (time_B - context.first_time) / HOUR * (context.first_time > 0)
    put("account_hours", np.maximum(age_hours, 0.0, out=age_hours))
    habits[:, ORDER_WINDOWS] = (order_age_BL[:, None] <= WINDOWS).sum(axis=2)
    put("amount_24h", ((order_age_BL <= DAY) * context.history.value).sum(axis=1) / MINOR_UNITS)
    click_age_BL = np.where(IS_CLICK.take(kind_BL), age_BL, NEVER)
    put("clicks_30m", (click_age_BL <= HOUR // 2).sum(axis=1))
    put("clicks_1h", (click_age_BL <= HOUR).sum(axis=1))
    put("hours_since_first_order", np.where(order_age_BL < NEVER, order_age_BL, 0).max(axis=1) / HOUR)
    put("hours_since_order", since_order_B / HOUR)
    np.log1p(habits, out=habits)
    put("amount_over_usual", np.where(orders_B > 0, fields[:, COLUMN["amount"]] - habits[:, 0], 0.0))
    put("is_first_event", context.first_time == 0)
    habits[since_order_B == NEVER, -2:] = -1.0
    fields[:, HABITS] = habits
    angle = 2 * np.pi * np.array((time_B % DAY, time_B // DAY % 7)) / TURNS  # of the day, of the week
    clock = fields[:, CLOCK].T
    clock[::2], clock[1::2] = np.sin(angle), np.cos(angle)


def _entity_fields(fields: NDArray[np.float32], context: Context) -> None:
    fields[:, KNOWN] = np.where(fields[:, KNOWN] > 0, context.known, -1.0)
    fields[:, SHARED] = np.log1p(context.entities.transpose(0, 2, 1).reshape(len(fields), -1))
