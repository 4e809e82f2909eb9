"""One telling of a world: planned visits become events in time order, and each outcome is drawn when its
event is told. Everything told is written into the book first, so a probability reads exactly what was
published before its event.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.labels.rules import HEARTBEAT
from streams.sources import records
from streams.sources.advertising import PLACEMENTS, Ads, Appeal, shown_count
from streams.sources.book import Book, Shopper
from streams.sources.browsing import ACTIONS, CHECKOUT, RESULTS, SEARCH, Browsing, Steps, Trails
from streams.sources.cashier import Cashier, Sale
from streams.sources.converting import MOST_PIECES, Buying
from streams.sources.draws import Draws
from streams.sources.outcomes import BEAT_MS, fraud_labels, heartbeat
from streams.sources.people import DEVICE_CLASSES, Population, households
from streams.sources.plan import Plan
from streams.sources.records import Record
from streams.sources.risk import NEW_KIND
from streams.sources.shop import DAY_MS, Shop
from streams.sources.taxonomy import CATEGORIES, STYLES
from streams.sources.truth import Truth

WEIGHTS = {"view": 1.0, "click": 1.0, "cart": 1.5, "uncart": 0.0, "wish": 1.5}
FAMILY_SHARE = 0.12
FOR_EVER = 1 << 62
SALE = "sale"  # of what is pending: an order that is made when its time comes

Step = tuple[int, int, int, int, int, list[int] | None]
"""time, code, visit, item, page, slate."""


class Timed(NamedTuple):
    """An event: `topic` is clicks, orders, impressions or labels; `time` is its event_time or observed_at,
    UTC ms.
    """

    topic: str
    record: Record
    time: int

    @property
    def is_heartbeat(self) -> bool:
        """Whether it is no label, but says that the source of labels is alive."""
        return self.topic == "labels" and self.record["name"] == HEARTBEAT


@dataclass(frozen=True, slots=True)
class Stage:
    """What is fixed before the first event. `drifts` may gain an entry while a telling runs: kind to UTC
    ms.
    """

    seed: int
    start: int
    end: int
    shop: Shop
    plan: Plan
    ads: Ads
    trails: Trails
    click_rate: float
    drifts: dict[str, int]
    conversion_rate: float = 0.0


class Telling:
    """Yields Timed in time order, once; each event's truth goes to `keep` before the event is out."""

    def __init__(self, stage: Stage, keep: Callable[[Truth], None]) -> None:
        self._stage, self._plan, self._ads, self._keep = stage, stage.plan, stage.ads, keep
        items = stage.shop.items
        seeds = np.random.SeedSequence([stage.seed, 1]).spawn(3)
        self._steps_rng, draws_rng, appeal_rng = (np.random.default_rng(seed) for seed in seeds)
        self._draws = Draws(draws_rng)
        self._book = Book(len(CATEGORIES), len(STYLES))
        self._appeal = Appeal(stage.ads, items, stage.click_rate, appeal_rng)
        self._browsing = Browsing(self._plan, items.category, stage.trails, stage.ads)
        homes = households(len(self._plan.users), FAMILY_SHARE, self._draws)
        people = Population(self._plan.orders.countries, homes, self._draws)
        self._cashier = Cashier(self._plan, items, self._book, people, self._draws)
        self._buying = _buying(stage)
        self._categories, self._styles = items.category.tolist(), items.style.tolist()
        self._names, self._queries = items.ids, _queries(items.texts)
        self._users: list[int] = self._plan.visits.user.tolist()
        self._sessions: dict[int, tuple[str, str]] = {}
        self._pending: list[tuple[int, int, Timed, int, int]] = []
        self._serial = count()
        self._beat(stage.start)

    def __iter__(self) -> Iterator[Timed]:
        for until, steps in self._days():
            for step in steps:
                if self._pending and self._pending[0][0] <= step[0]:
                    yield from self._due(step[0])
                yield self._tell(*step)
            yield from self._due(until)

    def _days(self) -> Iterator[tuple[int, list[Step]]]:
        """Each day's end and its steps in time order; what lasts past midnight is told the next day."""
        visits, left = self._plan.visits, list[Step]()
        edges = np.arange(self._stage.start, self._stage.end + DAY_MS, DAY_MS)
        bounds = np.searchsorted(visits.start, edges).tolist()
        for low, high, until in zip(bounds[:-1], bounds[1:], edges[1:].tolist(), strict=True):
            self._shift_taste(until - DAY_MS)
            chosen = self._coming(np.arange(low, high))
            today = self._browsing.steps(visits.take(chosen), chosen, self._steps_rng)
            steps = sorted(left + _as_list(today), key=_time)
            cut = sum(1 for step in steps if step[0] < until)
            yield until - 1, steps[:cut]
            left = steps[cut:]
            self._sessions = {step[2]: self._sessions[step[2]] for step in left if step[2] in self._sessions}
        yield FOR_EVER, left

    def _coming(self, visits: NDArray[np.int64]) -> NDArray[np.int64]:
        """The visits that take place: those of the new kind of fraud do only once it has begun."""
        scripts, anchors = self._plan.scripts, self._plan.visits.anchor[visits].tolist()
        away = [
            place
            for place, anchor in enumerate(anchors)
            if anchor in scripts and scripts[anchor].kind == NEW_KIND and not self._begun("fraud", scripts[anchor].time)
        ]
        return np.delete(visits, away)

    def _begun(self, drift: str, time: int) -> bool:
        return self._stage.drifts.get(drift, FOR_EVER) <= time

    def _shift_taste(self, time: int) -> None:
        if self._browsing.liked is None and self._begun("taste", time):
            self._browsing.liked = self._appeal.shift()

    def _due(self, time: int) -> Iterator[Timed]:
        """Labels and ad clicks that were scheduled for `time` or before."""
        pending = self._pending
        while pending and pending[0][0] <= time:
            _, _, event, user, item = heapq.heappop(pending)
            if event.topic == SALE:
                event = self._sale(event, user, item)
            elif item >= 0:
                self._touch(user, item, "click", event.time)
            if event.is_heartbeat and (pending or event.time < self._stage.end):
                self._beat(event.time)
            yield event

    def _beat(self, after: int) -> None:
        """The next sign of life of the chargebacks' source: after all that is said by then, until the last of it."""
        time = after + BEAT_MS
        heapq.heappush(self._pending, (time, FOR_EVER, Timed("labels", heartbeat(time), time), -1, -1))

    def _schedule(self, event: Timed, user: int = -1, item: int = -1) -> None:
        heapq.heappush(self._pending, (event.time, next(self._serial), event, user, item))

    def _tell(self, time: int, code: int, visit: int, item: int, page: int, slate: list[int] | None) -> Timed:
        if code == CHECKOUT:
            return self._checkout(time, visit)
        if slate is not None:
            return self._impression(time, visit, item, page, list(dict.fromkeys(slate)))
        return self._click(time, visit, item, code)

    def _session(self, visit: int) -> tuple[str, str]:
        """Its id and device class."""
        known = self._sessions.get(visit)
        if known is None:
            known = self._sessions[visit] = (self._draws.token("s"), self._draws.one_of(DEVICE_CLASSES))
        return known

    def _touch(self, user: int, item: int, action: str, time: int) -> None:
        shopper = self._book.shopper(user)
        shopper.clicks.append(time)
        if weight := WEIGHTS.get(action):
            shopper.touch(item, self._categories[item], self._styles[item], weight)

    def _click(self, time: int, visit: int, item: int, code: int) -> Timed:
        user, (session, device) = self._users[visit], self._session(visit)
        action, event_id, user_id = ACTIONS[code], self._draws.token("c"), self._plan.users[user]
        self._touch(user, item, action, time)
        name, query = (None, self._queries[item]) if code == SEARCH else (self._names[item], None)
        record = records.click(event_id, time, user_id, session, device, action, name, query)
        return Timed("clicks", record, time)

    def _checkout(self, time: int, visit: int) -> Timed:
        order, session = int(self._plan.visits.anchor[visit]), self._session(visit)[0]
        decided = partial(self._buying.is_decided, self._users[visit], time=time) if self._buying is not None else None
        sale = self._cashier.sell(order, time, session, new_kind=self._begun("fraud", time), is_decided=decided)
        return self._sold(sale, time)

    def _sale(self, planned: Timed, user: int, item: int) -> Timed:
        """What a click on an ad led to."""
        session, quantity, time = planned.record["session"], planned.record["quantity"], planned.time
        new_kind = self._begun("fraud", time)
        return self._sold(self._cashier.sell_one(user, item, quantity, time, session, new_kind=new_kind), time)

    def _sold(self, sale: Sale, time: int) -> Timed:
        self._keep(sale.truth)
        for label in fraud_labels(sale.truth.target_id, time, sale.truth.kind, self._draws):
            self._schedule(Timed("labels", label, label["observed_at"]))
        return Timed("orders", sale.order, time)

    def _impression(self, time: int, visit: int, item: int, page: int, slate: list[int]) -> Timed:
        user, ads, draws = self._users[visit], self._ads, self._draws
        session, device = self._session(visit)
        shopper, event_id = self._book.shopper(user), draws.token("i")
        shown = shown_count(len(slate), draws)
        chances = self._appeal.probabilities(shopper, slate, time, page, item)[:shown]
        clicked = [draws.uniform() < chance for chance in chances]
        shopper.impressions.append(time)
        names = tuple(ads.ids[ad] for ad in slate)
        outcomes = tuple(map(int, clicked))
        bought = self._bought(shopper, slate[:shown], clicked)
        self._keep(Truth(event_id, "ctr", event_id, time, tuple(chances), outcomes, names[:shown], **bought))
        name = self._names[item] if item >= 0 else None
        query = self._queries[item] if page == RESULTS else None
        lines = [
            {"ad_id": ad_id, "position": place, "bid": ads.bids[ads.bid[ad]], "shown": place < shown}
            for place, (ad, ad_id) in enumerate(zip(slate, names, strict=True))
        ]
        user_id = self._plan.users[user]
        place_name = PLACEMENTS[page]
        record = records.impression(event_id, time, user_id, session, device, place_name, name, query, lines)
        buys = bought.get("converted", (0,) * shown)
        for ad, hit, buy in zip(slate, clicked, buys, strict=False):
            if hit:
                self._schedule_click(record, user, ad, buys=bool(buy))
        return Timed("impressions", record, time)

    def _bought(self, shopper: Shopper, shown: list[int], clicked: list[bool]) -> dict[str, Any]:
        """What the truth says of conversions; nothing where there are none."""
        if self._buying is None:
            return {}
        chances = self._buying.probabilities(shopper, shown)
        bought = [int(hit and self._buying.draws.chance(chance)) for hit, chance in zip(clicked, chances, strict=True)]
        return {"conversions": tuple(chances), "converted": tuple(bought)}

    def _schedule_click(self, impression: Record, user: int, ad: int, *, buys: bool) -> None:
        """On an ad, seconds later, sometimes minutes."""
        draws, item = self._draws, self._ads.item[ad]
        time = impression["event_time"] + 1_500 + int(draws.exponential(20_000))
        record = records.click(
            *(draws.token("c"), time, impression["user_id"], impression["session_id"], impression["device"]),
            *("click", self._names[item], None, impression["event_id"], self._ads.ids[ad]),
        )
        self._schedule(Timed("clicks", record, time), user, item)
        if self._buying is not None:
            self._buying.clicked(user, item, time)
        if self._buying is not None and buys:
            order = {"session": impression["session_id"], "quantity": 1 + self._buying.draws.below(MOST_PIECES)}
            self._schedule(Timed(SALE, order, self._buying.sale_after(time)), user, item)


def _buying(stage: Stage) -> Buying | None:
    """None where ads sell nothing: then nothing of it is drawn."""
    if not stage.conversion_rate:
        return None
    return Buying(stage.ads, stage.shop.items, stage.conversion_rate, np.random.SeedSequence([stage.seed, 5]))


def _time(step: Step) -> int:
    return step[0]


def _as_list(steps: Steps) -> list[Step]:
    slates: list[list[int] | None] = [*steps.slates.tolist(), None]
    columns = (steps.time, steps.code, steps.visit, steps.item, steps.page)
    at = [slates[slate] for slate in steps.slate.tolist()]
    return list(zip(*(column.tolist() for column in columns), at, strict=True))


def _queries(texts: list[str]) -> list[str]:
    """What a user would type to find each item: the last two words of its text."""
    return [" ".join(text.lower().split()[-2:]) for text in texts]
