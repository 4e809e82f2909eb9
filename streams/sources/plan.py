"""Who comes to the shop when: every order of the span, real and scripted, and every visit, drawn before the
first event. A visit either ends in an order or only looks around; those that look around are led by an order
to come, or one gone by.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streams.sources.campaigns import script
from streams.sources.casting import Casting, Scripted
from streams.sources.draws import Draws
from streams.sources.people import Population
from streams.sources.shop import DAY_MS, Orders, Shop

MINUTE_MS = 60_000
FIRST_SIMULATED_ORDER = 600_001
FIRST_SIMULATED_CUSTOMER = 20_001
USER_SPAN = 1 << 42  # more ms than any span: user * USER_SPAN + ms sorts by user, then time


@dataclass(frozen=True, slots=True)
class Visits:
    """V visits by start. `anchor` is the order whose basket leads what is looked at; `buys`: it is placed at
    the end.

    `steps` is how many items are looked at besides the basket's own, of which a share of `views` is.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    user: NDArray[np.int64]
    anchor: NDArray[np.int64]
    steps: NDArray[np.int64]
    views: NDArray[np.float64]
    buys: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.start)

    def take(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> "Visits":
        columns = (self.start, self.end, self.user, self.anchor, self.steps, self.views, self.buys)
        return Visits(*(column[chosen] for column in columns))  # type: ignore[arg-type]  # in the fields' order


@dataclass(frozen=True, slots=True)
class Plan:
    """`scripts[order]` is the script of a scripted order; the other orders are the shop's own."""

    users: list[str]
    orders: Orders
    scripts: dict[int, Scripted]
    visits: Visits


def make_plan(
    shop: Shop,
    *,
    start: int,
    end: int,
    customers: float,
    campaign_share: float,
    browse: float,
    guests: float,
    rng: np.random.Generator,
) -> Plan:
    """`campaign_share`: campaign orders over real ones; `browse`: visits without an order for each with one;
    `guests`: visits by unknown users for each order; `customers`: the share of the shop's customers that
    takes part.
    """
    orders = _span(shop.orders, start, end, customers, rng)
    draws = Draws(rng)
    supply = Population(orders.countries, np.zeros(0, np.int32), draws)
    cast = Casting(shop.items, orders, start, end, supply, draws) if len(orders) else None
    scripted = script(cast, campaign_share * len(orders)) if cast and campaign_share > 0 else []
    merged, scripts = _merge(orders, scripted, shop)
    users = _user_ids(orders.customers, scripted)
    buying = _buying(merged, scripts, rng)
    guest_visits = _guests(merged, round(guests * len(orders)), len(users), start, end, rng)
    looking = _without_overlap(buying, _looking(merged, scripts, buying, browse, start, rng))
    parts = (buying, looking, guest_visits)
    columns = zip(*((v.start, v.end, v.user, v.anchor, v.steps, v.views, v.buys) for v in parts), strict=True)
    visits = Visits(*(np.concatenate(column) for column in columns))
    users += [f"anon:{number:06d}" for number in range(int(guest_visits.user.max(initial=-1)) + 1 - len(users))]
    return Plan(users, merged, scripts, visits.take(np.argsort(visits.start, kind="stable")))


def _span(orders: Orders, start: int, end: int, share: float, rng: np.random.Generator) -> Orders:
    """The orders of the span by a random `share` of the customers, who are numbered anew."""
    chosen = np.zeros(len(orders.customers), np.bool_)
    chosen[rng.permutation(len(chosen))[: round(share * len(chosen))]] = True
    inside = np.flatnonzero((orders.time >= start) & (orders.time < end) & chosen[orders.customer])
    taken = orders.take(inside)
    present, customer = np.unique(taken.customer, return_inverse=True)
    names = [orders.customers[number] for number in present.tolist()]
    return replace(taken, customer=customer.astype(np.int32), customers=names)


def _user_ids(customers: list[str], scripted: list[Scripted]) -> list[str]:
    """New accounts are numbered by their first order, campaigns' and innocent ones alike."""
    newcomers = dict.fromkeys(order.user for order in scripted if order.user >= len(customers))
    rank = {user: number for number, user in enumerate(newcomers)}
    count = max(newcomers, default=len(customers) - 1) + 1 - len(customers)
    unused = count + FIRST_SIMULATED_CUSTOMER
    return customers + [
        str(FIRST_SIMULATED_CUSTOMER + rank.get(user, unused)) for user in range(len(customers), len(customers) + count)
    ]


def _merge(orders: Orders, scripted: list[Scripted], shop: Shop) -> tuple[Orders, dict[int, Scripted]]:
    """Both kinds in time order, and which are scripted."""
    lengths = [len(order.basket) for order in scripted]
    items = np.array([item for order in scripted for item, _ in order.basket], np.int32)
    quantities = np.array([quantity for order in scripted for _, quantity in order.basket], np.int32)
    numbers = {country: number for number, country in enumerate(orders.countries)}
    both = replace(
        orders,
        ids=orders.ids + [str(FIRST_SIMULATED_ORDER + number) for number in range(len(scripted))],
        time=np.concatenate([orders.time, np.array([order.time for order in scripted], np.int64)]),
        customer=np.concatenate([orders.customer, np.array([order.user for order in scripted], np.int32)]),
        country=np.concatenate([orders.country, np.array([numbers[o.country] for o in scripted], np.int16)]),
        offsets=np.concatenate([orders.offsets, orders.offsets[-1] + np.cumsum(lengths, dtype=np.int64)]),
        item=np.concatenate([orders.item, items]),
        quantity=np.concatenate([orders.quantity, quantities]),
        price=np.concatenate([orders.price, shop.items.price[items]]),
    )
    by_time = np.argsort(both.time, kind="stable")
    scripts = {
        place: scripted[order - len(orders)] for place, order in enumerate(by_time.tolist()) if order >= len(orders)
    }
    return both.take(by_time), scripts


def _buying(orders: Orders, scripts: dict[int, Scripted], rng: np.random.Generator) -> Visits:
    """The visit that leads to each order; it begins after the same user's order before."""
    count = len(orders)
    steps = rng.poisson(5, count)
    views = np.full(count, 0.6)
    length = np.clip(rng.lognormal(np.log(12), 0.6, count), 1.5, 45)
    for place, order in scripts.items():
        steps[place], views[place] = order.steps, order.views
        length[place] = min(length[place], 0.4 + 0.8 * order.steps)
    end = orders.time
    by_user = np.lexsort((end, orders.customer))
    earlier = np.full(count, np.iinfo(np.int64).min)
    same = orders.customer[by_user][1:] == orders.customer[by_user][:-1]
    earlier[by_user[1:][same]] = end[by_user[:-1][same]]
    start = np.minimum(np.maximum(end - (length * MINUTE_MS).astype(np.int64), earlier + 1), end)
    user = orders.customer.astype(np.int64)
    return Visits(start, end, user, np.arange(count), steps, views, np.ones(count, np.bool_))


def _looking(
    orders: Orders,
    scripts: dict[int, Scripted],
    buying: Visits,
    browse: float,
    start: int,
    rng: np.random.Generator,
) -> Visits:
    """Visits in the days before an order of the shop's own, at hours at which others order."""
    own = np.ones(len(orders), np.bool_)
    own[list(scripts)] = False
    anchor = np.repeat(np.arange(len(orders)), np.where(own, rng.poisson(browse, len(orders)), 0))
    day = (orders.time[anchor] - (rng.exponential(5.0, len(anchor)) * DAY_MS).astype(np.int64)) // DAY_MS
    begin = day * DAY_MS + _hours(orders, len(anchor), rng)
    visits = _around(begin, orders.customer[anchor].astype(np.int64), anchor, 6.0, rng)
    return visits.take((begin >= start) & (visits.end < buying.start[anchor]))


def _guests(orders: Orders, count: int, first_user: int, start: int, end: int, rng: np.random.Generator) -> Visits:
    """Visits by users without an account, two in five of them coming back; led by the basket of an earlier
    order.
    """
    if not len(orders):
        count = 0
    day = rng.integers(start, end, count) // DAY_MS
    begin = np.maximum(day * DAY_MS + _hours(orders, count, rng), start)
    newest = np.searchsorted(orders.time, begin)
    anchor = np.maximum(newest - 1 - rng.integers(0, 60, count), 0)
    user = first_user + rng.integers(0, max(1, round(0.6 * count)), count)
    visits = _around(begin, user, anchor, 4.0, rng)
    return visits.take((begin < end) & (newest > 0))


def _hours(orders: Orders, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(count,) ms since midnight, as the shop's orders have it."""
    if not count:
        return np.zeros(0, np.int64)
    at = orders.time[rng.integers(0, len(orders), count)] % DAY_MS + rng.integers(-30, 30, count) * MINUTE_MS
    at += rng.integers(0, MINUTE_MS, count)
    hours: NDArray[np.int64] = np.maximum(np.minimum(at, DAY_MS - 1), 0)
    return hours


def _around(
    begin: NDArray[np.int64],
    user: NDArray[np.int64],
    anchor: NDArray[np.int64],
    mean_steps: float,
    rng: np.random.Generator,
) -> Visits:
    count = len(begin)
    steps = rng.geometric(1 / mean_steps, count)
    length = np.clip(rng.lognormal(np.log(1.0), 0.5, count) * steps, 0.5, 40) * MINUTE_MS
    none = np.zeros(count)
    return Visits(begin, begin + length.astype(np.int64), user, anchor, steps, none, none.astype(np.bool_))


def _without_overlap(buying: Visits, looking: Visits) -> Visits:
    """`looking` less the visits during which the same user is on another visit."""
    ends = np.sort(buying.user * USER_SPAN + buying.end)
    by_end = np.argsort(buying.user * USER_SPAN + buying.end, kind="stable")
    next_one = np.searchsorted(ends, looking.user * USER_SPAN + looking.start)
    follower = by_end[np.minimum(next_one, len(by_end) - 1)] if len(by_end) else np.zeros(0, np.intp)
    same = (next_one < len(by_end)) & (buying.user[follower] == looking.user)
    left = looking.take(~(same & (buying.start[follower] <= looking.end)))
    left = left.take(np.lexsort((left.start, left.user)))
    until = np.maximum.accumulate(left.user * USER_SPAN + left.end)
    clear = np.ones(len(left), np.bool_)
    clear[1:] = left.user[1:] * USER_SPAN + left.start[1:] > until[:-1]
    return left.take(clear)
