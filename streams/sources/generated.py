"""A shop made up from nothing: plausible texts and prices, customers with tastes, baskets of things that go
together. It stands in where the real shop's data cannot be had, and has the same shape.
"""

import numpy as np
from numpy.typing import NDArray

from streams.sources.shop import DAY_MS, MINOR_UNITS, Items, Orders, Shop
from streams.sources.taxonomy import CATEGORIES, CATEGORY_WORDS, STYLE_WORDS, classify

NAME = "a generated shop"
HOURS = (0, 0, 0, 0, 0, 0, 0, 0, 2, 6, 11, 12, 16, 14, 12, 10, 6, 3, 1, 1, 1, 0, 0, 0)
"""Relative number of orders by hour of the day, as Online Retail II has it."""
COUNTRIES: tuple[str | None, ...] = ("GB", "DE", "FR", "IE", "NL", "ES", "BE", "US")
COUNTRY_SHARES = (0.90, 0.025, 0.02, 0.02, 0.012, 0.01, 0.008, 0.005)
HISTORY_DAYS = 60
FORMS = ("SMALL", "LARGE", "SET OF 4", "MINI", "PACK OF 6", "HANGING", "WOODEN", "CERAMIC", "PAPER", "ENAMEL")
LONGEST_BASKET = 40


def generate_shop(
    start: int, end: int, seed: int, *, items: int = 1500, customers: int = 2500, orders_a_day: float = 55.0
) -> Shop:
    """`start` and `end` in UTC ms; orders begin 60 days before, so that there is a past to browse."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2]))
    stock = _items(items, rng)
    return Shop(NAME, False, stock, _orders(stock, start - HISTORY_DAYS * DAY_MS, end, customers, orders_a_day, rng))


def _items(count: int, rng: np.random.Generator) -> Items:
    nouns = [word.upper() for words in CATEGORY_WORDS.values() for word in words.split()]
    styles = [word.upper() for words in STYLE_WORDS.values() for word in words.split()]
    parts = (rng.choice(FORMS, 4 * count), rng.choice(styles, 4 * count), rng.choice(nouns, 4 * count))
    texts = list(dict.fromkeys(f"{form} {style} {noun}" for form, style, noun in zip(*parts, strict=True)))[:count]
    category, style = classify(texts)
    level = rng.normal(0, 0.3, len(CATEGORIES))[category]
    pence = np.maximum(np.round(np.exp(np.log(240) + level + rng.normal(0, 0.8, len(texts)))), 19)
    price = (pence * (MINOR_UNITS // 100)).astype(np.int64)
    return Items([f"{20_000 + number}" for number in range(len(texts))], texts, category, style, price)


def _orders(items: Items, start: int, end: int, customers: int, a_day: float, rng: np.random.Generator) -> Orders:
    time = _times(start, end, a_day, rng)
    eagerness = rng.gamma(0.8, 1.0, customers)
    customer = rng.choice(customers, len(time), p=eagerness / eagerness.sum()).astype(np.int32)
    lengths = np.clip(np.round(rng.lognormal(np.log(9), 0.8, len(time))), 1, LONGEST_BASKET).astype(np.int64)
    item = _baskets(items, np.repeat(customer, lengths), customers, np.repeat(np.arange(len(time)), lengths), rng)
    home = rng.choice(len(COUNTRIES), customers, p=COUNTRY_SHARES).astype(np.int16)
    return Orders(
        ids=[str(100_001 + number) for number in range(len(time))],
        time=time,
        customer=customer,
        country=home[customer],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        item=item,
        quantity=np.maximum(1, np.round(rng.lognormal(np.log(3), 0.9, len(item)))).astype(np.int32),
        price=items.price[item],
        customers=[str(10_001 + number) for number in range(customers)],
        countries=list(COUNTRIES),
    )


def _times(start: int, end: int, a_day: float, rng: np.random.Generator) -> NDArray[np.int64]:
    days = max(1, (end - start) // DAY_MS)
    day = np.repeat(np.arange(days), rng.poisson(a_day, days))
    hour = rng.choice(24, len(day), p=np.array(HOURS) / sum(HOURS))
    inside = rng.integers(0, 3_600_000, len(day))
    time: NDArray[np.int64] = np.sort(start + day * DAY_MS + hour * 3_600_000 + inside)
    return time[time < end]


def _baskets(
    items: Items,
    customer: NDArray[np.int32],
    customers: int,
    order: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """An item for each line: of the customer's tastes, now and then a companion of the line before, or a
    favourite.
    """
    tastes = rng.dirichlet(np.full(len(CATEGORIES), 0.25), customers).cumsum(axis=1)
    tastes[:, -1] = 1.0
    category = (rng.random(len(customer))[:, None] > tastes[customer]).sum(axis=1)
    popularity = 1.0 / (1.0 + rng.permutation(len(items))) ** 0.6
    item = np.zeros(len(customer), np.int64)
    for number in range(len(CATEGORIES)):
        members = np.flatnonzero(items.category == number)
        members = members if len(members) else np.arange(len(items))
        weights = popularity[members].cumsum()
        lines = np.flatnonzero(category == number)
        item[lines] = members[np.searchsorted(weights, rng.random(len(lines)) * weights[-1])]
    favourites = rng.integers(0, len(items), (customers, 8))
    at = rng.random(len(customer))
    item = np.where(at < 0.25, favourites[customer, rng.integers(0, 8, len(customer))], item)
    companions = rng.integers(0, len(items), (len(items), 3))
    follows = np.r_[False, order[1:] == order[:-1]] & (at > 0.7)
    item = np.where(follows, companions[np.roll(item, 1), rng.integers(0, 3, len(item))], item)
    return item.astype(np.int32)
