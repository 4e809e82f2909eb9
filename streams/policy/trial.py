"""A span of orders decided again by a policy: alerts a day, what each rule does, frauds caught, money.
Chunks in, columns kept: some 40 bytes an order.
"""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.events import Record
from streams.policy.costs import IN_ORDER, amount_in, expected
from streams.policy.decide import Policy
from streams.policy.document import Money

DAY_MS = 86_400_000
FLAGGED = ("review", "block")
UNKNOWN = NO_RULE = -1
STEPS = 40
"""Halvings in the search for a price: to a billionth of the highest."""
HIGHEST_PRICE = 1e6

Numbers = NDArray[np.float64]


class Decided(NamedTuple):
    """One order of the span. before: what was decided; fraud: None without a label."""

    event: Record
    probability: float
    fields: NDArray[np.float32]
    before: str
    fraud: bool | None


@dataclass(slots=True)
class RuleFigures:
    fired: int = 0
    decided: int = 0
    frauds: int = 0
    good: int = 0
    """Labelled orders that it fired on, by what they were."""


@dataclass(slots=True)
class _Columns:
    time: "array[int]" = field(default_factory=lambda: array("q"))
    before: "array[int]" = field(default_factory=lambda: array("b"))
    after: "array[int]" = field(default_factory=lambda: array("b"))
    label: "array[int]" = field(default_factory=lambda: array("b"))
    probability: "array[float]" = field(default_factory=lambda: array("d"))
    amount: "array[float]" = field(default_factory=lambda: array("d"))
    by_rule: "array[int]" = field(default_factory=lambda: array("h"))  # number of the rule that decided, else -1


class Trial:
    """Of one policy. `add` orders, then `report`."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self._columns = policy, _Columns()
        self._rules = {rule.id: RuleFigures() for rule in policy.document.rules}
        self._number = {name: number for number, name in enumerate(self._rules)}
        self._changed: Counter[str] = Counter()

    def add(self, orders: Sequence[Decided]) -> None:
        terms, columns = self.policy.document.money, self._columns
        for order in orders:
            found = self.policy.decide(order.event, order.probability, order.fields)
            amount = amount_in(order.event, terms) if terms is not None else None
            columns.time.append(order.event["event_time"])
            columns.before.append(IN_ORDER.index(order.before))
            columns.after.append(IN_ORDER.index(found.decision))
            columns.label.append(UNKNOWN if order.fraud is None else order.fraud)
            columns.probability.append(order.probability)
            columns.amount.append(np.nan if amount is None else amount)
            columns.by_rule.append(self._number.get(found.decided_by, NO_RULE))
            if found.decision != order.before:
                self._changed[f"{order.before}->{found.decision}"] += 1
            for name in found.rules:
                self._count(self._rules[name], order, decided=name == found.decided_by)

    def report(self) -> dict[str, Any]:
        """Figures by side are (before, after): what was decided, and what the policy decides."""
        time, label = np.array(self._columns.time), np.array(self._columns.label)
        sides = [np.array(self._columns.before), np.array(self._columns.after)]
        budget = self.policy.document.budget
        report: dict[str, Any] = {
            "policy": self.policy.version,
            "orders": len(time),
            "labelled": int((label != UNKNOWN).sum()),
            "days": round(days(time), 2),
            "decisions": [_counted(side) for side in sides],
            "changed": dict(self._changed.most_common()),
            "alerts_per_day": [per_day(time, side) for side in sides],
            "outcomes": [outcomes(side, label) for side in sides],
            "rules": self._by_rule(time, sides, label),
            "rule_failures": dict(self.policy.take_failures()),
        }
        if (terms := self.policy.document.money) is not None:
            report["money"] = self._money(terms, sides, label)
        if budget is not None:
            report["budget"] = {"alerts_per_day": budget.alerts_per_day} | self._priced(
                terms, time, budget.alerts_per_day
            )
        return report

    def _count(self, rule: RuleFigures, order: Decided, *, decided: bool) -> None:
        rule.fired += 1
        rule.decided += decided
        if order.fraud is not None:
            rule.frauds += order.fraud
            rule.good += not order.fraud

    def _by_rule(
        self, time: NDArray[np.int_], sides: Sequence[NDArray[np.int_]], label: NDArray[np.int_]
    ) -> dict[str, dict[str, Any]]:
        """alerts_per_day and saved: of the orders that the rule decided; saved where there is money."""
        by_rule, terms = np.array(self._columns.by_rule), self.policy.document.money
        known, costs = self._costs(terms, sides, label) if terms is not None else (label < UNKNOWN, sides)
        found: dict[str, dict[str, Any]] = {}
        for number, (name, each) in enumerate(self._rules.items()):
            own = by_rule == number
            flagged = int((own & np.isin(sides[1], (1, 2))).sum())
            found[name] = {
                "fired": each.fired, "decided": each.decided, "frauds": each.frauds, "good": each.good,
                "alerts_per_day": round(flagged / days(time), 2),
            }  # fmt: skip
            if terms is not None:
                found[name]["saved"] = round(float((costs[0] - costs[1])[own[known]].sum()), 2)
        return found

    def _costs(
        self, terms: Money, sides: Sequence[NDArray[np.int_]], label: NDArray[np.int_]
    ) -> tuple[NDArray[np.bool_], list[Numbers]]:
        """Which orders have a label and a rate, and what each side cost of each of these."""
        amount = np.array(self._columns.amount)
        which = (label != UNKNOWN) & ~np.isnan(amount)
        known = expected(label[which].astype(np.float64), amount[which], terms)
        table = np.stack([known[name] for name in IN_ORDER])
        return which, [table[side[which], np.arange(int(which.sum()))] for side in sides]

    def _money(self, terms: Money, sides: Sequence[NDArray[np.int_]], label: NDArray[np.int_]) -> dict[str, Any]:
        """Over labelled orders with a rate: what each side cost, and what approving all would have."""
        which, each = self._costs(terms, sides, label)
        costs = [float(cost.sum()) for cost in each]
        approved = self._costs(terms, [np.zeros_like(side) for side in sides], label)[1][0]
        return {
            "currency": terms.currency,
            "orders": int(which.sum()),
            "cost": [round(cost, 2) for cost in costs],
            "cost_of_approving_all": round(float(approved.sum()), 2),
            "saved": round(costs[0] - costs[1], 2),
        }

    def _priced(self, terms: Money | None, time: NDArray[np.int_], most: int) -> dict[str, Any]:
        """Whether the budget holds, and the `review_price` at which it does, where one can."""
        after = np.array(self._columns.after)
        now = per_day(time, after)["mean"]
        found: dict[str, Any] = {"kept": now <= most}
        if found["kept"] or terms is None:
            return found
        amount, free = np.array(self._columns.amount), ~np.array(self._columns.by_rule) != NO_RULE
        free &= ~np.isnan(amount)
        fixed = int(np.isin(after[~free], (1, 2)).sum()) / max(days(time), 1e-9)
        left = (most - fixed) * days(time)
        costs = expected(np.array(self._columns.probability)[free], amount[free], terms)
        price = lowest_price(costs, left)
        return found | {"review_price": None if price is None else round(terms.review_price + price, 4)}


def lowest_price(costs: Mapping[str, Numbers], most: float) -> float | None:
    """What a review must cost more, so that at most so many orders are flagged; None where even that is not enough:
    what would be reviewed is then blocked.
    """

    def flagged(price: float) -> int:
        review = costs["review"] + price
        return int((costs["approve"] > np.minimum(review, costs["block"])).sum())

    low, high = 0.0, HIGHEST_PRICE
    if flagged(high) > most:
        return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if flagged(middle) > most else (low, middle)
    return high


def days(time: NDArray[np.int_]) -> float:
    """Of the span that orders came in; a day at least."""
    return max(1.0, float(time.max() - time.min()) / DAY_MS) if len(time) else 1.0


def per_day(time: NDArray[np.int_], decided: NDArray[np.int_]) -> dict[str, float]:
    """Orders that somebody must look at: the mean of a day, and the most of one (UTC)."""
    flagged = time[decided > 0] // DAY_MS
    most = int(np.unique(flagged, return_counts=True)[1].max()) if len(flagged) else 0
    return {"mean": round(len(flagged) / days(time), 2), "most": most}


def outcomes(decided: NDArray[np.int_], label: NDArray[np.int_]) -> dict[str, int | float | None]:
    """Of labelled orders. precision: of those flagged, frauds; recall: of frauds, flagged."""
    fraud, good, flagged = label == 1, label == 0, decided > 0
    caught, false = int((fraud & flagged).sum()), int((good & flagged).sum())
    frauds = int(fraud.sum())
    return {
        "caught": caught,
        "missed": frauds - caught,
        "false_positives": false,
        "precision": round(caught / (caught + false), 4) if caught + false else None,
        "recall": round(caught / frauds, 4) if frauds else None,
    }


def _counted(decided: NDArray[np.int_]) -> dict[str, int]:
    return {name: int((decided == at).sum()) for at, name in enumerate(IN_ORDER)}
