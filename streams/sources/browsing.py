"""What a visit looks at: a day's visits at once, as arrays. Nobody looks at what only a later order could
have shown. An item is the basket's own, one that was bought together with it before, one of its category, or
a popular one.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.sources.advertising import Ads, slates
from streams.sources.plan import Plan, Visits
from streams.sources.shop import DAY_MS, Orders, Shop
from streams.sources.taxonomy import CATEGORIES

VIEW, CLICK, CART, UNCART, WISH, SEARCH, IMPRESSION, CHECKOUT = range(8)
ACTIONS = ("view", "click", "cart", "uncart", "wish", "search")
HOME, ITEM_PAGE, RESULTS = range(3)
WINDOW_MS = 60 * DAY_MS
MOST_VIEWED = 24
USUAL_WAYS, SHIFTED_WAYS = (0.25, 0.60, 0.85), (0.08, 0.16, 0.85)
"""Cumulative shares of looking at the basket's own item, at a companion's, at one of the category; the rest:
popular.
"""


class Trails:
    """The shop's order lines, to be asked what went together, what a category sold and what was popular."""

    def __init__(self, shop: Shop) -> None:
        orders = shop.orders
        self._orders: Orders = orders
        self._lines = len(orders.item)
        self._line_order = np.repeat(np.arange(len(orders)), np.diff(orders.offsets))
        category = shop.items.category.astype(np.int64)
        self._by_item = np.sort(orders.item.astype(np.int64) * self._lines + np.arange(self._lines))
        self._by_category = np.sort(category[orders.item] * self._lines + np.arange(self._lines))

    def window(self, time: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The lines of the 60 days before each time: first, and one past the last."""
        orders = self._orders
        first = orders.offsets[np.searchsorted(orders.time, time - WINDOW_MS)]
        return first, orders.offsets[np.searchsorted(orders.time, time)]

    def companion(
        self, item: NDArray[np.int64], until: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """An item of some earlier order that has `item`; `item` itself where there is none."""
        line = self._pick(self._by_item, item, np.zeros_like(until), until, rng)
        order = self._line_order[line]
        offsets = self._orders.offsets
        other = offsets[order] + (rng.random(len(item)) * (offsets[order + 1] - offsets[order])).astype(np.int64)
        return np.where(line >= 0, self._orders.item[other], item)

    def kin(
        self,
        category: NDArray[np.int64],
        first: NDArray[np.int64],
        until: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """An item of the category, as often as it sold in the window; -1 where none did."""
        line = self._pick(self._by_category, category, first, until, rng)
        return np.where(line >= 0, self._orders.item[line], -1)

    def popular(
        self, first: NDArray[np.int64], until: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """An item as often as it sold in the window; -1 where nothing did."""
        line = first + (rng.random(len(first)) * (until - first)).astype(np.int64)
        return np.where(until > first, self._orders.item[np.minimum(line, self._lines - 1)], -1)

    def _pick(
        self,
        keys: NDArray[np.int64],
        group: NDArray[np.int64],
        first: NDArray[np.int64],
        until: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """A random line of each group within [first, until); -1 where there is none."""
        low = np.searchsorted(keys, group * self._lines + first)
        high = np.searchsorted(keys, group * self._lines + until)
        at = low + (rng.random(len(group)) * (high - low)).astype(np.int64)
        return np.where(high > low, keys[np.minimum(at, self._lines - 1)] % self._lines, -1)


class Steps(NamedTuple):
    """Events of some visits in time order: what happens, in which visit, to which item (-1: none); `page` is
    the placement of an impression; `slate` numbers into `slates`, (I, 8) ads, repeats within a row and
    all."""

    time: NDArray[np.int64]
    code: NDArray[np.int64]
    visit: NDArray[np.int64]
    item: NDArray[np.int64]
    page: NDArray[np.int64]
    slate: NDArray[np.int64]
    slates: NDArray[np.int64]


@dataclass(slots=True)
class Browsing:
    """`liked[category]` is where a taste for a category leads; None before tastes shift."""

    plan: Plan
    items_category: NDArray[np.int16]
    trails: Trails
    ads: Ads
    liked: list[int] | None = None

    def steps(self, visits: Visits, numbers: NDArray[np.int64], rng: np.random.Generator) -> Steps:
        """All that happens in these visits; `numbers` are theirs in the plan."""
        visit, item, own = self._looked_at(visits, rng)
        time = _spread(visits, visit, rng)
        rows = _clicks(visits, visit, item, own, time, rng)
        rows += _impressions(visits, visit, item, time, rows[1])
        ends = np.flatnonzero(visits.buys)
        rows.append(_rows(visits.end[ends], CHECKOUT, ends, -1, 0))
        time, code, visit, item, page = (np.concatenate(column) for column in zip(*rows, strict=True))
        by_time = np.lexsort((code, time))
        time, code, visit, item, page = (column[by_time] for column in (time, code, visit, item, page))
        shown = np.flatnonzero(code == IMPRESSION)
        slate = np.full(len(time), -1)
        slate[shown] = np.arange(len(shown))
        category = self.items_category[self._page_item(visits, visit[shown], item[shown], rng)]
        return Steps(time, code, numbers[visit], item, page, slate, slates(self.ads, time[shown], category, rng))

    def _page_item(
        self, visits: Visits, visit: NDArray[np.int64], item: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """The page's item, or one of the leading basket where it has none."""
        return np.where(item >= 0, item, self._leading(visits, visit, rng))

    def _leading(self, visits: Visits, visit: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        offsets, anchor = self.plan.orders.offsets, visits.anchor[visit]
        lines = offsets[anchor] + (rng.random(len(visit)) * (offsets[anchor + 1] - offsets[anchor])).astype(np.int64)
        return self.plan.orders.item[lines].astype(np.int64)

    def _looked_at(
        self, visits: Visits, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Visit, item and whether it is the basket's own, in the order of looking: a category at a time."""
        mood = rng.random((len(visits), len(CATEGORIES)))
        own_visit, own_item = self._own(visits, rng)
        visit = np.repeat(np.arange(len(visits)), visits.steps)
        lead = self._leading(visits, visit, rng)
        item = self._wander(visits.start[visit], lead, rng)
        all_visits, all_leads = np.concatenate([own_visit, visit]), np.concatenate([own_item, lead])
        rank = mood[all_visits, self.items_category[all_leads]] + 0.02 * rng.random(len(all_visits))
        order = np.lexsort((rank, all_visits))
        own = np.arange(len(all_visits)) < len(own_visit)
        return all_visits[order], np.concatenate([own_item, item])[order], own[order]

    def _own(self, visits: Visits, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The lines of the leading basket that are looked at before they are bought."""
        offsets = self.plan.orders.offsets
        lengths = np.where(visits.buys, offsets[visits.anchor + 1] - offsets[visits.anchor], 0)
        visit = np.repeat(np.arange(len(visits)), lengths)
        first = np.cumsum(lengths) - lengths
        place = np.arange(len(visit)) - first[visit]
        share = np.minimum(visits.views[visit], MOST_VIEWED / np.maximum(lengths[visit], 1))
        seen = rng.random(len(visit)) < share
        lines = offsets[visits.anchor[visit]] + place
        return visit[seen], self.plan.orders.item[lines[seen]].astype(np.int64)

    def _wander(self, time: NDArray[np.int64], lead: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """From an item of the basket to one that is looked at."""
        first, until = self.trails.window(time)
        category = self.items_category[lead].astype(np.int64)
        if self.liked is not None:
            category = np.array(self.liked)[category]
        way = np.searchsorted(USUAL_WAYS if self.liked is None else SHIFTED_WAYS, rng.random(len(lead)), side="right")
        options = (
            lead,
            self.trails.companion(lead, until, rng),
            self.trails.kin(category, first, until, rng),
            self.trails.popular(first, until, rng),
        )
        item = np.choose(way, options)
        return np.where(item >= 0, item, lead)


def _spread(visits: Visits, visit: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Times in the visit, ascending; `visit` ascends."""
    at = rng.random(len(visit))
    at = at[np.lexsort((at, visit))]
    room = np.maximum(visits.end - visits.start - 4_000, 0)
    time: NDArray[np.int64] = visits.start[visit] + 1_000 + (at * room[visit]).astype(np.int64)
    return time


Row = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _rows(
    time: NDArray[np.int64],
    code: NDArray[np.int64] | int,
    visit: NDArray[np.int64],
    item: NDArray[np.int64] | int,
    page: NDArray[np.int64] | int,
) -> Row:
    def column(value: NDArray[np.int64] | int) -> NDArray[np.int64]:
        return np.broadcast_to(np.asarray(value, np.int64), time.shape)

    return time, column(code), visit, column(item), column(page)


def _clicks(
    visits: Visits,
    visit: NDArray[np.int64],
    item: NDArray[np.int64],
    own: NDArray[np.bool_],
    time: NDArray[np.int64],
    rng: np.random.Generator,
) -> list[Row]:
    """Views; searches that led to them; carts, second thoughts and wishes that followed. All within the
    visit.
    """
    at = rng.random((4, len(visit)))
    code = np.where(at[0] < 0.8, VIEW, CLICK)
    bought = own & visits.buys[visit]
    cart = np.flatnonzero(np.where(bought, at[1] < 0.5, at[1] < 0.06))
    regret = cart[~bought[cart] & (at[2][cart] < 0.6)]
    wish = np.flatnonzero(~bought & (at[3] < 0.04))
    search = np.flatnonzero(at[3] > 0.93)
    end = visits.end[visit]
    return [
        _rows(time, code, visit, item, 0),
        _rows(
            np.maximum(time[search] - 900, visits.start[visit[search]]),
            SEARCH,
            visit[search],
            item[search],
            0,
        ),
        _rows(np.minimum(time[cart] + 1_500, end[cart]), CART, visit[cart], item[cart], 0),
        _rows(np.minimum(time[regret] + 2_500, end[regret]), UNCART, visit[regret], item[regret], 0),
        _rows(np.minimum(time[wish] + 1_200, end[wish]), WISH, visit[wish], item[wish], 0),
    ]


def _impressions(
    visits: Visits, visit: NDArray[np.int64], item: NDArray[np.int64], time: NDArray[np.int64], searches: Row
) -> list[Row]:
    """A slate on the home page, on every sixth item's page and on half of the result pages."""
    first = np.flatnonzero(np.r_[True, visit[1:] != visit[:-1]]) if len(visit) else np.zeros(0, np.intp)
    rank = np.arange(len(visit)) - np.repeat(first, np.diff(np.r_[first, len(visit)]))
    page = np.flatnonzero(rank % 6 == 3)
    start = visits.start[visit[first]]
    found = slice(0, None, 2)
    return [
        _rows(start, IMPRESSION, visit[first], -1, HOME),
        _rows(time[page] + 200, IMPRESSION, visit[page], item[page], ITEM_PAGE),
        _rows(searches[0][found] + 300, IMPRESSION, searches[2][found], searches[3][found], RESULTS),
    ]
