"""What each decision on an order is expected to cost, from its probability and its amount (Elkan 2001, The foundations
of cost-sensitive learning). The cheapest is taken; of equal ones the one that troubles the customer least.
"""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from streams.events import Record, money
from streams.features import MINOR_UNITS
from streams.policy.document import Money

Number = TypeVar("Number", float, NDArray[np.float64])

IN_ORDER = ("approve", "review", "block")


def amount_in(event: Record, terms: Money) -> float | None:
    """The order's amount in the policy's currency; None without a rate for its own."""
    rate = 1.0 if event["currency"] == terms.currency else terms.rates.get(event["currency"])
    return None if rate is None else money(event["amount"]) / MINOR_UNITS * rate


def expected(probability: Number, amount: Number, terms: Money) -> Mapping[str, Number]:
    """Expected cost by decision, in the policy's currency: of one order, or of columns of them."""
    fraud = amount * terms.loss_share + terms.chargeback_fee
    refused = amount * terms.margin + terms.goodwill
    missed, turned_away = 1 - terms.review_catches, terms.review_rejects
    return {
        "approve": probability * fraud,
        "review": terms.review_cost
        + terms.review_price
        + probability * missed * fraud
        + (1 - probability) * turned_away * refused,
        "block": (1 - probability) * refused,
    }


def cheapest(costs: Mapping[str, float]) -> str:
    return min(IN_ORDER, key=costs.__getitem__)
