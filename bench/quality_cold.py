"""Customers and items that training never saw: `python -m bench.quality_cold`, on Online Retail II.
A fifth of the customers and a tenth of the items are taken out of all that trains, drawn by a seed; then orders from
2011-11-09 on are foreseen, those of the cold customers among all items, and the cold items of all orders among
themselves.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from bench.baskets import LEAST, Baskets, Popularity, baskets_of, catalogue_of
from bench.quality_baskets import DIGITS, Pair, differences, fresh, judged, milliseconds, named, progress
from bench.report import show
from engines.model import HeadraceModel
from finetune.baskets import BasketCourse, Prior, fit_baskets, recommended
from schemas.errors import HeadraceError
from streams.catalog import Catalogue
from streams.sources.retail import load
from streams.sources.shop import Orders, Shop

TARGETS = {f"{who}_{what}_difference_below_0": 0.0 for who in ("customers", "items") for what in ("hit", "recall")}
COLD_CUSTOMERS, COLD_ITEMS, SEED, TOP = 0.2, 0.1, 0, 10


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quality_cold", description=__doc__)
    parser.add_argument("--passes", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        show("quality_cold", figures(arguments.passes), TARGETS, DIGITS)
    except HeadraceError as error:
        sys.exit(str(error))


def figures(passes: float = 2.0) -> dict[str, Any]:
    """Raises DataUnavailable."""
    shop, _ = load(products_only=False)
    cold = Cold.of(shop)
    learned = Learned.of(cold, *catalogue_of(shop.items), passes)
    whole, asked = learned.whole, learned.asked
    theirs = asked[cold.customers[shop.orders.customer[asked]]]
    found = judged(whole, theirs, learned.answers(theirs))
    usual = judged(whole, theirs, best_sellers(whole, theirs, ~learned.cold_row))
    said: dict[str, Any] = {"customers_orders": len(theirs), **named("customers_", found)}
    said |= named("customers_popularity_", usual)
    said |= differences(found - usual, whole.customer[theirs], "customers_")
    new, found = learned.new_items()
    among = replace(whole, **only_lines(whole, learned.cold_row))
    sold = judged(among, new, best_sellers(whole, new, learned.cold_row))
    count = int(learned.cold_row.sum())
    said |= {"items": count, "items_orders": len(new), **named("items_", found)}
    said |= {**named("items_popularity_", sold), "items_chance_recall_at_10": TOP / count}
    said |= differences(found - sold, whole.customer[new], "items_")
    return {**said, "training_cpu_s": learned.cpu_s}


@dataclass(frozen=True, slots=True)
class Cold:
    """customers, items: which ones training does not see. warm: the orders without them."""

    orders: Orders
    warm: Orders
    customers: NDArray[np.bool_]
    items: NDArray[np.bool_]

    @classmethod
    def of(cls, shop: Shop) -> Self:
        draw = np.random.default_rng(SEED)
        customers = draw.random(len(shop.orders.customers)) < COLD_CUSTOMERS
        items = draw.random(len(shop.items)) < COLD_ITEMS
        return cls(shop.orders, without(shop.orders, customers, items), customers, items)


@dataclass(frozen=True, slots=True)
class Learned:
    """A model of the warm orders before the test span, and what it is asked about. cold_row (N,): new items' rows."""

    whole: Baskets
    asked: NDArray[np.intp]
    cold_row: NDArray[np.bool_]
    popularity: Popularity
    model: HeadraceModel
    prior: Prior
    cpu_s: float

    @classmethod
    def of(cls, cold: Cold, catalog: Catalogue, row: NDArray[np.int32], passes: float) -> Self:
        whole, warm = baskets_of(cold.orders, catalog, row), baskets_of(cold.warm, catalog, row)
        border, end = milliseconds("test")
        known = warm.between(0, border)
        cold_row = np.zeros(len(catalog), np.bool_)
        cold_row[row[cold.items]] = True
        popularity = Popularity(whole)
        popularity.columns[:, cold_row] = np.log(LEAST)  # nothing was ever sold of a new item
        model, prior = fresh(warm, known), Prior(popularity.columns.shape[-1])
        spent = fit_baskets(model, warm, known, popularity.before, prior, BasketCourse(passes=passes), progress)
        return cls(whole, whole.between(border, end), cold_row, popularity, model, prior, spent)

    def answers(self, asked: NDArray[np.intp], only: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
        return recommended(self.model, self.whole, asked, self.popularity.before, self.prior, only=only)

    def new_items(self) -> tuple[NDArray[np.intp], Pair]:
        """The orders with a new item, and how well these are foreseen among themselves."""
        new = np.array([order for order in self.asked if self.cold_row[self.whole.basket(int(order))].any()])
        among = replace(self.whole, **only_lines(self.whole, self.cold_row))
        return new, judged(among, new, self.answers(new, self.cold_row))


def without(orders: Orders, customers: NDArray[np.bool_], items: NDArray[np.bool_]) -> Orders:
    """Orders of the other customers with the lines of the other items; an order that was nothing else is gone."""
    order_of = np.repeat(np.arange(len(orders)), np.diff(orders.offsets))
    keep = ~items[orders.item] & ~customers[orders.customer[order_of]]
    size = np.bincount(order_of[keep], minlength=len(orders))
    lines = replace(
        orders,
        offsets=np.concatenate([[0], np.cumsum(size)]).astype(np.int64),
        item=orders.item[keep],
        quantity=orders.quantity[keep],
        price=orders.price[keep],
    )
    return lines.take(np.flatnonzero(size))


def only_lines(baskets: Baskets, rows: NDArray[np.bool_]) -> dict[str, Any]:
    """The baskets' columns with these items only."""
    keep = rows[baskets.item]
    order_of = np.repeat(np.arange(len(baskets.time)), np.diff(baskets.offset))
    size = np.bincount(order_of[keep], minlength=len(baskets.time))
    return {"offset": np.concatenate([[0], np.cumsum(size)]), "item": baskets.item[keep]}


def best_sellers(baskets: Baskets, asked: NDArray[np.intp], rows: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(R, 10) of these items, what sold most in the 30 days before: for new items, more than anyone knew of them."""
    out = np.zeros((len(asked), TOP), np.int32)
    line_time = np.repeat(baskets.time, np.diff(baskets.offset))
    for number, now in enumerate(baskets.time[asked]):
        span = slice(*np.searchsorted(line_time, [now - 30 * 86_400_000, now]))
        sold = np.bincount(baskets.item[span], minlength=len(rows)).astype(np.float64)
        sold[~rows] = -1
        sold[0] = -2
        out[number] = np.argsort(-sold, kind="stable")[:TOP]
    return out


if __name__ == "__main__":
    main()
