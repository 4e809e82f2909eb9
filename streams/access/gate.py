"""The gate before every route of an aiohttp application: who asks, whether they may, whether they meant it.
A route without a declared action is refused, whoever asks."""

import hmac
import logging
import time
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote, urlsplit

from aiohttp import web

from schemas.errors import HeadraceError, SettingsError
from streams.access.accounts import Accounts
from streams.access.headers import secure
from streams.access.pages import LoginView, RefusedView, plain_login, plain_refused
from streams.access.roles import LEAST, Identity, allows

log = logging.getLogger(__name__)

COOKIE = "headrace_session"
OPEN = ("/login", "/login/once", "/login/sso", "/login/sso/back", "/healthz")
STATIC = "/static"
PROGRAMS = ("/api/", "/v1/")
READING = ("GET", "HEAD", "OPTIONS")
ACTION = "headrace_action"
NOT_MEANT = "This change did not come from a page of ours, or the page is older than your login. Load it again."
UNDECLARED = "Nobody may do this: no action is declared for it."

Clock = Callable[[], int]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Declared = TypeVar("Declared", bound=Callable[..., Awaitable[web.StreamResponse]])


def requires(action: str) -> Callable[[Declared], Declared]:
    """Declares what a handler does: only who may do that reaches it."""
    if action not in LEAST:
        raise SettingsError(f"there is no action {action!r}", where="requires", expected=", ".join(LEAST))

    def declared(handler: Declared) -> Declared:
        setattr(handler, ACTION, action)
        return handler

    return declared


def identity(request: web.Request) -> Identity:
    """Who asks, on a route with an action. The same as request["identity"], with its type."""
    found: Identity = request["identity"]
    return found


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Door:
    """One route as the gate sees it: `action` is `open`, the declared one, or empty: refused to all."""

    method: str
    path: str
    action: str


def doors(app: web.Application) -> list[Door]:
    """All routes of the application, for a test of each role on each."""
    found = []
    for route in app.router.routes():
        found.append(Door(route.method, _path(route), _action(route)))
    return sorted(found, key=lambda door: (door.path, door.method))


def _action(route: web.AbstractRoute) -> str:
    path = _path(route)
    if path in OPEN or _is_static(path):
        return "open"
    return str(getattr(route.handler, ACTION, ""))


def _path(route: web.AbstractRoute) -> str:
    """As it was added: no trick in a request's path changes it."""
    return route.resource.canonical if route.resource is not None else ""


def _is_static(path: str) -> bool:
    return path == STATIC or path.startswith(STATIC + "/")


class Gate:
    """The middleware, and what login and streams ask of it."""

    def __init__(
        self,
        accounts: Accounts,
        clock: Clock = now_ms,
        *,
        behind_proxy: bool = False,
        login_page: Callable[[LoginView], str] = plain_login,
        refused_page: Callable[[RefusedView], str] = plain_refused,
    ) -> None:
        self.accounts, self.clock, self.login_page = accounts, clock, login_page
        self._refused_page, self._behind_proxy = refused_page, behind_proxy

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        missing = request.match_info.http_exception is not None  # no such path, or no such method of it
        action = "" if missing else _action(request.match_info.route)
        if action == "open":
            return await handler(request)
        try:
            who = self.who(request)
        except HeadraceError as error:
            log.error("nobody can be let in: %s", error)
            return problem(503, f"it cannot be found out who you are: {error.what}")
        with warnings.catch_warnings():  # aiohttp would rather have a key of its own making; pages know the name
            warnings.simplefilter("ignore", web.NotAppKeyWarning)
            request["identity"] = who
        if who is None:
            return await _unknown(request)
        if not missing and not who.can(action):
            return self._refuse(request, who, action)
        if request.method not in READING and who.csrf and not await self._meant(request, who):
            return self._answer(request, RefusedView(NOT_MEANT))
        return await handler(request)

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """For the signal of every answer that is about to go out."""
        cached = _is_static(_path(request.match_info.route)) and response.status in (200, 206, 304)
        secure(response, cached=cached, https=self.https(request))

    def still(self, request: web.Request) -> bool:
        """Whether who asked may go on: for streams, every now and then. It does not keep a session alive."""
        who = self.who(request, used=False)
        return who is not None and who.can(_action(request.match_info.route))

    def https(self, request: web.Request) -> bool:
        return request.secure or self._said_by_proxy(request, "X-Forwarded-Proto") == "https"

    def address(self, request: web.Request) -> str:
        return self._said_by_proxy(request, "X-Forwarded-For") or request.remote or ""

    def from_elsewhere(self, request: web.Request) -> bool:
        """A browser says that another site's page sent it. Programs say nothing."""
        site = request.headers.get("Sec-Fetch-Site")
        if site is not None:
            return site not in ("same-origin", "none")
        origin = request.headers.get("Origin")
        host = self._said_by_proxy(request, "X-Forwarded-Host") or request.host
        return origin is not None and urlsplit(origin).netloc != host

    def _said_by_proxy(self, request: web.Request, header: str) -> str:
        """The last value: the proxy's own, whatever came before it."""
        if not self._behind_proxy:
            return ""
        return ",".join(request.headers.getall(header, [])).rpartition(",")[2].strip()

    def who(self, request: web.Request, *, used: bool = True) -> Identity | None:
        header = request.headers.get("Authorization")
        if header is not None:  # a wrong one is not made up for by a cookie
            scheme, _, token = header.partition(" ")
            return self.accounts.by_token(token.strip(), self.clock()) if scheme.lower() == "bearer" else None
        cookie = request.cookies.get(COOKIE)
        return self.accounts.by_session(cookie, self.clock(), used=used) if cookie else None

    async def _meant(self, request: web.Request, who: Identity) -> bool:
        if self.from_elsewhere(request):
            return False
        sent = request.headers.get("X-CSRF-Token", "")
        if not sent:
            sent = (await form(request)).get("csrf", "")
        return hmac.compare_digest(sent.encode("utf-8", "replace"), who.csrf.encode())

    def _refuse(self, request: web.Request, who: Identity, action: str) -> web.StreamResponse:
        if not action:
            return self._answer(request, RefusedView(UNDECLARED))
        if allows(who.role, action):
            return self._answer(request, RefusedView(f"This token is not for the action {action}."))
        return self._answer(request, RefusedView("This is not yours to do.", LEAST[action], who.name, who.role))

    def _answer(self, request: web.Request, view: RefusedView) -> web.Response:
        if _by_program(request):
            needed = f" It needs the role {view.needed}; {view.name} is {view.role}." if view.needed else ""
            return problem(403, view.what + needed)
        return web.Response(status=403, text=self._refused_page(view), content_type="text/html")


async def _unknown(request: web.Request) -> web.Response:
    if _by_program(request):
        return problem(401, "a session or a bearer token is needed", {"WWW-Authenticate": "Bearer"})
    back = request.path_qs if request.method in READING else await _sent_from(request)
    raise web.HTTPSeeOther("/login" if back == "/" else f"/login?next={quote(back, safe='/')}")


async def _sent_from(request: web.Request) -> str:
    """The page of ours whose form sent this, where what was typed is kept; else the first page."""
    page = urlsplit(request.headers.get("Referer", ""))
    if page.netloc != request.host or not page.path.startswith("/"):
        return "/"
    there = page.path + (f"?{page.query}" if page.query else "")
    found = await request.app.router.resolve(request.clone(method="GET", rel_url=there))
    return there if found.http_exception is None else "/"


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """RFC 9457, for programs."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return web.json_response(body, status=status, content_type="application/problem+json", headers=headers)


async def form(request: web.Request) -> dict[str, str]:
    """The text fields of a form, none of another kind of body; a broken form is a 400, one too large a 413."""
    return dict(await _texts(request))


async def form_list(request: web.Request, name: str) -> list[str]:
    """All texts of a field that a form may repeat, in their order; else as `form`."""
    return [value for field, value in await _texts(request) if field == name]


async def _texts(request: web.Request) -> list[tuple[str, str]]:
    try:
        fields = await request.post()
    except (ValueError, LookupError, web.RequestPayloadError) as error:  # of a charset, or packed, as nobody knows it
        raise web.HTTPBadRequest(text="the form cannot be read") from error
    return [(name, value) for name, value in fields.items() if isinstance(value, str)]


def _by_program(request: web.Request) -> bool:
    return request.path.startswith(PROGRAMS) or "Authorization" in request.headers
