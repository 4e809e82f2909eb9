"""What scripted orders are made of: the shop's real orders, its price bands, settled customers and new
accounts. Everything is drawn from the span that is simulated, so that a script never shows what comes after
it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.sources.draws import Draws
from streams.sources.people import Device, Population
from streams.sources.shop import DAY_MS, MINOR_UNITS, Items, Orders

CHEAP, DEAR = 3 * MINOR_UNITS, 6 * MINOR_UNITS
LONGEST_COPY = 25
MINUTE_MS = 60_000

Basket = list[tuple[int, int]]
"""(item, quantity) of each line."""


@dataclass(frozen=True, slots=True)
class Ring:
    """What the orders of one script share."""

    device: Device
    ip: str
    address: str


@dataclass(frozen=True, slots=True)
class Scripted:
    """One order to come: who, when and what; `steps` items looked at before it besides `views`, a share of
    its lines.
    """

    time: int
    user: int
    kind: str
    basket: Basket
    country: str | None
    ring: Ring
    steps: int
    views: float = 0.6
    turn: int = 0


class Casting:
    """What scripts draw on: the shop's real orders, its price bands and a supply of new accounts."""

    def __init__(self, items: Items, orders: Orders, start: int, end: int, people: Population, draws: Draws) -> None:
        self.items, self.orders, self.people, self.draws = items, orders, people, draws
        self.start, self.end = start, end
        self.users = len(orders.customers)
        self._haste = min(1.0, (end - start) / (60 * DAY_MS))
        totals = np.add.reduceat(orders.price * orders.quantity, orders.offsets[:-1]) / MINOR_UNITS
        self.amount: NDArray[np.float64] = totals
        sold = np.unique(orders.item)
        price = items.price[sold]
        self._cheap = sold[price <= CHEAP].tolist() or sold.tolist()
        self._dear = sold[price >= DEAR].tolist() or sold.tolist()
        self._settled: list[int] = np.flatnonzero(_turns(orders.customer) >= 2).tolist()

    def new_user(self) -> int:
        self.users += 1
        return self.users - 1

    def ring(self) -> Ring:
        people = self.people
        return Ring(people.new_device(), people.hosting_ip(), self.draws.token("addr-"))

    def some_time(self, spare: float = 0.0) -> int:
        """A shop hour of some day, at least `spare` days before the end, or fewer in a short world."""
        order = self.draws.below(len(self.orders))
        span = max(1, int(self.end - self.start - spare * DAY_MS * self._haste))
        day = (self.start + self.draws.below(span)) // DAY_MS * DAY_MS
        return max(self.start, day + int(self.orders.time[order]) % DAY_MS)

    def days(self, low: float, high: float) -> int:
        """Between `low` and `high` days in ms; less in a world that is shorter than two months."""
        return int(self.draws.between(low, high) * DAY_MS * self._haste)

    def settled(self) -> tuple[int, int, str | None, float]:
        """A customer of at least three orders: number, some time soon after one of them, country, usual
        amount.
        """
        if not self._settled:
            return self.new_user(), self.some_time(), self.country(), 100.0
        order = self.draws.one_of(self._settled)
        customer = int(self.orders.customer[order])
        theirs = np.flatnonzero(self.orders.customer[: order + 1] == customer)
        time = int(self.orders.time[order]) + self.days(0.5, 25.0)
        country = self.orders.countries[int(self.orders.country[order])]
        return customer, time, country, float(self.amount[theirs].mean())

    def country(self) -> str | None:
        return self.orders.countries[int(self.orders.country[self.draws.below(len(self.orders))])]

    def small(self) -> Basket:
        return [(self.draws.one_of(self._cheap), 1 + self.draws.below(2))]

    def worth(self, amount: float) -> Basket:
        """One to four dear lines that come to about `amount`."""
        lines = 1 + self.draws.below(4)
        picked = list(dict.fromkeys(self.draws.one_of(self._dear) for _ in range(lines)))
        share = amount * MINOR_UNITS / len(picked)
        return [(item, max(1, round(share / max(1, int(self.items.price[item]))))) for item in picked]

    def usual(self) -> Basket:
        """The lines of some real order, the first ones of a long one."""
        lines = self.orders.lines(self.draws.below(len(self.orders)))
        items, quantities = self.orders.item[lines].tolist(), self.orders.quantity[lines].tolist()
        return list(zip(items[:LONGEST_COPY], quantities[:LONGEST_COPY], strict=True))


def _turns(customer: NDArray[np.int32]) -> NDArray[np.int64]:
    """(R,) how many orders of the same customer came before each."""
    by_customer = np.argsort(customer, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(customer[by_customer])) + 1]
    lengths = np.diff(np.r_[starts, len(customer)])
    turns = np.empty(len(customer), np.int64)
    turns[by_customer] = np.arange(len(customer)) - np.repeat(starts, lengths)
    return turns
