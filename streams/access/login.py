"""The ways in and out: a name and a password, a link that works once, and logout.
Each login makes a new session and ends the one that the browser came with."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from math import ceil
from typing import TypeVar

from aiohttp import web

from schemas.errors import HeadraceError
from streams.access.accounts import Refused
from streams.access.gate import COOKIE, NOT_MEANT, Gate, form, requires
from streams.access.pages import LoginView
from streams.access.sessions import Opened
from streams.notices import Notices

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=web.StreamResponse)

AT_ONCE = 2  # each takes 64 MiB while it runs
WAITING = 32
LOCAL = re.compile(r"/(?![/\\])[!-\[\]-~]*")  # a path here: no other host, no space, no backslash

WRONG = "The name or the password is wrong."
SPENT = "This link was used already, or its time is over. Ask for another one."
BROKEN = "Nobody can log in just now; the console's log says why."
BUSY = "Too many people are logging in just now. Try again in a moment."


class Login:
    """Handlers of /login, /login/once and /logout."""

    def __init__(self, gate: Gate, *, sso: bool = False) -> None:
        """`sso`: there is an identity provider, too."""
        self._gate, self._turns, self._waiting, self._sso = gate, asyncio.Semaphore(AT_ONCE), 0, sso
        self._notices = Notices(log)

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/login", self.page)
        app.router.add_post("/login", self.by_password)
        app.router.add_get("/login/once", self.once_page)
        app.router.add_post("/login/once", self.by_code)
        app.router.add_post("/logout", self.out)

    async def page(self, request: web.Request) -> web.Response:
        back = local(request.query.get("next", ""))
        if self._gate.who(request, used=False) is not None:
            raise web.HTTPSeeOther(back)
        return self.page_of(LoginView(back))

    async def by_password(self, request: web.Request) -> web.Response:
        fields = await self._fields(request)
        name, back = fields.get("name", "")[:256], local(fields.get("next", ""))
        address = self._gate.address(request)
        async with self.turn() as free:
            if not free:
                return self.page_of(LoginView(back, name, BUSY), 503)
            try:
                found = await asyncio.to_thread(
                    self._gate.accounts.sign_in, name, fields.get("password", ""), address, self._gate.clock()
                )
            except HeadraceError as error:
                log.error("nobody can log in: %s", error)
                return self.page_of(LoginView(back, name, BROKEN), 503)
        if isinstance(found, Opened):
            raise self.let_in(request, found, web.HTTPSeeOther(back))
        # Not the name: people type their password there.
        self._notices.say("login", f"refused to somebody at {address}")
        if found.wait_ms:
            return self._early(LoginView(back, name), found)
        return self.page_of(LoginView(back, name, WRONG), 401)

    async def once_page(self, request: web.Request) -> web.Response:
        """Looking at the link does not spend it: browsers and mail filters look ahead."""
        return self.page_of(LoginView(local(request.query.get("next", "")), code=request.query.get("code", "")))

    async def by_code(self, request: web.Request) -> web.Response:
        fields = await self._fields(request)
        found = self._gate.accounts.redeem(fields.get("code", ""), self._gate.clock())
        back = local(fields.get("next", ""))
        if isinstance(found, Opened):
            raise self.let_in(request, found, web.HTTPSeeOther(back))
        return self.page_of(LoginView(back, error=SPENT), 401)

    @requires("see")
    async def out(self, request: web.Request) -> web.Response:
        if cookie := request.cookies.get(COOKIE):
            self._gate.accounts.sessions.end(cookie)
        answer = web.HTTPSeeOther("/login")
        answer.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict", secure=self._gate.https(request))
        raise answer

    async def _fields(self, request: web.Request) -> dict[str, str]:
        """There is no session yet whose token could be asked for; what a browser says of the sender will do."""
        if self._gate.from_elsewhere(request):
            raise web.HTTPForbidden(text=NOT_MEANT)
        return await form(request)

    def let_in(self, request: web.Request, opened: Opened, answer: Answer) -> Answer:
        """The answer, with the cookie of the new session; the one before it is over."""
        if before := request.cookies.get(COOKIE):
            self._gate.accounts.sessions.end(before)
        log.info("%s logged in from %s", opened.identity.name, self._gate.address(request))
        answer.set_cookie(
            COOKIE, opened.cookie, path="/", httponly=True, samesite="Strict", secure=self._gate.https(request)
        )
        return answer

    def _early(self, view: LoginView, refused: Refused) -> web.Response:
        wait = ceil(refused.wait_ms / 1000)
        error = f"Too many wrong passwords. Try again in {wait} s."
        answer = self.page_of(LoginView(view.next, view.name, error, wait), 429)
        answer.headers["Retry-After"] = str(wait)
        return answer

    def page_of(self, view: LoginView, status: int = 200) -> web.Response:
        text = self._gate.login_page(replace(view, sso=self._sso))
        return web.Response(status=status, text=text, content_type="text/html")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """False where too many wait already."""
        if self._waiting >= WAITING:
            yield False
            return
        self._waiting += 1
        try:
            async with self._turns:
                yield True
        finally:
            self._waiting -= 1


def local(path: str) -> str:
    """Where to go after the login: a path of ours, else the first page."""
    return path if LOCAL.fullmatch(path) else "/"
