"""Ads of the shop's items, the slates they are shown in, and the probability that each is clicked.

p(click) = examination of the position x logistic of (the ad's quality, the user's published interest in its
category and style, whether the user saw its item of late, the page it stands on, how many slates were seen
just before). The click is drawn from p, and everything p reads was published: so p is exactly P(click | all
that was published).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.sources.book import MINUTE_MS, Shopper
from streams.sources.draws import Draws
from streams.sources.shop import MINOR_UNITS, Items, to_decimal
from streams.sources.taxonomy import CATEGORIES

SLATE = 8
EXAMINATION = (1.0, 0.72, 0.55, 0.44, 0.36, 0.30, 0.26, 0.22)
"""How likely a look at a position is, from the top of a list. Open Bandit's three slots stand side by side
and show no measurable effect (60,000 impressions, 0.48 % clicks), so this curve is assumed, and so is the
rate, a setting."""
PLACEMENTS = ("home", "item", "search")
PLACEMENT_EFFECT = (-0.2, 0.1, 0.4)
WEIGHTS = {
    "category": 2.6,
    "style": 1.4,
    "seen": 0.9,
    "page_category": 0.7,
    "page_style": 0.4,
    "blindness": -0.12,
}
TEMPLATES = (
    "{}",
    "New in: {}",
    "{}, now 20% off",
    "Back in stock: {}",
    "Customers love our {}",
    "{}, free delivery",
)
BID_LEVELS = 64
RATE_SHIFT = -0.72
"""What interest, page and position add to a click's logit on average, taken back: measured, so that
`click_rate` is met.
"""


@dataclass(frozen=True, slots=True)
class Ads:
    """A ads, those that start later at the end; `starts` is (A,) ms. `bid` numbers into `bids`, decimals by
    level.
    """

    ids: list[str]
    texts: list[str]
    item: list[int]
    category: list[int]
    style: list[int]
    quality: list[float]
    bid: list[int]
    starts: NDArray[np.int64]
    bids: list[bytes]
    of_category: list[NDArray[np.int64]]
    popularity: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)


def make_ads(items: Items, sold: NDArray[np.int64], count: int, start: int, end: int, rng: np.random.Generator) -> Ads:
    """Ads of `count` items that sell (`sold` is (N,) how often); a fifth start some time between `start` and
    `end`.
    """
    chances = np.sqrt(sold + 1e-9)
    item = rng.choice(len(items), size=min(count, len(items)), replace=False, p=chances / chances.sum())
    late = len(item) // 5
    starts = np.concatenate([np.full(len(item) - late, start), np.sort(rng.integers(start, end, late))])
    quality = rng.normal(0, 0.3, len(item))
    levels = np.clip(BID_LEVELS / 2 + 14 * quality + rng.normal(0, 8, len(item)), 0, BID_LEVELS - 1)
    templates = rng.integers(0, len(TEMPLATES), len(item))
    category = items.category[item]
    weights = 1.0 / np.arange(1, len(item) + 1) ** 0.7
    return Ads(
        ids=[f"ad-{number:04d}" for number in range(1, len(item) + 1)],
        texts=[TEMPLATES[t].format(items.texts[row]) for t, row in zip(templates, item.tolist(), strict=True)],
        item=item.tolist(),
        category=category.tolist(),
        style=items.style[item].tolist(),
        quality=quality.tolist(),
        bid=levels.astype(int).tolist(),
        starts=starts,
        bids=[to_decimal(round(0.05 * 1.05**level * MINOR_UNITS)) for level in range(BID_LEVELS)],
        of_category=[np.flatnonzero(category == number) for number in range(len(CATEGORIES))],
        popularity=np.cumsum(weights) / weights.sum(),
    )


def slates(
    ads: Ads, time: NDArray[np.int64], category: NDArray[np.int16], rng: np.random.Generator
) -> NDArray[np.int64]:
    """(I, 8) ads for I impressions: about three of the page's `category`, two popular ones, the rest at
    random.

    An ad that has not started yet is replaced; a repeat within a row stays for the caller to drop.
    """
    count = len(time)
    running = np.searchsorted(ads.starts, time, side="right")
    picks = (rng.random((count, SLATE)) * running[:, None]).astype(np.int64)
    picks[:, 3:5] = np.searchsorted(ads.popularity, rng.random((count, 2)))
    draws = rng.random((count, 3))
    for number, members in enumerate(ads.of_category):
        here = category == number
        if len(members) and here.any():
            picks[here, :3] = members[(draws[here] * len(members)).astype(np.int64)]
    fallback = (rng.random((count, SLATE)) * running[:, None]).astype(np.int64)
    picks = np.where(picks < running[:, None], picks, fallback)
    shuffled = np.argsort(np.arange(SLATE) * 0.25 + rng.random((count, SLATE)) * 2, axis=1)
    return np.take_along_axis(picks, shuffled, axis=1)


class Appeal:
    """The click probability. After a shift of taste, users of one category like the ads of another."""

    def __init__(self, ads: Ads, items: Items, click_rate: float, rng: np.random.Generator) -> None:
        self._ads = ads
        self._quality = ads.quality
        self._category, self._style = items.category.tolist(), items.style.tolist()
        self._base = math.log(click_rate / (1 - click_rate)) + RATE_SHIFT
        self._likes = list(range(len(CATEGORIES)))
        self._shifted = np.roll(np.arange(len(CATEGORIES)), 1 + int(rng.integers(len(CATEGORIES) - 2))).tolist()
        self._later_quality: list[float] = rng.normal(0, 0.3, len(ads)).tolist()

    def shift(self) -> list[int]:
        """Tastes shift: interest in category c now means interest in `result[c]`, and ads' qualities are
        others.
        """
        self._likes = self._shifted
        self._quality = self._later_quality
        return self._likes

    def probabilities(
        self, shopper: Shopper, slate: list[int], time: int, placement: int, page_item: int
    ) -> list[float]:
        """P(click) of each ad of the slate were it shown, in its order; `page_item` is -1 on the home
        page.
        """
        ads, weights, recent = self._ads, WEIGHTS, shopper.recent
        page_category = self._category[page_item] if page_item >= 0 else -1
        page_style = self._style[page_item] if page_item >= 0 else -1
        blindness = weights["blindness"] * min(shopper.impressions_since(time - 30 * MINUTE_MS), 8)
        base = self._base + PLACEMENT_EFFECT[placement] + blindness
        total = shopper.interest or 1.0
        chances = []
        for position, ad in enumerate(slate):
            category, style = ads.category[ad], ads.style[ad]
            logit = base + self._quality[ad]
            logit += weights["category"] * math.sqrt(shopper.categories[self._likes[category]] / total)
            if style:
                logit += weights["style"] * math.sqrt(shopper.styles[style] / total)
                logit += weights["page_style"] * (style == page_style)
            logit += weights["seen"] * (ads.item[ad] in recent)
            logit += weights["page_category"] * (category == page_category)
            chances.append(EXAMINATION[position] / (1.0 + math.exp(-logit)))
        return chances


def shown_count(length: int, draws: Draws) -> int:
    """How many of a slate's ads came into view: a third of the users do not scroll that far."""
    at = draws.uniform()
    return min(length, 4 if at < 0.15 else 6 if at < 0.35 else SLATE)
