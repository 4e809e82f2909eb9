"""Who may ask for scores: who shows a token of `headrace users token` that may `score`; nobody else, unless set so.
What a worker sends on to another one is believed by the key that workers share, without the token.
"""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import blake2b
from hmac import compare_digest

from aiohttp import web

from schemas.errors import HeadraceError, SettingsError
from streams.access.database import Database
from streams.access.places import ACCOUNTS, access_folder
from streams.access.random_secrets import digest
from streams.access.roles import LEAST, Identity, allows
from streams.access.tokens import Tokens
from streams.asking.problems import CLOSED, NO_ACCOUNTS, NO_TOKEN, NOT_YOURS, Problem
from streams.config import Settings
from streams.notices import Notices

log = logging.getLogger(__name__)

ACTION = "score"
FORWARDED = "Headrace-Forwarded"
KNOWN_S = 2.0
"""For so long a token that was good is not looked up again: a revoked one may still ask."""
STAMP_S = 60.0  # how old what another worker sends on may be; more than their clocks differ
MOST_KNOWN = 1_000

Find = Callable[[str], Awaitable[Identity | None]]


class Bearers:
    """Whose a token is, by the file of the accounts; on the event loop, the file in a thread."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self._database: Database | None = None
        self._known: dict[str, tuple[float, Identity]] = {}

    async def find(self, token: str) -> Identity | None:
        """Raises HeadraceError where the accounts cannot be read."""
        now, key = self._clock(), digest(token)
        until, who = self._known.get(key, (0.0, None))
        if now < until and who is not None:
            return who
        self._known.pop(key, None)
        who = await asyncio.to_thread(self._found, token, int(now * 1000))
        if who is not None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = now + KNOWN_S, who
        return who

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    def _found(self, token: str, now_ms: int) -> Identity | None:
        if self._database is None:
            self._database = Database(access_folder(self._settings) / ACCOUNTS)
        return Tokens(self._database).find(token, now_ms)


class Door:
    """`host`: where the worker listens. `key`: what all workers know, empty for none. `without_token`: whether programs
    of this machine need none.
    """

    def __init__(
        self,
        find: Find,
        host: str,
        *,
        key: str = "",
        without_token: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises SettingsError for a worker that would answer everybody."""
        if without_token and not is_loopback(host):
            raise SettingsError(
                f"the worker listens on {host}, and whoever reaches it needs no token", where="ask.without_token",
                expected="false, or web.host=127.0.0.1", todo="make a token: `headrace users token NAME --only score`",
            )  # fmt: skip
        self._find, self._open, self._clock = find, without_token, clock
        self._key = blake2b(key.encode(), digest_size=32, person=b"headrace-forward").digest() if key else b""
        self._notices = Notices(log)

    async def admit(self, request: web.Request) -> None:
        """Raises Problem for whom nothing is said."""
        if self._stamped(request):
            return
        if self._open and "Authorization" not in request.headers:
            if is_loopback(named(request)):
                return
            # A page that had its own name resolve to this machine.
            raise Problem(CLOSED, "the Host header names another host", expected="127.0.0.1, [::1] or localhost")
        who = await self._who(request)
        if who is None:
            raise Problem(
                NO_TOKEN, "the request has no token, or one that is not good",
                expected="Authorization: Bearer headrace_…", todo="make one: `headrace users token NAME --only score`",
            )  # fmt: skip
        if not who.can(ACTION):
            narrowed = allows(who.role, ACTION)
            why = f"the token is for {', '.join(who.only)}" if narrowed else f"{who.name} is {who.role}"
            expected = f"a token for {ACTION}" if narrowed else f"the role {LEAST[ACTION]}"
            raise Problem(NOT_YOURS, why, expected=expected)

    def passed_on(self, request: web.Request) -> dict[str, str]:
        """Headers for the worker that an admitted request is sent on to."""
        if self._key:
            now = str(int(self._clock()))
            return {FORWARDED: f"{now} {self._stamp(now, request.path)}"}
        given = request.headers.get("Authorization")
        return {FORWARDED: "1"} | ({"Authorization": given} if given is not None else {})

    async def _who(self, request: web.Request) -> Identity | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            return await self._find(token.strip())
        except HeadraceError as error:
            self._notices.say("nobody can ask for scores", str(error))
            raise Problem(NO_ACCOUNTS, "the accounts of this worker cannot be read", todo="see its log") from error

    def _stamped(self, request: web.Request) -> bool:
        """Whether another worker has let the request in, a moment ago."""
        at, _, stamp = request.headers.get(FORWARDED, "").partition(" ")
        if not (self._key and stamp):
            return False
        with suppress(ValueError):
            fresh = abs(self._clock() - int(at)) <= STAMP_S
            return fresh and compare_digest(stamp.encode(), self._stamp(at, request.path).encode())
        return False

    def _stamp(self, at: str, path: str) -> str:
        return blake2b(f"{at} {path}".encode(), digest_size=16, key=self._key).hexdigest()


def named(request: web.Request) -> str:
    """The host that the client believes it speaks to."""
    try:
        return request.url.host or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
