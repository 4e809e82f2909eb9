"""The worker's part in forgetting a person: once all that came before is scored, their state goes, everywhere it is.
It answers with where it stood then: from there on, whoever comes under that name is a new person.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from schemas.errors import HeadraceError
from streams.notices import Notices
from streams.privacy.entries import STATE, Cutoff, Entry
from streams.privacy.erasures import Erasures

log = logging.getLogger(__name__)

LOOK_S, WAIT_S = 1.0, 0.1


class State(Protocol):
    """See streams.state.UserState."""

    def forget(self, user: str, partition: int) -> int: ...
    def stored(self, partition: int) -> int: ...


class Store(Protocol):
    """See streams.store.UserStore."""

    def purge(self, partition: int) -> None: ...
    def close(self, partition: int | None = None) -> None: ...


class Standing(Protocol):
    """See streams.flush.Flusher."""

    owned: set[int]
    held: bool
    lock: asyncio.Lock

    def reached(self, partition: int) -> Cutoff: ...


class Forgetting:
    """On the loop's thread."""

    def __init__(
        self,
        state: State,
        store: Store,
        standing: Standing,
        *,
        erasures: Callable[[], Erasures],
        put: Callable[[Entry], None],
        settled: Callable[[], Awaitable[None]],
        revocations: Callable[[], int],
        caches: Callable[[str], None],
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """put: an answer to the log; blocks. settled: all outputs of what was taken up are acknowledged. revocations:
        another number whenever partitions went. caches: forgets a user there.
        """
        self._state, self._store, self._standing = state, store, standing
        self._erasures, self._put, self._settled = erasures, put, settled
        self._revocations, self._caches, self._now_ms = revocations, caches, now_ms
        self._answered: set[str] = set()
        self._notices = Notices(log)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Forgets whom it can; the others are for another time. Nothing that goes wrong here ends a worker."""
        erasures = self._erasures()
        for request in erasures.open(STATE, self._standing.owned):
            if request.receipt in self._answered:
                continue
            try:
                if await self._forget(request, erasures.user_of(request)):
                    self._answered.add(request.receipt)
            except HeadraceError as error:
                self._notices.say("forgetting waits", f"request {request.receipt}: {error}")

    async def _forget(self, request: Entry, user: str) -> bool:
        partition, standing, before = request.partition, self._standing, self._revocations()
        # Without an await in between: what was absorbed by now is gone, and nothing else is.
        reached = standing.reached(partition)
        if standing.held or any(at < cut for at, cut in zip(reached, request.cutoff, strict=True)):
            return False  # what came before is scored first: a customer waits for it
        snapshot, at = self._state.forget(user, partition), self._now_ms()
        self._caches(user)
        await self._settled()
        while self._state.stored(partition) < snapshot:
            await asyncio.sleep(WAIT_S)
            if self._revocations() != before:
                return False
        async with standing.lock:
            if self._revocations() != before or partition not in standing.owned:
                return False
            await asyncio.to_thread(self._store.purge, partition)
            self._store.close(partition)  # it opens again, with a new list of files
        await asyncio.to_thread(self._put, request.answered(STATE, at, reached))
        log.info("a person is forgotten in partition %d", partition, extra={"request": request.receipt})
        return True
