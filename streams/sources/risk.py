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

from streams.sources.book import OrderFacts
from streams.sources.draws import Draws

SMALL_AMOUNT = 20.0
CEILING = 0.97


def _chance(logit: float) -> float:
    return CEILING / (1.0 + math.exp(-logit))


def _card_testing(facts: OrderFacts) -> float:
    """Many small orders within the hour, each on a new card, from a device that others use, with hardly a
    look around.
    """
    return _chance(
        -6.6
        + 1.4 * min(facts.orders_last_hour, 3)
        + 1.2 * facts.new_card
        + 1.2 * (facts.new_card and facts.orders_last_hour > 0)
        + 1.4 * (facts.amount < SMALL_AMOUNT)
        + 1.1 * math.log1p(min(facts.device_users, 8))
        - 0.15 * min(facts.clicks_last_half_hour, 10)
    )


def _account_takeover(facts: OrderFacts) -> float:
    """An old account on a new device to a new address, dearer than usual, outside of its tastes, fast."""
    if facts.earlier_orders < 2:
        return 0.0
    return _chance(
        -8.0
        + 1.6 * facts.new_device
        + 1.2 * facts.new_address
        + 2.4 * (facts.new_device and facts.new_address)
        + 0.8 * facts.new_ip
        + 1.4 * min(max(facts.amount_log_ratio, -1.0), 2.5)
        + 2.4 * facts.taste_mismatch
        - 0.12 * min(facts.clicks_last_half_hour, 12)
    )


def _bust_out(facts: OrderFacts) -> float:
    """A young account whose small orders are followed by a very large one."""
    if facts.earlier_orders < 2:
        return 0.0
    return _chance(
        -7.6
        + 2.6 * min(max(facts.amount_log_ratio, 0.0), 3.0)
        + 1.5 * (facts.days_since_first_order < 60.0)
        + 0.5 * (facts.orders_last_hour > 0)
        - 0.06 * min(facts.clicks_last_half_hour, 12)
    )


def _refund_abuse(facts: OrderFacts) -> float:
    """Refund after refund, to ever other addresses. `refunds` is published as the order's attribute
    refunds_90d.
    """
    return _chance(-7.4 + 1.9 * min(facts.refunds, 4) + 0.8 * facts.ships_elsewhere + 0.3 * facts.new_address)


def _reshipping(facts: OrderFacts) -> float:
    """Fresh accounts with foreign cards that ship to one address. It is not known before the drift."""
    return _chance(
        -7.2
        + 2.6 * math.log1p(min(facts.address_users, 8))
        + 1.6 * facts.foreign_card
        + 1.2 * (facts.earlier_orders == 0)
    )


def _opportunist(facts: OrderFacts) -> float:
    """What no campaign explains: a little more often on dear orders and on foreign cards."""
    size = min(max(math.log(max(facts.amount, 1.0) / 300.0), -2.0), 2.0)
    return 0.0012 * math.exp(0.35 * size) + 0.004 * facts.foreign_card


KINDS: dict[str, Callable[[OrderFacts], float]] = {
    "card_testing": _card_testing,
    "account_takeover": _account_takeover,
    "bust_out": _bust_out,
    "refund_abuse": _refund_abuse,
    "opportunist": _opportunist,
    "reshipping": _reshipping,
}
NEW_KIND = "reshipping"
"""The kind that only strikes once its drift has begun."""


def outcome(facts: OrderFacts, draws: Draws, *, new_kind: bool) -> tuple[float, str]:
    """(probability of fraud, the kind that struck or ""). Draws one number for each kind, struck or not."""
    innocent, struck, strength = 1.0, "", 0.0
    for kind, probability in KINDS.items():
        chance = probability(facts) if new_kind or kind != NEW_KIND else 0.0
        innocent *= 1.0 - chance
        if draws.uniform() < chance and chance > strength:
            struck, strength = kind, chance
    return 1.0 - innocent, struck
