"""A plain load for benchmarks: users, items and ads drawn evenly, one event a millisecond, nothing to learn
from it. `history_load` first fills every user's history, so that each scored event carries a full one.
"""

from collections.abc import Callable, Iterator

import numpy as np

from streams.sources import records
from streams.sources.people import Card, Checkout, Device
from streams.sources.records import Record
from streams.sources.shop import MINOR_UNITS, to_decimal
from streams.sources.telling import Timed

START_MS = 1_320_105_600_000  # 2011-11-01
ITEMS, ADS, SLATE = 2000, 300, 8
MIX = (0.80, 0.05, 0.15)
"""Shares of clicks, orders and impressions."""
BLOCK = 4096
ACTIONS = ("view", "view", "view", "click", "cart")
FULL_ORDERS, LINES_OF_FULL_ORDER, CLICKS_TO_FILL = 3, 15, 16
"""An order of 15 lines is 16 entries of a history: three of them and 16 clicks make 64."""
WORDS = (
    "red",
    "blue",
    "small",
    "large",
    "paper",
    "glass",
    "metal",
    "wood",
    "box",
    "bag",
    "lamp",
    "mug",
    "card",
    "clock",
)


def uniform_catalog(items: int = ITEMS, ads: int = ADS) -> tuple[list[Record], list[Record]]:
    """CatalogItem and CatalogAd records of what `uniform_load` names."""
    size = len(WORDS)
    stock: list[Record] = [
        {
            "item_id": _item(number),
            "text": f"{WORDS[number % size]} {WORDS[number // size % size]} {number}",
            "category": WORDS[number % size],
            "price": to_decimal((100 + number % 1900) * 100),
            "currency": "GBP",
            "image": None,
            "available": True,
            "updated_at": START_MS,
            "attributes": {},
        }
        for number in range(items)
    ]
    return stock, [
        records.catalog_ad(_ad(number), f"ad for {WORDS[number % size]}", None, _item(number % items), START_MS)
        for number in range(ads)
    ]


def uniform_load(
    count: int,
    users: int,
    seed: int,
    mix: tuple[float, float, float] = MIX,
    *,
    start: int = START_MS,
    items: int = ITEMS,
    ads: int = ADS,
) -> Iterator[Timed]:
    """`count` events from UTC ms `start` on, a millisecond apart; orders of three lines, slates of 8 shown
    ads.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 3]))
    bounds = np.cumsum(mix) / np.sum(mix)
    for first in range(0, count, BLOCK):
        size = min(BLOCK, count - first)
        kinds = np.searchsorted(bounds, rng.random(size), side="right").tolist()
        who = rng.integers(0, users, size).tolist()
        picks = rng.integers(0, items, (size, SLATE)).tolist()
        shown = rng.integers(0, ads, (size, SLATE)).tolist()
        for place in range(size):
            time, serial = start + first + place, f"{seed}-{first + place}"
            what = shown[place] if kinds[place] == 2 else picks[place]
            yield MAKERS[kinds[place]](serial, time, who[place], what)


def history_load(users: int, seed: int, *, start: int = START_MS - 3_600_000, items: int = ITEMS) -> Iterator[Timed]:
    """19 events a user, in time order: afterwards each user's history holds 64 entries."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 4]))
    rounds = FULL_ORDERS + CLICKS_TO_FILL
    for turn in range(rounds):
        for first in range(0, users, BLOCK):
            size = min(BLOCK, users - first)
            width = LINES_OF_FULL_ORDER if turn < FULL_ORDERS else 1
            picks = rng.integers(0, items, (size, width)).tolist()
            for place in range(size):
                user = first + place
                time = start + (turn * users + user) * 3_600_000 // (rounds * users)
                make = _order if turn < FULL_ORDERS else _click
                yield make(f"{seed}-h{turn}-{user}", time, user, picks[place])


def _user(number: int) -> str:
    return f"user-{number:07d}"


def _item(number: int) -> str:
    return f"item-{number:06d}"


def _ad(number: int) -> str:
    return f"ad-{number:05d}"


def _click(serial: str, time: int, user: int, picks: list[int]) -> Timed:
    action = ACTIONS[picks[0] % len(ACTIONS)]
    session = f"s{user}"
    record = records.click(f"c{serial}", time, _user(user), session, "mobile", action, _item(picks[0]))
    return Timed("clicks", record, time)


def _order(serial: str, time: int, user: int, picks: list[int]) -> Timed:
    lines = picks[:3] if len(picks) == SLATE else picks
    card = Card(f"card-{user}", f"{400_000 + user % 97}", "GB")
    home = f"addr-{user}"
    checkout = Checkout("card", card, f"mail-{user}", home, home, f"ip-{user // 3}", Device(f"dev-{user}", "mobile"))
    priced = [(item, 1 + item % 4, (100 + item % 1900) * 100) for item in lines]
    named = [records.order_line(_item(item), quantity, price) for item, quantity, price in priced]
    amount = sum(quantity * price for _, quantity, price in priced)
    record = records.order(
        f"o{serial}", time, _user(user), f"s{user}", f"order-{serial}", named, amount, checkout, "GB"
    )
    return Timed("orders", record, time)


def _impression(serial: str, time: int, user: int, picks: list[int]) -> Timed:
    bids = [to_decimal((10 + ad % 90) * MINOR_UNITS // 100) for ad in picks]
    slate = [
        {"ad_id": _ad(ad), "position": place, "bid": bid, "shown": True}
        for place, (ad, bid) in enumerate(zip(picks, bids, strict=True))
    ]
    record = records.impression(
        *(f"i{serial}", time, _user(user), f"s{user}", "mobile", "item"),
        *(_item(picks[0]), None, slate),
    )
    return Timed("impressions", record, time)


MAKERS: tuple[Callable[[str, int, int, list[int]], Timed], ...] = (_click, _order, _impression)
