"""An order as it is told: its basket and checkout, the draw whether it is fraud, and its entry in the book.
The draw reads the book before the order is written into it, so its probability is exact given what was
published.
"""

from collections.abc import Callable
from typing import NamedTuple

from streams.sources import looks, records, risk
from streams.sources.book import Book
from streams.sources.casting import Scripted
from streams.sources.draws import Draws
from streams.sources.people import Population
from streams.sources.plan import Plan
from streams.sources.records import Record
from streams.sources.shop import MINOR_UNITS, Items
from streams.sources.truth import Truth

PURCHASE_WEIGHT = 0.5
LINES_THAT_COUNT = 15
"""The dearest lines, which are those that a user's history keeps."""
FIRST_AD_ORDER = 900_001
MOST_LINES = 500
"""What an order may have; one real invoice is longer and is cut."""

Line = tuple[int, int, int]
"""item, quantity, price in minor units."""


class Sale(NamedTuple):
    order: Record
    truth: Truth


class Cashier:
    def __init__(self, plan: Plan, items: Items, book: Book, people: Population, draws: Draws) -> None:
        self._plan, self._items, self._book, self._people, self._draws = plan, items, book, people, draws
        self._categories, self._styles = items.category.tolist(), items.style.tolist()
        orders = plan.orders
        self._home = {
            user: orders.countries[place]
            for user, place in zip(orders.customer.tolist(), orders.country.tolist(), strict=True)
        }
        self._unplanned = 0

    def sell(
        self, order: int, time: int, session: str, *, new_kind: bool, is_decided: Callable[[int], bool] | None = None
    ) -> Sale:
        """Order number `order` of the plan; `new_kind`: the new kind of fraud has begun. Lines of items that were
        decided about already are left out, unless nothing else is bought.
        """
        orders, script = self._plan.orders, self._plan.scripts.get(order)
        user, country = int(orders.customer[order]), orders.countries[int(orders.country[order])]
        lines = self._lines(order)
        if is_decided is not None:
            lines = [line for line in lines if not is_decided(line[0])] or lines
        return self._sold(user, country, lines, orders.ids[order], time, session, script, new_kind=new_kind)

    def sell_one(self, user: int, item: int, quantity: int, time: int, session: str, *, new_kind: bool) -> Sale:
        """An order of one item that no plan has: one that an ad brought."""
        self._unplanned += 1
        lines = [(item, quantity, int(self._items.price[item]))]
        order_id = str(FIRST_AD_ORDER - 1 + self._unplanned)
        return self._sold(user, self._home.get(user), lines, order_id, time, session, None, new_kind=new_kind)

    def _sold(
        self, user: int, country: str | None, lines: list[Line], order_id: str, time: int, session: str,
        script: Scripted | None, *, new_kind: bool,
    ) -> Sale:  # fmt: skip
        minor = sum(quantity * price for _, quantity, price in lines)
        amount, shares = minor / MINOR_UNITS, self._shares(lines)
        people, draws = self._people, self._draws
        paid = looks.checkout(script, people, draws) if script else people.checkout(user, country)
        facts = self._book.facts(user, time, amount, shares, paid, country)
        struck = risk.outcome(facts, draws, new_kind=new_kind)
        self._buy(user, lines)
        self._book.order(user, time, amount, paid)
        event_id, user_id = draws.token("o"), self._plan.users[user]
        named = [records.order_line(self._items.ids[item], quantity, price) for item, quantity, price in lines]
        record = records.order(event_id, time, user_id, session, order_id, named, minor, paid, country)
        return Sale(record, _truth(record, struck, script))

    def _lines(self, order: int) -> list[Line]:
        orders, where = self._plan.orders, self._plan.orders.lines(order)
        columns = (orders.item[where], orders.quantity[where], orders.price[where])
        return list(zip(*(column[:MOST_LINES].tolist() for column in columns), strict=True))

    def _shares(self, lines: list[Line]) -> dict[int, float]:
        """Category to its share of the lines."""
        shares: dict[int, float] = {}
        for item, _, _ in lines:
            category = self._categories[item]
            shares[category] = shares.get(category, 0.0) + 1.0 / len(lines)
        return shares

    def _buy(self, user: int, lines: list[Line]) -> None:
        shopper = self._book.shopper(user)
        dearest = sorted(lines, key=lambda line: line[1] * line[2], reverse=True)[:LINES_THAT_COUNT]
        for item, _, _ in dearest:
            shopper.touch(item, self._categories[item], self._styles[item], PURCHASE_WEIGHT)


def _truth(order: Record, struck: risk.Outcome, script: Scripted | None) -> Truth:
    return Truth(
        event_id=order["event_id"],
        task="fraud",
        target_id=order["order_id"],
        event_time=order["event_time"],
        probabilities=(struck.probability,),
        outcomes=(int(bool(struck.kind)),),
        kind=struck.kind,
        cause=struck.cause,
        new=struck.new,
        script=script.kind if script else "",
    )
