"""Who buys what an ad showed: a click on an ad makes an order of its item within the day likelier.
Nobody is made to click, and an order that was planned stays; only what was just decided by a click is not bought again.

p(order | click) = logistic of (how well the ad's item sells once it is looked at, its price, the user's published
interest in its category and style, whether the user saw the item of late), as of the impression. What is drawn
from p is the label too: until its window is over, a clicked item is in no other order of that user, but where it
is all of it, or clicked once more before it is bought.
"""

import math

import numpy as np

from streams.sources.advertising import Ads
from streams.sources.book import MINUTE_MS, Shopper
from streams.sources.draws import Draws
from streams.sources.shop import DAY_MS, Items

WINDOW_MS = 7 * DAY_MS
"""As streams.labels.derive has it: an order so long after the click is its conversion."""
SOONEST_MS, USUAL_MS, LATEST_MS = MINUTE_MS, 8 * MINUTE_MS, DAY_MS
"""From the click to the order: at least, on average above that, and at most."""
WEIGHTS = {"category": 1.5, "style": 0.9, "seen": 0.7, "price": -0.4}
QUALITY = 0.5
"""Standard deviation, over ads, of how well an item sells once it is looked at, in log-odds."""
RATE_SHIFT = -1.0
"""What interest adds to the logit on average, taken back: measured, so that the rate is met."""
MOST_PIECES = 3


class Buying:
    """Draws of its own: a world without conversions is the same, to the byte, as if there were none of this."""

    def __init__(self, ads: Ads, items: Items, rate: float, seeds: np.random.SeedSequence) -> None:
        facts, draws = (np.random.default_rng(seed) for seed in seeds.spawn(2))
        self._ads, self.draws = ads, Draws(draws)
        self._base = math.log(rate / (1 - rate)) + RATE_SHIFT
        price = np.log(np.maximum(items.price[ads.item], 1))
        appeal = facts.normal(0, QUALITY, len(ads)) + WEIGHTS["price"] * np.clip(price - np.median(price), -2, 2)
        self._appeal: list[float] = appeal.tolist()
        self._decided: dict[tuple[int, int], tuple[int, int]] = {}

    def probabilities(self, shopper: Shopper, slate: list[int]) -> list[float]:
        """P(order of its item | click) of each ad of the slate, in its order."""
        ads, weights, total = self._ads, WEIGHTS, shopper.interest or 1.0
        chances = []
        for ad in slate:
            logit = self._base + self._appeal[ad]
            logit += weights["category"] * math.sqrt(shopper.categories[ads.category[ad]] / total)
            if style := ads.style[ad]:
                logit += weights["style"] * math.sqrt(shopper.styles[style] / total)
            logit += weights["seen"] * (ads.item[ad] in shopper.recent)
            chances.append(1.0 / (1.0 + math.exp(-logit)))
        return chances

    def clicked(self, user: int, item: int, time: int) -> None:
        """A click on an ad at `time`, UTC ms: whether its item is bought within the window is decided with it."""
        since, until = self._decided.get((user, item), (time, 0))
        self._decided[user, item] = (since if time <= until else time, time + WINDOW_MS)

    def is_decided(self, user: int, item: int, time: int) -> bool:
        since, until = self._decided.get((user, item), (0, -1))
        return since <= time <= until

    def sale_after(self, click: int) -> int:
        """When the order comes, UTC ms."""
        return click + min(LATEST_MS, SOONEST_MS + int(self.draws.exponential(USUAL_MS)))
