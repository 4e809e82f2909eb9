"""Customers and items that training never saw: `python -m bench.quality_cold`, on Online Retail II.
A fifth of the customers and a tenth of the items are taken out of all that trains, drawn by a seed; then orders from
2011-11-09 on are foreseen, those of the cold customers among all items, and the cold items of all orders among
themselves.
"""

import argparse
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.baskets import LEAST, Baskets, Popularity, baskets_of, catalogue_of
from bench.quality_baskets import DIGITS, differences, fresh, judged, milliseconds, named, progress
from bench.report import show
from finetune.baskets import BasketCourse, Prior, fit_baskets, recommended
from schemas.errors import HeadraceError
from streams.sources.retail import load
from streams.sources.shop import Orders

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
    catalog, row = catalogue_of(shop.items)
    whole = baskets_of(shop.orders, catalog, row)
    draw = np.random.default_rng(SEED)
    cold_customer = draw.random(len(shop.orders.customers)) < COLD_CUSTOMERS
    cold_item = draw.random(len(shop.items)) < COLD_ITEMS
    border, end = milliseconds("test")
    warm = baskets_of(without(shop.orders, cold_customer, cold_item), catalog, row)
    known = warm.between(0, border)
    cold_row = np.zeros(len(catalog), np.bool_)
    cold_row[row[cold_item]] = True
    popularity = Popularity(whole)
    popularity.columns[:, cold_row] = np.log(LEAST)  # nothing was ever sold of a new item
    model, prior = fresh(warm, known), Prior(popularity.columns.shape[-1])
    spent = fit_baskets(model, warm, known, popularity.before, prior, BasketCourse(passes=passes), progress)
    asked = whole.between(border, end)
    theirs = asked[cold_customer[shop.orders.customer[asked]]]
    found = judged(whole, theirs, recommended(model, whole, theirs, popularity.before, prior))
    usual = judged(whole, theirs, best_sellers(whole, theirs, ~cold_row))
    said: dict[str, Any] = {"customers_orders": len(theirs), **named("customers_", found)}
    said |= named("customers_popularity_", usual)
    said |= differences(found - usual, whole.customer[theirs], "customers_")
    new = np.array([order for order in asked if cold_row[whole.basket(int(order))].any()])
    among = replace(whole, **only_lines(whole, cold_row))
    found = judged(among, new, recommended(model, whole, new, popularity.before, prior, only=cold_row))
    sold = judged(among, new, best_sellers(whole, new, cold_row))
    said |= {"items": int(cold_row.sum()), "items_orders": len(new), **named("items_", found)}
    said |= {**named("items_popularity_", sold), "items_chance_recall_at_10": TOP / int(cold_row.sum())}
    said |= differences(found - sold, whole.customer[new], "items_")
    return {**said, "training_cpu_s": spent}


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
