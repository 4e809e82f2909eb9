"""When history waits for live events: while the workers have more to read than is allowed. Pure; time is an argument.
What is published lies before the live events that come after it, so it may never be much that workers have not read.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from schemas.errors import BrokerUnavailable

LOOK_S = 0.5


class Standing(NamedTuple):
    """The workers' group at one moment. lag: records on the event topics that it has not committed."""

    lag: int
    members: int


class Pace:
    """Once it waits, it waits until half of what is allowed is left: not for a moment after each record.

    Where no worker has been seen nobody's score waits, and nothing is waited for; one that was there comes back.
    """

    def __init__(self, most: int, ask: Callable[[], Standing]) -> None:
        """`most`: 0 never waits, and never asks. `ask` may raise BrokerUnavailable: then all stays as it was."""
        self._most, self._ask = most, ask
        self._next, self._published = float("-inf"), 0
        self._seen, self._why = False, ""

    def __call__(self, now: float, published: int) -> str:
        """Why nothing is to be published at `now` (seconds, rising), in words; empty: go on. `published`: so far.

        It looks again after LOOK_S, and after a quarter of what is allowed: who publishes fast has soon published much.
        """
        if self._most and (now >= self._next or published - self._published > self._most // 4):
            self._next, self._published = now + LOOK_S, published
            with suppress(BrokerUnavailable):  # who publishes meets it as well, and says so
                self._look(self._ask())
        return self._why

    def _look(self, standing: Standing) -> None:
        self._seen = self._seen or standing.members > 0
        if not self._seen or standing.lag <= self._most // 2:
            self._why = ""
        elif self._why or standing.lag > self._most:
            who = "the workers are" if standing.members else "no worker is there any more, and they were"
            self._why = f"{who} {standing.lag:,} records behind"
