"""What was bought after clicks on ads, in a recorded stream, and after which clicks nothing was: once time has told.
A click that could earn no conversion, or whose item was bought and credited to another click, is neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streams.labels.derive import CONVERSION_WINDOW_MS, AdClicks, bought, remember

Record = Mapping[str, Any]
Pair = tuple[str, str]
"""Impression and ad, as a label names them."""


@dataclass(slots=True)
class Conversions:
    """`due`: when all of the seven days after a click have passed, UTC ms; of a pair clicked again, after the last one.
    `earned`: when what a click is credited with was ordered. `void`: pairs that must not be taken for refusals.
    """

    due: dict[Pair, int] = field(default_factory=dict)
    earned: dict[Pair, int] = field(default_factory=dict)
    void: set[Pair] = field(default_factory=set)
    _recent: dict[str, AdClicks] = field(default_factory=dict)

    def click(self, click: Record, advertised: Mapping[str, str]) -> None:
        """A Click, in order of time; `advertised`: item ids by ad id. An ad of no known item earns nothing."""
        user = click["user_id"]
        before = self._recent.get(user, ())
        after = remember(before, click, advertised)
        if after == before:
            return
        self._recent[user] = after
        self.due[click["impression_id"], click["ad_id"]] = click["event_time"] + CONVERSION_WINDOW_MS
        since = after[-1].time - CONVERSION_WINDOW_MS
        # Pushed out by newer ones before its days were over: nothing is credited to it any more.
        self.void.update((one.impression_id, one.ad_id) for one in before if one.time >= since and one not in after)

    def order(self, order: Record) -> None:
        """An Order, after the clicks before it."""
        for *others, last in bought(order, self._recent.get(order["user_id"], ())):
            self.earned.setdefault((last.impression_id, last.ad_id), order["event_time"])
            self.void.update((one.impression_id, one.ad_id) for one in others)

    def told(self, pair: Pair, until: int) -> bool | None:
        """Whether the click ended in an order, as known at `until`, UTC ms; None while, or where, that is not known.

        Before the days are over nothing is known of any click, so that young clicks are not bought ones only.
        """
        if self.due.get(pair, until + 1) > until:
            return None
        if self.earned.get(pair, until) < until:
            return True
        return None if pair in self.void else False

    def known_by(self, moment: int) -> "Conversions":
        """What was there before `moment`, UTC ms. What came to be `void` later is not due before it."""
        due = {pair: time for pair, time in self.due.items() if time - CONVERSION_WINDOW_MS < moment}
        return Conversions(due, {pair: time for pair, time in self.earned.items() if time < moment}, self.void)
