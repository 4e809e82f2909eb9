"""The probability that an order is fraud, as a known function of what was published; the outcome is drawn
from it.

Each kind of fraud has a logistic in the facts that give it away, and an order is fraud if any kind strikes:
p = 1 - product over kinds of (1 - p_kind). A campaign makes its orders look the way they do; whether one of
them is fraud is drawn fresh, given the facts alone. So p is exactly P(fraud | all that was published up to
this order), which is what a perfect model would say, and people who look like a campaign are now and then
taken for one with reason.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from streams.sources.book import OrderFacts
from streams.sources.draws import Draws

SMALL_AMOUNT = 20.0
CEILING = 0.97


Terms = dict[str, float]
"""What a kind's log-odds are made of: `base`, and a part for each cause in CAUSES that it looks at."""

CAUSES = ("pace", "card", "amount", "device", "address", "ip", "taste", "account", "refunds", "looks")
"""What can give a fraud away; `looks`: how little was looked around."""


def _chance(terms: Terms) -> float:
    return CEILING / (1.0 + math.exp(-sum(terms.values())))


def _card_testing(facts: OrderFacts) -> Terms:
    """Many small orders within the hour, each on a new card, from a device that others use, with hardly a
    look around.
    """
    return {
        "base": -6.6,
        "pace": 1.4 * min(facts.orders_last_hour, 3),
        "card": 1.2 * facts.new_card + 1.2 * (facts.new_card and facts.orders_last_hour > 0),
        "amount": 1.4 * (facts.amount < SMALL_AMOUNT),
        "device": 1.1 * math.log1p(min(facts.device_users, 8)),
        "looks": -0.15 * min(facts.clicks_last_half_hour, 10),
    }


def _account_takeover(facts: OrderFacts) -> Terms:
    """An old account on a new device to a new address, dearer than usual, outside of its tastes, fast."""
    if facts.earlier_orders < 2:
        return {}
    return {
        "base": -8.0,
        "device": 1.6 * facts.new_device + 1.2 * (facts.new_device and facts.new_address),
        "address": 1.2 * facts.new_address + 1.2 * (facts.new_device and facts.new_address),
        "ip": 0.8 * facts.new_ip,
        "amount": 1.4 * min(max(facts.amount_log_ratio, -1.0), 2.5),
        "taste": 2.4 * facts.taste_mismatch,
        "looks": -0.12 * min(facts.clicks_last_half_hour, 12),
    }


def _bust_out(facts: OrderFacts) -> Terms:
    """A young account whose small orders are followed by a very large one."""
    if facts.earlier_orders < 2:
        return {}
    return {
        "base": -7.6,
        "amount": 2.6 * min(max(facts.amount_log_ratio, 0.0), 3.0),
        "account": 1.5 * (facts.days_since_first_order < 60.0),
        "pace": 0.5 * (facts.orders_last_hour > 0),
        "looks": -0.06 * min(facts.clicks_last_half_hour, 12),
    }


def _refund_abuse(facts: OrderFacts) -> Terms:
    """Refund after refund, to ever other addresses. `refunds` is published as the order's attribute
    refunds_90d.
    """
    return {
        "base": -7.4,
        "refunds": 1.9 * min(facts.refunds, 4),
        "address": 0.8 * facts.ships_elsewhere + 0.3 * facts.new_address,
    }


def _reshipping(facts: OrderFacts) -> Terms:
    """Fresh accounts with foreign cards that ship to one address. It is not known before the drift."""
    return {
        "base": -7.2,
        "address": 2.6 * math.log1p(min(facts.address_users, 8)),
        "card": 1.6 * facts.foreign_card,
        "account": 1.2 * (facts.earlier_orders == 0),
    }


def _opportunist(facts: OrderFacts) -> float:
    """What no campaign explains: a little more often on dear orders and on foreign cards."""
    size = min(max(math.log(max(facts.amount, 1.0) / 300.0), -2.0), 2.0)
    return 0.0012 * math.exp(0.35 * size) + 0.004 * facts.foreign_card


OPPORTUNIST = "opportunist"
KINDS: dict[str, Callable[[OrderFacts], Terms]] = {
    "card_testing": _card_testing,
    "account_takeover": _account_takeover,
    "bust_out": _bust_out,
    "refund_abuse": _refund_abuse,
    "reshipping": _reshipping,
}
NEW_KIND = "reshipping"
"""The kind that only strikes once its drift has begun."""


class Outcome(NamedTuple):
    """probability: of fraud. kind: that struck, or "". cause: the largest part of its log-odds, or "". new: of the new
    kind alone.
    """

    probability: float
    kind: str
    cause: str
    new: float


def outcome(facts: OrderFacts, draws: Draws, *, new_kind: bool) -> Outcome:
    """Draws one number for each kind, struck or not."""
    innocent, struck, cause, strength, new = 1.0, "", "", 0.0, 0.0
    for kind in IN_ORDER:
        terms = KINDS[kind](facts) if kind in KINDS else {}
        chance = _opportunist(facts) if kind == OPPORTUNIST else _chance(terms) if terms else 0.0
        if kind == NEW_KIND:
            new = chance = chance if new_kind else 0.0
        innocent *= 1.0 - chance
        if draws.uniform() < chance and chance > strength:
            struck, cause, strength = kind, _cause(terms), chance
    return Outcome(1.0 - innocent, struck, cause, new)


IN_ORDER = ("card_testing", "account_takeover", "bust_out", "refund_abuse", OPPORTUNIST, "reshipping")


def _cause(terms: Terms) -> str:
    found = [(value, name) for name, value in terms.items() if name != "base" and value > 0]
    return max(found)[1] if found else ""
