"""Online Retail II as customers' sequences: an opening for every order, then its items; and what is in each basket.
Duplicates, cancellations, returns and lines without a customer are out; postage and gifts stay in, as the protocol
has it. Everything about an order is from before it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.sequences import Sequences
from streams.catalog import NOT_A_CANDIDATE, Catalogue
from streams.demo.models import text_encoder
from streams.sources.fetch import cache_folder
from streams.sources.retail import load
from streams.sources.shop import DAY_MS, MINOR_UNITS, Items, Orders
from streams.vectors import Encoder, catalogue_vectors

OPENING, LINE = 1, 2  # kinds of events: someone comes to order, and what is ordered
HALF_LIVES = (5.0, 20.0, 120.0)  # days
SEASON_DAYS = 28
NORMAL, LEAST = 1000.0, 0.05  # a popularity is log of so many parts, and at least this


@dataclass(frozen=True, slots=True)
class Baskets:
    """R orders by time. basket r is `item[offset[r]:offset[r + 1]]`, distinct rows in the order of their lines.

    opening (R,): its opening's place in its customer's events. customer (R,): number of the customer in `sequences`.
    """

    sequences: Sequences
    catalog: Catalogue
    time: NDArray[np.int64]
    customer: NDArray[np.intp]
    opening: NDArray[np.int64]
    offset: NDArray[np.int64]
    item: NDArray[np.int32]

    def basket(self, order: int) -> NDArray[np.int32]:
        return self.item[self.offset[order] : self.offset[order + 1]]

    def between(self, start: int, end: int) -> NDArray[np.intp]:
        """Numbers of the orders of a span of time, ms, in order of time."""
        return np.flatnonzero((self.time >= start) & (self.time < end))


def load_baskets() -> Baskets:
    """Raises DataUnavailable."""
    shop, _ = load(products_only=False)
    return baskets_of(shop.orders, *catalogue_of(shop.items))


def catalogue_of(items: Items, encoder: Encoder | None = None) -> tuple[Catalogue, NDArray[np.int32]]:
    """The shop's items with their text vectors, by the general encoder if none is given, and each one's row."""
    catalog = Catalogue()
    records = [{"item_id": ident, "text": text} for ident, text in zip(items.ids, items.texts, strict=True)]
    for record in catalogue_vectors(records, [], encoder or text_encoder(cache_folder())):
        catalog.apply_vector(record)
    return catalog, np.array([catalog.items[ident] for ident in items.ids], np.int32)


def baskets_of(orders: Orders, catalog: Catalogue, row: NDArray[np.int32]) -> Baskets:
    """row (items,): each shop item's row in the catalogue."""
    order_of = np.repeat(np.arange(len(orders)), np.diff(orders.offsets))
    _, first = np.unique(np.stack([order_of, orders.item]), axis=1, return_index=True)
    first = np.sort(first)
    order_of = order_of[first]
    size = np.bincount(order_of, minlength=len(orders))
    offset = np.concatenate([[0], np.cumsum(size)])
    names, customer = np.unique(orders.customer, return_inverse=True)
    # events: each order's opening before its lines, by customer, then by time
    of_event = np.concatenate([np.arange(len(orders)), order_of])
    is_line = np.concatenate([np.zeros(len(orders), np.int8), np.ones(len(first), np.int8)])
    by_customer = np.lexsort((np.arange(len(of_event)), is_line, of_event, customer[of_event]))
    value = orders.quantity[first] * (orders.price[first] / MINOR_UNITS)
    start = np.concatenate([[0], np.cumsum(np.bincount(customer[of_event], minlength=len(names)))])
    place = np.empty(len(of_event), np.int64)
    place[by_customer] = np.arange(len(of_event))
    sequences = Sequences(
        start=start,
        item=_lined(row[orders.item[first]], len(orders), by_customer).astype(np.int32),
        kind=np.where(is_line, LINE, OPENING)[by_customer].astype(np.uint8),
        time=orders.time[of_event][by_customer],
        value=_lined(value, len(orders), by_customer).astype(np.float32),
        quantity=_lined(orders.quantity[first], len(orders), by_customer).astype(np.float32),
    )
    opening = place[: len(orders)] - start[customer]
    return Baskets(sequences, catalog, orders.time, customer, opening, offset, row[orders.item[first]])


def _lined(lines: NDArray[np.generic], orders: int, by_customer: NDArray[np.intp]) -> NDArray[np.float64]:
    """A column of lines as one of events, 0 at openings."""
    return np.concatenate([np.zeros(orders), lines.astype(np.float64)])[by_customer]


class Popularity:
    """What sold before each day: one column a half-life, and one of the four weeks that followed a year before."""

    def __init__(self, baskets: Baskets) -> None:
        rows = len(baskets.catalog)
        self._first = int(baskets.time.min() // DAY_MS)
        days = int(baskets.time.max() // DAY_MS) - self._first + 1
        sold = np.zeros((days, rows), np.float32)
        day = baskets.time // DAY_MS - self._first
        np.add.at(sold, (np.repeat(day, np.diff(baskets.offset)), baskets.item), 1)
        self.columns = np.stack([*(_fading(sold, half) for half in HALF_LIVES), _year_before(sold)], axis=-1)
        self.columns[:, 0] = 0

    def before(self, time: NDArray[np.int64]) -> NDArray[np.float32]:
        """(T, N, 4) as known when the day of each time began."""
        known: NDArray[np.float32] = self.columns[time // DAY_MS - self._first]
        return known


def _fading(sold: NDArray[np.float32], half: float) -> NDArray[np.float32]:
    keep, kept, out = np.float32(0.5 ** (1 / half)), np.zeros(sold.shape[1], np.float32), np.empty_like(sold)
    for day, today in enumerate(sold):
        out[day] = kept
        kept = kept * keep + today
    return _parts(out)


def _year_before(sold: NDArray[np.float32]) -> NDArray[np.float32]:
    up_to = np.concatenate([np.zeros((1, sold.shape[1])), np.cumsum(sold, axis=0)]).astype(np.float32)
    out = np.zeros_like(sold)
    for day in range(365, len(sold)):
        out[day] = up_to[day - 365 + SEASON_DAYS] - up_to[day - 365]
    return _parts(out)


def _parts(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    whole = counts.sum(axis=1, keepdims=True)
    parts: NDArray[np.float32] = np.log(counts / np.maximum(whole, 1) * np.float32(NORMAL) + np.float32(LEAST))
    return parts


def never(rows: int) -> NDArray[np.float32]:
    """(N,) 0 for an item, and for row 0 what keeps it out."""
    bias = np.zeros(rows, np.float32)
    bias[0] = NOT_A_CANDIDATE
    return bias
