"""Login through an identity provider: /login/sso leads there, /login/sso/back is where it sends people to.
Between the two, the browser keeps a cookie that only this login can use."""

import asyncio
import logging

from aiohttp import web

from schemas.errors import HeadraceError
from streams.access.gate import Gate
from streams.access.login import BUSY, Login, local
from streams.access.oidc import BACK, Journey, Person, Provider, Unknown
from streams.access.pages import LoginView, onward
from streams.access.sessions import Opened
from streams.notices import Notices

log = logging.getLogger(__name__)

COOKIE, PATH, MINUTES = "headrace_sso", "/login/sso", 10
AWAY = "Your organisation's login does not answer just now. Try again, or use a password."
SHUT = "You may not use this console. Ask an admin of it."
LOST = "This login took too long, or began in another browser. Try again."


class Sso:
    """Handlers of /login/sso."""

    def __init__(self, gate: Gate, login: Login, provider: Provider) -> None:
        self._gate, self._login, self._provider = gate, login, provider
        self._notices = Notices(log)

    def add_to(self, app: web.Application) -> None:
        app.router.add_get(PATH, self.leave)
        app.router.add_get(BACK, self.come_back)

    async def leave(self, request: web.Request) -> web.Response:
        back = local(request.query.get("next", ""))
        async with self._login.turn() as free:
            if not free:
                return self._login.page_of(LoginView(back, error=BUSY), 503)
            try:
                address, journey = await asyncio.to_thread(self._provider.begin, back)
            except HeadraceError as error:
                return self._away(back, error)
        answer = web.HTTPSeeOther(address)
        # Lax: it has to come along when the provider sends the browser back.
        answer.set_cookie(
            COOKIE, journey.cookie(), path=PATH, httponly=True, samesite="Lax", max_age=MINUTES * 60,
            secure=self._gate.https(request),
        )  # fmt: skip
        raise answer

    async def come_back(self, request: web.Request) -> web.StreamResponse:
        journey = Journey.of(request.cookies.get(COOKIE, ""))
        if journey is None:
            return self._login.page_of(LoginView(error=LOST), 401)
        back, now_ms = local(journey.back), self._gate.clock()
        async with self._login.turn() as free:
            if not free:
                return self._login.page_of(LoginView(back, error=BUSY), 503)
            try:
                answer = dict(request.query)
                found = await asyncio.to_thread(self._provider.finish, journey, answer, now_ms // 1000)
                opened = self._opened(found, now_ms)
            except HeadraceError as error:
                return self._away(back, error)
        if isinstance(opened, str):
            return _forgotten(self._login.page_of(LoginView(back, error=opened), 401))
        page = web.Response(text=onward(back), content_type="text/html")
        return _forgotten(self._login.let_in(request, opened, page))

    def _opened(self, found: Person | Unknown, now_ms: int) -> Opened | str:
        """A session, or a sentence."""
        if isinstance(found, Unknown):
            self._notices.say("sso", found.why)
            return found.sentence
        opened = self._gate.accounts.sign_in_by_sso(found.name, found.role, now_ms)
        return opened if isinstance(opened, Opened) else SHUT

    def _away(self, back: str, error: HeadraceError) -> web.Response:
        self._notices.say("sso", str(error))
        return self._login.page_of(LoginView(back, error=AWAY), 503)


def _forgotten(answer: web.Response) -> web.Response:
    """One journey, one answer."""
    answer.del_cookie(COOKIE, path=PATH)
    return answer
