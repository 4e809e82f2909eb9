"""One seeded world: a shop, its users, what they look at, buy and click, who defrauds it, and how it learns
of that.

Real, where the real shop is used: catalogue, texts, prices, and every order's customer, country, time and
basket. Simulated, always: visits, ads and clicks; cards, devices, addresses and ips; fraud, and orders that
follow a script (numbered from 600001, by customers of the shop or new ones numbered from 20001). The same
configuration and seed give the same records, on any day and whatever was iterated before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from operator import attrgetter
from pathlib import Path
from typing import Literal

import numpy as np

from schemas.errors import DataUnavailable, SettingsError
from streams.sources import records, retail
from streams.sources.advertising import make_ads
from streams.sources.bots import bot_events, make_bots
from streams.sources.browsing import Trails
from streams.sources.generated import generate_shop
from streams.sources.plan import make_plan
from streams.sources.records import Record
from streams.sources.shop import Shop
from streams.sources.taxonomy import CATEGORIES
from streams.sources.telling import Stage, Telling, Timed
from streams.sources.truth import Truth
from streams.sources.volume import expected_volume

DRIFTS = ("fraud", "taste")
USUAL_RATE, CAMPAIGN_RATE = 0.0055, 0.36
"""Measured: the share of fraud among ordinary orders, and among those of campaigns."""
CUSTOMERS_PER_DAILY_ORDER = 45


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """What world to make. Raises SettingsError for values that make none."""

    start: str = "2011-06-01"
    """The first day, UTC."""
    end: str = "2011-12-09"
    """The day after the last."""
    shop: Literal["auto", "real", "generated"] = "auto"
    """`auto`: the real one if its data can be had."""
    customers: float = 1.0
    """The share of the shop's customers that takes part."""
    fraud_rate: float = 0.015
    """Of all orders, about; never below half a percent."""
    click_rate: float = 0.02
    """Of shown ads, about."""
    conversion_rate: float = 0.0
    """Of clicks on ads, about, that lead to an order of the item; 0: ads sell nothing, and orders are as planned."""
    browse: float = 1.5
    """Visits that only look around, for each that ends in an order."""
    guests: float = 0.5
    """Visits by users without an account, for each order."""
    ads: int = 300
    orders_a_day: float = 55.0
    """Of a generated shop, which has 45 customers for each."""
    fraud_drift: str | None = None
    """The day, or moment, from which there is a new kind of fraud."""
    taste_drift: str | None = None
    """The day from which users of one category like the ads of another, and browse it."""
    bots: int = 0
    """Programs that click on ads, beside the people; see streams.sources.bots."""
    keep_truth: bool = True
    """Else `truth()` knows the newest event only, and a long run needs no memory for it."""

    def __post_init__(self) -> None:
        for name in ("start", "end", "fraud_drift", "taste_drift"):
            value = getattr(self, name)
            if value is not None:
                milliseconds(value)
        if milliseconds(self.start) >= milliseconds(self.end):
            raise SettingsError(f"start {self.start} is not before end {self.end}", expected="a span of days")
        bounds = {"customers": (0, 1), "fraud_rate": (0, 0.2), "click_rate": (0.0005, 0.3), "conversion_rate": (0, 0.5)}
        bounds |= {
            "browse": (0, 20),
            "guests": (0, 20),
            "ads": (20, 100_000),
            "orders_a_day": (1, 100_000),
            "bots": (0, 10_000),
        }
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise SettingsError(f"{name} is {getattr(self, name)}", expected=f"{low} to {high}")


def milliseconds(day: str) -> int:
    """UTC ms of a day such as 2011-06-01, or of a moment in ISO 8601. Raises SettingsError."""
    try:
        moment = datetime.fromisoformat(day)
    except ValueError as error:
        raise SettingsError(f"not a day: {day!r}", expected="a date such as 2011-06-01") from error
    return round(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)


def open_shop(config: WorldConfig, seed: int, *, folder: Path | None = None) -> Shop:
    """The configured shop; `folder` holds fetched data, as in `fetch`. Raises DataUnavailable where only the
    real one will do and it cannot be had.
    """
    if config.shop != "generated":
        try:
            return retail.load(folder=folder)[0]
        except DataUnavailable:
            if config.shop == "real":
                raise
    return generate_shop(
        milliseconds(config.start),
        milliseconds(config.end),
        seed,
        customers=round(config.orders_a_day * CUSTOMERS_PER_DAILY_ORDER) + 1,
        orders_a_day=config.orders_a_day,
    )


class World:
    """`events()` may be called again and tells the same; one telling at a time.

    `shop` saves loading it twice; `folder` is where fetched data is, as in `fetch`. Raises DataUnavailable.
    """

    def __init__(self, config: WorldConfig, seed: int, shop: Shop | None = None, *, folder: Path | None = None) -> None:
        self.config, self.seed = config, seed
        self.start, self.end = milliseconds(config.start), milliseconds(config.end)
        self.shop = shop or open_shop(config, seed, folder=folder)
        self._truths: dict[str, Truth] = {}
        self._newest: Truth | None = None
        self._now = self.start
        self._drifts = self._planned_drifts()
        rng = np.random.default_rng(np.random.SeedSequence([seed, 0]))
        sold = np.bincount(self.shop.orders.item, minlength=len(self.shop.items))
        self.ads = make_ads(self.shop.items, sold, config.ads, self.start, self.end, rng)
        self.plan = make_plan(
            self.shop,
            start=self.start,
            end=self.end,
            customers=config.customers,
            campaign_share=max(0.0, config.fraud_rate - USUAL_RATE) / CAMPAIGN_RATE,
            browse=config.browse,
            guests=config.guests,
            rng=rng,
        )
        self._trails = Trails(self.shop)
        self.bots = make_bots(config.bots, seed, self.start, self.end)

    def events(self) -> Iterator[Timed]:
        """All events in time order, labels that come after the last day included."""
        planned = self._planned_drifts()
        if self._drifts != planned:  # the last telling had one on demand: another story
            self._truths.clear()
        self._drifts = planned
        stage = Stage(
            *(self.seed, self.start, self.end, self.shop, self.plan, self.ads, self._trails),
            click_rate=self.config.click_rate,
            drifts=self._drifts,
            conversion_rate=self.config.conversion_rate,
        )
        people: Iterator[Timed] = iter(Telling(stage, self._keep))
        for event in merge(people, self._bots_events(), key=attrgetter("time")) if self.bots else people:
            self._now = event.time
            yield event

    def _bots_events(self) -> Iterator[Timed]:
        return bot_events(self.bots, self.seed, self.end, self.shop.items, self.ads)

    def _planned_drifts(self) -> dict[str, int]:
        days = (self.config.fraud_drift, self.config.taste_drift)
        return {kind: milliseconds(day) for kind, day in zip(DRIFTS, days, strict=True) if day is not None}

    def history_records(self, start: str | int, end: str | int) -> Iterator[Timed]:
        """The events of [start, end), days or UTC ms: those of `events()`, cut by time, labels by when they
        came.
        """
        low = milliseconds(start) if isinstance(start, str) else start
        high = milliseconds(end) if isinstance(end, str) else end
        for event in self.events():
            if event.time >= high:
                return
            if event.time >= low:
                yield event

    def volume(self) -> dict[str, int]:
        """About how many events each month brings, by its name such as 2011-06; nothing is told for it."""
        return expected_volume(self.plan, self.config.click_rate, self.config.conversion_rate)

    def start_drift(self, kind: str, at: int | None = None) -> int:
        """Starts a new kind of `fraud`, or a shift of `taste`, at UTC ms, or now in the telling that runs;
        says when.
        """
        if kind not in DRIFTS:
            raise SettingsError(f"no drift named {kind!r}", expected=f"one of {', '.join(DRIFTS)}")
        return self._drifts.setdefault(kind, self._now if at is None else at)

    def catalog(self) -> tuple[list[Record], list[Record]]:
        """CatalogItem and CatalogAd records."""
        items, ads = self.shop.items, self.ads
        names = [(items.ids[item], CATEGORIES[category]) for item, category in zip(ads.item, ads.category, strict=True)]
        said = zip(ads.ids, ads.texts, names, ads.starts.tolist(), strict=True)
        return records.catalog_items(items, CATEGORIES, self.start), [
            records.catalog_ad(ad, text, category, item, starts) for ad, text, (item, category), starts in said
        ]

    def truth(self, event_id: str) -> Truth | None:
        """Of an order or impression that was told; None of any other."""
        if self._newest is not None and self._newest.event_id == event_id:
            return self._newest
        return self._truths.get(event_id)

    def truths(self) -> Iterator[Truth]:
        """Of all that was told, in its order."""
        return iter(self._truths.values())

    def _keep(self, truth: Truth) -> None:
        self._newest = truth
        if self.config.keep_truth:
            self._truths[truth.event_id] = truth

    def __str__(self) -> str:
        simulated = "visits, ads, payment, fraud, labels and the orders from number 600001 on are simulated"
        if self.shop.real:
            return f"{self.shop.name}: catalogue, texts, prices and orders are real; {simulated}"
        return f"{self.shop.name}: all of it is simulated"
