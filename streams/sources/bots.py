"""Visitors that are programs and click on ads: beside the people of a world, who do what they would do without them.
Three kinds: `hammer` clicks at once and looks at nothing, `clockwork` looks around in step, `mimic` is like a person
who likes far too many ads. Only their clicks tell them apart: ids, devices and pages are as anybody's.
"""

import heapq
import random
from collections.abc import Iterator
from typing import NamedTuple

from streams.sources import records
from streams.sources.advertising import PLACEMENTS, SLATE, Ads
from streams.sources.browsing import HOME, ITEM_PAGE
from streams.sources.people import DEVICE_CLASSES
from streams.sources.shop import Items
from streams.sources.telling import Timed

KINDS = ("hammer", "clockwork", "mimic")
MOST_SESSIONS = 4
LONGEST_MS = 6 * 3_600_000  # no session goes on for longer


class Bot(NamedTuple):
    """`sessions`: UTC ms at which they begin."""

    number: int
    user: str
    kind: str
    sessions: tuple[int, ...]


def make_bots(count: int, seed: int, start: int, end: int) -> list[Bot]:
    """As many of each kind; each comes a few times between `start` and `end`."""
    bots = []
    for number in range(count):
        draws = random.Random(f"bot {seed} {number}")
        times = sorted(
            draws.randrange(start, max(end - LONGEST_MS, start + 1)) for _ in range(draws.randint(1, MOST_SESSIONS))
        )
        bots.append(Bot(number, f"anon:{draws.getrandbits(48):012x}", KINDS[number % len(KINDS)], tuple(times)))
    return bots


def bot_events(bots: list[Bot], seed: int, end: int, items: Items, ads: Ads) -> Iterator[Timed]:
    """Clicks and impressions of all of them, in time order, before `end`."""
    sessions = sorted((time, bot.number) for bot in bots for time in bot.sessions)
    pending: list[tuple[int, int, Timed]] = []
    serial = 0
    for begins, number in sessions:
        while pending and pending[0][0] <= begins:
            yield heapq.heappop(pending)[2]
        for event in _Session(bots[number], seed, begins, items, ads).events():
            if event.time < end:
                heapq.heappush(pending, (event.time, serial, event))
                serial += 1
    while pending:
        yield heapq.heappop(pending)[2]


class _Session:
    """One visit of one bot."""

    def __init__(self, bot: Bot, seed: int, begins: int, items: Items, ads: Ads) -> None:
        self._bot, self._time, self._until, self._items, self._ads = bot, float(begins), begins + LONGEST_MS, items, ads
        self._draws = random.Random(f"session {seed} {bot.number} {begins}")
        self._session, self._device = self._token("s"), self._draws.choice(DEVICE_CLASSES)

    def events(self) -> Iterator[Timed]:
        """Each step's, which may come after those of the next."""
        for _ in range(self._draws.randint(20, 120)):
            if self._time >= self._until:
                return
            yield from getattr(self, f"_{self._bot.kind}")()

    def _hammer(self) -> Iterator[Timed]:
        shown, names = self._impression(self._time, HOME, None)
        yield shown
        after = self._time
        for ad in self._draws.sample(names, min(len(names), self._draws.randint(1, 4))):
            after += self._draws.uniform(150, 900)
            yield self._click(after, shown, ad)
        self._time = after + self._draws.uniform(1_000, 6_000)

    def _clockwork(self) -> Iterator[Timed]:
        every = 8_000 + 32_000 * random.Random(f"every {self._bot.user}").random()
        item = self._item()
        yield self._view(self._time, item)
        shown, names = self._impression(self._time + 200, ITEM_PAGE, item)
        yield shown
        yield self._click(self._time + self._draws.uniform(1_500, 3_000), shown, self._draws.choice(names))
        self._time += every * (1 + 0.03 * self._draws.gauss())

    def _mimic(self) -> Iterator[Timed]:
        for _ in range(self._draws.randint(2, 5)):
            item = self._item()
            yield self._view(self._time, item)
            self._time += 2_000 + self._draws.expovariate(1 / 13_000)
        shown, names = self._impression(self._time, ITEM_PAGE, item)
        yield shown
        if self._draws.random() < 0.6:
            yield self._click(
                self._time + 1_500 + self._draws.expovariate(1 / 20_000), shown, self._draws.choice(names)
            )
        self._time += 2_000 + self._draws.expovariate(1 / 13_000)

    def _view(self, time: float, item: str) -> Timed:
        record = records.click(self._token("c"), int(time), self._bot.user, self._session, self._device, "view", item)
        return Timed("clicks", record, int(time))

    def _impression(self, time: float, page: int, item: str | None) -> tuple[Timed, list[str]]:
        """With the names of its ads."""
        ads = self._ads
        running = max(1, int((ads.starts <= time).sum()))
        slate = self._draws.sample(range(running), min(SLATE, running))
        names = [ads.ids[ad] for ad in slate]
        lines = [
            {"ad_id": name, "position": place, "bid": ads.bids[ads.bid[ad]], "shown": True}
            for place, (ad, name) in enumerate(zip(slate, names, strict=True))
        ]
        record = records.impression(
            self._token("i"),
            int(time),
            self._bot.user,
            self._session,
            self._device,
            PLACEMENTS[page],
            item,
            None,
            lines,
        )
        return Timed("impressions", record, int(time)), names

    def _click(self, time: float, shown: Timed, ad: str) -> Timed:
        item = self._items.ids[self._ads.item[self._ads.ids.index(ad)]]
        record = records.click(
            self._token("c"), int(time), self._bot.user, self._session, self._device, "click", item, None,
            shown.record["event_id"], ad,
        )  # fmt: skip
        return Timed("clicks", record, int(time))

    def _item(self) -> str:
        return self._draws.choice(self._items.ids)

    def _token(self, prefix: str) -> str:
        return f"{prefix}{self._draws.getrandbits(48):012x}"
