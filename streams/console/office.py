"""What the pages of queue and case stand on, and how they ask it.
They ask in threads, so that no page waits for another's work.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

from schemas.errors import BrokerUnavailable, HeadraceError
from streams.access.roles import Identity
from streams.audit.pseudonyms import Pseudonyms
from streams.console import listing
from streams.console.catalog import Names
from streams.console.desk import Desk
from streams.console.feed import Feed
from streams.console.hub import Hub
from streams.console.listing import Reader
from streams.console.speaker import Orders
from streams.console.store import Store

Result = TypeVar("Result")
THREADS = 8
PATIENCE_S = 30.0
TOLD_AT_ONCE = 200
SUMMARY_S = 1.0  # how old what the frame of a page says may be


@dataclass(slots=True)
class Office:
    """people: names of users, for those whom the audit log calls by pseudonyms. feed, orders and names may be none:
    the pages then show what the store has."""

    store: Store
    desk: Desk
    hub: Hub
    people: Callable[[], Iterable[str]]
    pseudonyms: Pseudonyms
    orders: Orders | None = None
    names: Names | None = None
    feed: Feed | None = None
    notes_problem: Callable[[], HeadraceError | None] = lambda: None

    def reader(self, identity: Identity) -> Reader:
        return Reader(self.pseudonyms.of(identity.name), identity.can("reveal"))

    def announce(self, orders: Iterable[str], new: Sequence[str] = ()) -> None:
        """To the pages that are open. From any thread but the event loop's: it counts."""
        if not len(self.hub):
            return
        if new:
            self.hub.say("alerts", {"alerts": list(new)[:TOLD_AT_ONCE]})
        told = sorted(orders)[:TOLD_AT_ONCE]
        with self.store.reading() as connection:
            self.hub.say("orders", {"orders": told, "cases": listing.cases_of(connection, told)})
            self.hub.say("counts", counted(listing.counts(connection)))

    def item_name(self, item_id: str) -> str:
        return self.names.of(item_id) if self.names is not None else item_id

    def row_name(self, row: int) -> str:
        return self.names.of_row(row) if self.names is not None else ""

    def who(self) -> Mapping[str, str]:
        """Names by pseudonym."""
        return self.pseudonyms.names(self.people())


def counted(counts: listing.Counts) -> dict[str, Any]:
    """By name; `all` as well."""
    return counts._asdict() | {"all": counts.open + counts.answered}


class Summary:
    """Counts and choices over all alerts, made anew at most once in SUMMARY_S, and only if the store has changed."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._version, self._made = -1, 0.0
        self._counts: Mapping[str, Any] = {}
        self._facets: Mapping[str, list[str]] = {}

    def counts(self) -> Mapping[str, Any]:
        self._renew()
        return self._counts

    def facets(self) -> Mapping[str, list[str]]:
        self._renew()
        return self._facets

    def _renew(self) -> None:
        now, version = self._clock(), self._store.version
        if self._counts and (version == self._version or now - self._made < SUMMARY_S):
            return
        with self._store.reading() as connection:
            self._counts = counted(listing.counts(connection))
            self._facets = listing.facets(connection)
        self._version, self._made = version, now


OFFICE: web.AppKey[Office] = web.AppKey("office", Office)
SUMMARY: web.AppKey[Summary] = web.AppKey("summary", Summary)
POOL: web.AppKey[ThreadPoolExecutor] = web.AppKey("pool", ThreadPoolExecutor)


async def work(request: web.Request, call: Callable[[], Result], patience_s: float = PATIENCE_S) -> Result:
    """In a thread. BrokerUnavailable after `patience_s`; what was asked for may still happen then."""
    future = asyncio.get_running_loop().run_in_executor(request.app[POOL], call)
    try:
        return await asyncio.wait_for(asyncio.shield(future), patience_s)
    except TimeoutError:
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise BrokerUnavailable(
            f"no answer in {patience_s:g} s", todo="it may still happen: look at the case before you try again"
        ) from None
