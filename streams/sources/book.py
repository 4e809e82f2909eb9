"""All that has been published so far, as a reader of the topics could know it: per user, and per token over
all users. True probabilities are functions of this book and of the event itself, so they are exact given what
was published.
"""

import math
from collections import deque
from typing import NamedTuple

from streams.sources.people import Checkout

INTEREST_DECAY = 0.92
"""How much of an older interaction's weight is left after one more: about the last 12 count."""
RECENT_ITEMS = 24
CLICKS_KEPT = 20
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
RENORMALISE = 1e100


class Shopper:
    """One user's published past.

    Interest is a decayed count per category and per style of what the user viewed, clicked, carted and
    bought; new weights grow instead of old ones shrinking, so that one interaction costs two additions.
    """

    __slots__ = (
        *("categories", "styles", "gain", "interest", "recent", "clicks", "impressions"),
        *("orders", "amounts", "order_times", "first_order", "tokens"),
    )

    def __init__(self, categories: int, styles: int) -> None:
        self.categories = [0.0] * categories
        self.styles = [0.0] * styles
        self.gain, self.interest = 1.0, 0.0
        self.recent: deque[int] = deque(maxlen=RECENT_ITEMS)
        self.clicks: deque[int] = deque(maxlen=CLICKS_KEPT)
        self.impressions: deque[int] = deque(maxlen=CLICKS_KEPT)
        self.orders, self.amounts, self.first_order = 0, 0.0, 0
        self.order_times: deque[int] = deque(maxlen=CLICKS_KEPT)
        self.tokens: set[str] = set()

    def touch(self, item: int, category: int, style: int, weight: float) -> None:
        """An interaction with an item."""
        self.gain /= INTEREST_DECAY
        added = weight * self.gain
        self.interest += added
        self.categories[category] += added
        self.styles[style] += added
        self.recent.append(item)
        if self.gain > RENORMALISE:
            self._renormalise()

    def _renormalise(self) -> None:
        self.categories = [value / self.gain for value in self.categories]
        self.styles = [value / self.gain for value in self.styles]
        self.interest /= self.gain
        self.gain = 1.0

    def clicks_since(self, time: int) -> int:
        return sum(1 for at in self.clicks if at >= time)

    def impressions_since(self, time: int) -> int:
        return sum(1 for at in self.impressions if at >= time)


class OrderFacts(NamedTuple):
    """What was published of an order and before it, as the fraud probability reads it."""

    amount: float  # units of currency
    earlier_orders: int  # of this user
    orders_last_hour: int
    days_since_first_order: float
    amount_log_ratio: float  # log(amount / mean of the user's earlier orders); 0 for a first order
    new_card: bool  # new_*: the user ordered before, never with this token
    new_device: bool
    new_address: bool
    new_ip: bool
    device_users: int  # other users who ordered with this device before
    address_users: int
    clicks_last_half_hour: int  # at most 20
    taste_mismatch: float  # 0..1, share of the basket outside of the categories the user looked at
    foreign_card: bool
    ships_elsewhere: bool
    refunds: int


class Book:
    """The published past of all users."""

    def __init__(self, categories: int, styles: int) -> None:
        self._sizes = categories, styles
        self._shoppers: dict[int, Shopper] = {}
        self._first_user: dict[str, int] = {}
        self._other_users: dict[str, set[int]] = {}

    def shopper(self, user: int) -> Shopper:
        known = self._shoppers.get(user)
        if known is None:
            known = self._shoppers[user] = Shopper(*self._sizes)
        return known

    def facts(
        self,
        user: int,
        time: int,
        amount: float,
        basket: dict[int, float],
        checkout: Checkout,
        country: str | None,
    ) -> OrderFacts:
        """`basket`: category to its share of the basket's lines."""
        shopper, again = self.shopper(user), self.shopper(user).orders > 0
        usual = shopper.amounts / shopper.orders if again else amount
        card = checkout.card
        return OrderFacts(
            amount=amount,
            earlier_orders=shopper.orders,
            orders_last_hour=sum(1 for at in shopper.order_times if at >= time - HOUR_MS),
            days_since_first_order=(time - shopper.first_order) / 86_400_000 if again else 0.0,
            amount_log_ratio=_log_ratio(amount, usual),
            new_card=again and card is not None and card.token not in shopper.tokens,
            new_device=again and checkout.device.token not in shopper.tokens,
            new_address=again and checkout.shipping not in shopper.tokens,
            new_ip=again and checkout.ip not in shopper.tokens,
            device_users=self._others(checkout.device.token, user),
            address_users=self._others(checkout.shipping, user),
            clicks_last_half_hour=shopper.clicks_since(time - 30 * MINUTE_MS),
            taste_mismatch=_mismatch(shopper, basket),
            foreign_card=card is not None and card.issuer is not None and card.issuer != country,
            ships_elsewhere=checkout.shipping != checkout.billing,
            refunds=checkout.refunds,
        )

    def order(self, user: int, time: int, amount: float, checkout: Checkout) -> None:
        """Writes an order down, after its facts were taken."""
        shopper = self.shopper(user)
        shopper.first_order = shopper.first_order or time
        shopper.orders += 1
        shopper.amounts += amount
        shopper.order_times.append(time)
        tokens = [checkout.device.token, checkout.shipping, checkout.email, checkout.ip]
        shopper.tokens.update(tokens + ([checkout.card.token] if checkout.card else []))
        for token in (checkout.device.token, checkout.shipping):
            first = self._first_user.setdefault(token, user)
            if first != user:
                self._other_users.setdefault(token, {first}).add(user)

    def _others(self, token: str, user: int) -> int:
        users = self._other_users.get(token)
        if users is not None:
            return len(users - {user})
        return int(self._first_user.get(token, user) != user)


def _log_ratio(amount: float, usual: float) -> float:
    return math.log(max(amount, 0.01) / max(usual, 0.01))


def _mismatch(shopper: Shopper, basket: dict[int, float]) -> float:
    if not shopper.interest:
        return 1.0
    interests, total = shopper.categories, shopper.interest
    return 1.0 - sum(min(share, interests[category] / total) for category, share in basket.items())
