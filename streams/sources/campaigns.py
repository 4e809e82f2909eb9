"""Scripts: campaigns of fraud, and innocent people who look like one.
A script decides how orders look and when they come, never whether one is fraud: `risk` draws that from the
look.
"""

from collections.abc import Callable
from dataclasses import replace

from streams.sources.casting import MINUTE_MS, Casting, Scripted


def _card_testing(cast: Casting) -> list[Scripted]:
    draws, ring, time, orders = cast.draws, cast.ring(), cast.some_time(), []
    for _ in range(2 + draws.below(4)):
        user, country, at = cast.new_user(), cast.country(), time + draws.below(40 * MINUTE_MS)
        for turn in range(3 + draws.below(5)):
            orders.append(Scripted(at, user, "card_testing", cast.small(), country, ring, draws.below(3), 0.5, turn))
            at += int(draws.between(0.6, 5.0) * MINUTE_MS)
    return orders


def _account_takeover(cast: Casting) -> list[Scripted]:
    draws, (user, time, country, usual) = cast.draws, cast.settled()
    ring, orders = cast.ring(), []
    for turn in range(1 + draws.below(2)):
        basket = cast.worth(usual * draws.log_normal(3.2, 0.5))
        orders.append(Scripted(time, user, "account_takeover", basket, country, ring, draws.below(4), 0.3, turn))
        time += int(draws.between(5, 60) * MINUTE_MS)
    return orders


def _bust_out(cast: Casting) -> list[Scripted]:
    draws, user, country = cast.draws, cast.new_user(), cast.country()
    ring, time, orders, trust = cast.ring(), cast.some_time(50), [], 3 + draws.below(4)
    for turn in range(trust):
        basket = cast.worth(draws.between(20, 60))
        orders.append(Scripted(time, user, "bust_out", basket, country, ring, 4 + draws.below(6), 0.6, turn))
        time += cast.days(2, 10)
    for turn in range(2 + draws.below(2)):
        basket = cast.worth(40 * draws.log_normal(15, 0.4))
        orders.append(Scripted(time, user, "bust_out", basket, country, ring, draws.below(5), 0.4, trust + turn))
        time += int(draws.between(20, 600) * MINUTE_MS)
    return orders


def _refund_abuse(cast: Casting) -> list[Scripted]:
    draws, (user, time, country, usual) = cast.draws, cast.settled()
    ring, orders = cast.ring(), []
    for turn in range(3 + draws.below(4)):
        basket = cast.worth(usual * draws.log_normal(1.2, 0.4))
        orders.append(Scripted(time, user, "refund_abuse", basket, country, ring, 3 + draws.below(8), 0.7, turn))
        time += cast.days(4, 15)
    return orders


def _reshipping(cast: Casting) -> list[Scripted]:
    draws, ring, time, orders = cast.draws, cast.ring(), cast.some_time(), []
    for turn in range(5 + draws.below(8)):
        order = Scripted(time, cast.new_user(), "reshipping", cast.usual(), cast.country(), ring, 4 + draws.below(9))
        orders.append(replace(order, turn=turn))
        time += cast.days(0.02, 1.5)
    return orders


def _rush(cast: Casting) -> list[Scripted]:
    """Somebody who comes back for what was forgotten, twice."""
    draws, (user, time, country, _) = cast.draws, cast.settled()
    ring, orders = cast.ring(), []
    for turn in range(3 + draws.below(2)):
        orders.append(Scripted(time, user, "rush", cast.small(), country, ring, 2 + draws.below(6), 0.8, turn))
        time += int(draws.between(3, 20) * MINUTE_MS)
    return orders


def _new_start(cast: Casting) -> list[Scripted]:
    """A customer who moved: new phone, card, address and ip, and much to buy for the new place."""
    draws, (user, time, country, usual) = cast.draws, cast.settled()
    basket = cast.worth(usual * draws.log_normal(1.8, 0.5))
    return [Scripted(time, user, "new_start", basket, country, cast.ring(), 4 + draws.below(10), 0.8)]


def _growth(cast: Casting) -> list[Scripted]:
    """A new shop that tries small, then orders properly."""
    draws, user, country = cast.draws, cast.new_user(), cast.country()
    ring, time, orders, trials = cast.ring(), cast.some_time(40), [], 2 + draws.below(3)
    for turn in range(trials + 1):
        basket = cast.worth(draws.between(30, 80) if turn < trials else 55 * draws.log_normal(5, 0.5))
        orders.append(Scripted(time, user, "growth", basket, country, ring, 6 + draws.below(12), 0.8, turn))
        time += cast.days(3, 14)
    return orders


def _shared_computer(cast: Casting) -> list[Scripted]:
    """A community centre: new customers on one device and ip, each with an ordinary basket."""
    draws, ring, time, orders = cast.draws, cast.ring(), cast.some_time(), []
    for turn in range(3 + draws.below(6)):
        basket = cast.usual()
        user, steps = cast.new_user(), 3 + draws.below(9)
        orders.append(Scripted(time, user, "shared_computer", basket, cast.country(), ring, steps, 0.6, turn))
        time += cast.days(0.01, 2.0)
    return orders


CAMPAIGNS: dict[str, tuple[float, Callable[[Casting], list[Scripted]]]] = {
    "card_testing": (0.36, _card_testing),
    "account_takeover": (0.22, _account_takeover),
    "bust_out": (0.20, _bust_out),
    "refund_abuse": (0.22, _refund_abuse),
    "rush": (0.15, _rush),
    "new_start": (0.15, _new_start),
    "growth": (0.2, _growth),
    "shared_computer": (0.2, _shared_computer),
    "reshipping": (1.2, _reshipping),
}
"""Script by kind, with its share of orders, as a multiple of the campaigns' total."""


def script(cast: Casting, orders_wanted: float) -> list[Scripted]:
    """Scripted orders of the cast's span in time order; `orders_wanted` of the four campaigns together."""
    planned: list[Scripted] = []
    for share, make in CAMPAIGNS.values():
        planned += _about(cast, share * orders_wanted, make)
    return sorted(planned, key=lambda order: (order.time, order.user))


def _about(cast: Casting, wanted: float, make: Callable[[Casting], list[Scripted]]) -> list[Scripted]:
    """At least `wanted` orders, in whole campaigns; fewer where the span is too short for such campaigns."""
    planned: list[Scripted] = []
    for _ in range(round(10 * wanted) + 1):
        if len(planned) >= wanted:
            break
        planned += [order for order in make(cast) if cast.start <= order.time < cast.end]
    return planned
