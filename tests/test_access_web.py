"""The gate: no door is open by default, rights hold on every route, no other site speaks for who is logged in."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, FormData, web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import SettingsError, StateError
from streams.access.accounts import Accounts
from streams.access.gate import COOKIE, Gate, doors, identity, requires
from streams.access.login import local
from streams.access.pages import LoginView, RefusedView, plain_login, plain_refused
from streams.access.roles import LEAST, ROLES, allows
from streams.access.web import protect
from streams.config import Settings
from tests.access_accounts import BY, GOOD, HOUR, MINUTE, NOW, OTHER, open_accounts

Client = TestClient[web.Request, web.Application]
Story = Callable[["Shop"], Awaitable[None]]


@dataclass
class Shop:
    """A protected application with a page, a change and a stream, and a browser."""

    accounts: Accounts
    static: Path
    now: int = NOW
    behind_proxy: bool = False
    reached: list[str] = field(default_factory=list)
    client: Client = None  # type: ignore[assignment]  # there once it is open
    gate: Gate = None  # type: ignore[assignment]  # there once it is open

    def app(self) -> web.Application:
        app = web.Application(client_max_size=10_000)
        self.gate = protect(app, self.accounts, lambda: self.now, behind_proxy=self.behind_proxy)

        def handler(action: str) -> Callable[[web.Request], Awaitable[web.Response]]:
            @requires(action)
            async def handle(request: web.Request) -> web.Response:
                self.reached.append(f"{identity(request).name} {request.method} {request.path}")
                return web.Response(text=identity(request).csrf)

            return handle

        async def undeclared(_: web.Request) -> web.Response:
            self.reached.append("undeclared")
            return web.Response(text="secret")

        app.router.add_get("/", handler("see"))
        app.router.add_get("/undeclared", undeclared)
        app.router.add_get("/loginx", undeclared)
        app.router.add_get("/healthz", undeclared)
        app.router.add_post("/posted", handler("policy"))
        app.router.add_static("/static", self.static)
        for action in LEAST:
            app.router.add_get(f"/pages/{action}", handler(action))
            app.router.add_post(f"/pages/{action}", handler(action))
            app.router.add_get(f"/api/{action}", handler(action))
            app.router.add_post(f"/api/{action}", handler(action))
        inner = web.Application()
        inner.router.add_get("/undeclared", undeclared)
        inner.router.add_get("/users", handler("users"))
        app.add_subapp("/inner", inner)
        return app

    async def get(self, path: str, **asked: Any) -> ClientResponse:
        return await self.client.get(path, allow_redirects=False, **asked)

    async def post(self, path: str, data: Any = None, **asked: Any) -> ClientResponse:
        return await self.client.post(path, data=data, allow_redirects=False, **asked)

    async def log_in(self, name: str = "ann", password: str = GOOD, **more: str) -> ClientResponse:
        return await self.post("/login", {"name": name, "password": password, **more})

    async def csrf(self) -> str:
        return await (await self.get("/")).text()

    def cookie(self) -> str:
        return next((morsel.value for morsel in self.client.session.cookie_jar if morsel.key == COOKIE), "")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "app.js").write_text("1")
    (tmp_path / "secret.txt").write_text("secret")
    with open_accounts(Settings(data_dir=tmp_path)) as accounts:
        yield Shop(accounts, tmp_path / "static")


def play(shop: Shop, story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with TestClient(TestServer(shop.app())) as shop.client:
            await story()

    asyncio.run(whole())


def bearer(shop: Shop, role: str, **more: Any) -> dict[str, str]:
    if shop.accounts.users.find(f"robot.{role}") is None:
        shop.accounts.users.add(f"robot.{role}", role, None, **BY)
    return {"Authorization": f"Bearer {shop.accounts.tokens.make(f'robot.{role}', '', days=1, **BY, **more)[1]}"}


# -- deny by default ----------------------------------------------------------------------------------------------


def test_who_is_not_logged_in_reaches_nothing_but_login_health_and_static_files(shop: Shop) -> None:
    async def story() -> None:
        for door in doors(shop.client.server.app):  # type: ignore[attr-defined]  # a TestServer has it
            if door.action == "open":
                continue
            answer = await shop.client.request(door.method, door.path, allow_redirects=False)
            program = door.path.startswith("/api/")
            assert answer.status == (401 if program else 303), door
            if program:
                assert answer.content_type == "application/problem+json"
                assert answer.headers["WWW-Authenticate"] == "Bearer"
            else:
                assert answer.headers["Location"].startswith("/login")
        assert shop.reached == []
        for path in ("/login", "/login/once", "/healthz", "/static/app.js"):
            assert (await shop.get(path)).status == 200

    play(shop, story)


def test_who_sends_a_form_after_their_session_comes_back_to_its_page(shop: Shop) -> None:
    async def story() -> None:
        here = str(shop.client.make_url("/"))
        for page, back in (
            (f"{here}pages/see?a=b", "/login?next=/pages/see?a%3Db"),
            (f"{here}no/such/page", "/login"),
            (f"{here}posted", "/login"),
            ("https://elsewhere.example/pages/see", "/login"),
            ("", "/login"),
        ):
            answer = await shop.post("/pages/policy", headers={"Referer": page})
            assert (answer.status, answer.headers["Location"]) == (303, back), page

    play(shop, story)


def test_a_route_without_an_action_is_refused_to_everybody(shop: Shop) -> None:
    async def story() -> None:
        await shop.log_in("root")
        for path in ("/undeclared", "/loginx", "/inner/undeclared"):
            answer = await shop.get(path)
            assert answer.status == 403
            assert "no action is declared" in await answer.text()
        assert shop.reached == []

    play(shop, story)


def test_the_doors_name_every_route_with_its_action(shop: Shop) -> None:
    found = {(door.method, door.path): door.action for door in doors(shop.app())}
    assert found["POST", "/pages/policy"] == "policy"
    assert found["GET", "/undeclared"] == ""
    assert found["GET", "/inner/users"] == "users"
    opened = {path for (_, path), action in found.items() if action == "open"}
    assert opened == {"/login", "/login/once", "/healthz", "/static"}
    assert found["POST", "/logout"] == "see"


@pytest.mark.parametrize("path", ["/static/../secret.txt", "/static/%2e%2e/secret.txt", "/static/..%2fsecret.txt"])
def test_static_files_end_at_their_folder(shop: Shop, path: str) -> None:
    async def story() -> None:
        from yarl import URL

        answer = await shop.client.get(URL(path, encoded=True), allow_redirects=False)
        assert answer.status in (303, 403, 404)
        assert "secret" not in await answer.text()

    play(shop, story)


def test_what_is_not_there_is_told_only_to_who_is_logged_in(shop: Shop) -> None:
    async def story() -> None:
        assert (await shop.get("/nowhere")).status == 303
        assert (await shop.get("/api/nowhere")).status == 401
        assert (await shop.client.put("/api/see")).status == 401
        await shop.log_in()
        assert (await shop.get("/nowhere")).status == 404
        headers = {"X-CSRF-Token": await shop.csrf()}
        assert (await shop.client.put("/api/see", headers=headers)).status == 405

    play(shop, story)


def test_an_action_that_nobody_knows_is_an_error_where_it_is_declared() -> None:
    with pytest.raises(SettingsError, match="'fly'"):
        requires("fly")


# -- rights -------------------------------------------------------------------------------------------------------


def test_each_role_reaches_what_it_may_and_nothing_else_by_any_door(shop: Shop) -> None:
    async def story() -> None:
        for role in ROLES:
            headers = bearer(shop, role)
            for action in LEAST:
                for method, path in (("GET", "/pages"), ("POST", "/pages"), ("GET", "/api"), ("POST", "/api")):
                    answer = await shop.client.request(method, f"{path}/{action}", headers=headers)
                    assert answer.status == (200 if allows(role, action) else 403), (role, action, method)
        assert (await shop.get("/inner/users", headers=bearer(shop, "operator"))).status == 403
        assert (await shop.get("/inner/users", headers=bearer(shop, "admin"))).status == 200

    play(shop, story)


def test_who_is_refused_is_told_which_role_it_takes(shop: Shop) -> None:
    async def story() -> None:
        await shop.log_in()
        page = await shop.get("/pages/release")
        assert (page.status, page.content_type) == (403, "text/html")
        assert "needs the role operator; ann is analyst" in await page.text()
        problem = await shop.get("/api/users")
        assert problem.status == 403
        told = json.loads(await problem.text())
        assert (told["status"], told["title"]) == (403, "Forbidden")
        assert "the role admin" in told["detail"]

    play(shop, story)


def test_a_narrowed_token_reaches_its_actions_alone(shop: Shop) -> None:
    async def story() -> None:
        headers = bearer(shop, "operator", only=["score"])
        assert (await shop.post("/api/score", headers=headers)).status == 200
        refused = await shop.post("/api/policy", headers=headers)
        assert refused.status == 403
        assert "not for the action policy" in await refused.text()

    play(shop, story)


@pytest.mark.parametrize("header", ["Bearer headrace_wrong", "Bearer", "Basic cm9vdDpyb290", "", "Bearer é"])
def test_a_wrong_token_is_not_made_up_for_by_a_session(shop: Shop, header: str) -> None:
    async def story() -> None:
        await shop.log_in("root")
        assert (await shop.get("/api/users", headers={"Authorization": header})).status == 401
        assert (await shop.get("/api/users")).status == 200

    play(shop, story)


async def ask(shop: Shop, asked: Callable[[web.Request], None]) -> ClientResponse:
    """On a route of its own, which asks for `verdict`."""

    @requires("verdict")
    async def stream(request: web.Request) -> web.Response:
        asked(request)
        return web.Response()

    app = shop.client.server.app  # type: ignore[attr-defined]  # a TestServer has it
    app.router._frozen = False
    app.router.add_get("/stream", stream)
    return await shop.get("/stream")


def test_rights_that_are_taken_away_are_away_with_the_next_request_and_in_streams(shop: Shop) -> None:
    still: list[bool] = []

    def asked(request: web.Request) -> None:
        still.append(shop.gate.still(request))
        shop.accounts.users.set_role("ann", "viewer", **BY)
        still.append(shop.gate.still(request))

    async def story() -> None:
        await shop.log_in()
        assert (await ask(shop, asked)).status == 200
        assert still == [True, False]
        assert (await shop.get("/")).status == 303

    play(shop, story)


def test_a_stream_ends_with_its_session_and_keeps_none_alive(shop: Shop) -> None:
    still: list[bool] = []

    def asked(request: web.Request) -> None:
        for _ in range(6):
            shop.now += 10 * MINUTE
            still.append(shop.gate.still(request))

    async def story() -> None:
        await shop.log_in()
        await ask(shop, asked)
        assert still == [True] * 5 + [False]

    play(shop, story)


# -- sessions -----------------------------------------------------------------------------------------------------


def test_a_login_leads_to_where_one_wanted_to_go(shop: Shop) -> None:
    async def story() -> None:
        answer = await shop.get("/pages/see?task=fraud&q=a%20b")
        page = await (await shop.get(answer.headers["Location"])).text()
        assert 'value="/pages/see?task=fraud&amp;q=a%20b"' in page
        done = await shop.log_in(next="/pages/see?task=fraud&q=a%20b")
        assert (done.status, done.headers["Location"]) == (303, "/pages/see?task=fraud&q=a%20b")
        assert (await shop.get("/login")).status == 303

    play(shop, story)


ELSEWHERE = [
    "//evil.example",
    "https://evil.example",
    "/\\evil.example",
    "\\/evil",
    "javascript:1",
    "",
    "/\t/evil",
    "/ a",
]


@pytest.mark.parametrize("path", ELSEWHERE)
def test_a_login_leads_nowhere_else(path: str) -> None:
    assert local(path) == "/"


@given(st.text(alphabet="/\\.:a?#@% \t\n"))
@example("/a//b")
def test_where_a_login_leads_is_a_path_of_ours(path: str) -> None:
    from urllib.parse import urljoin, urlsplit

    found = urlsplit(urljoin("https://us.example/login", local(path).replace("\\", "/")))
    assert (found.scheme, found.netloc) == ("https", "us.example")


def test_the_cookie_is_for_us_alone_and_goes_over_https_if_we_do(shop: Shop) -> None:
    async def story() -> None:
        plain = (await shop.log_in()).headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(plain.split("; "))
        assert "Secure" not in plain
        assert "Domain" not in plain
        shop.gate._behind_proxy = True
        proxied = await shop.post(
            "/login", {"name": "ann", "password": GOOD}, headers={"X-Forwarded-Proto": "http, https"}
        )
        assert "Secure" in proxied.headers["Set-Cookie"].split("; ")
        assert "max-age" in proxied.headers["Strict-Transport-Security"]

    play(shop, story)


def test_what_a_proxy_would_say_is_heard_only_if_there_is_one(shop: Shop) -> None:
    async def story() -> None:
        for _ in range(30):
            headers = {"X-Forwarded-For": "10.9.9.9", "X-Forwarded-Proto": "https"}
            answer = await shop.post("/login", {"name": "x", "password": "y"}, headers=headers)
        assert answer.status == 429
        assert "Strict-Transport-Security" not in answer.headers
        shop.gate._behind_proxy = True
        shop.now += HOUR
        assert shop.accounts.sign_in("x", OTHER, "127.0.0.1", shop.now)
        for number in range(30):  # the client's own word comes before the proxy's
            headers = {"X-Forwarded-For": f"10.0.0.{number}, 192.0.2.7"}
            answer = await shop.post("/login", {"name": f"x{number}", "password": "y"}, headers=headers)
        assert answer.status == 429

    play(shop, story)


def test_a_session_that_was_idle_or_is_too_old_is_over(shop: Shop) -> None:
    async def story() -> None:
        await shop.log_in()
        for _ in range(11):
            shop.now += HOUR - MINUTE
            assert (await shop.get("/")).status == 200
        shop.now += HOUR - MINUTE
        assert (await shop.get("/")).status == 200
        shop.now += HOUR - MINUTE
        assert (await shop.get("/")).status == 303
        await shop.log_in()
        shop.now += HOUR
        assert (await shop.get("/api/see")).status == 401

    play(shop, story)


def test_a_login_ends_the_session_before_it_and_takes_none_that_was_given(shop: Shop) -> None:
    async def story() -> None:
        await shop.log_in()
        first = shop.cookie()
        await shop.log_in("root")
        assert shop.cookie() != first
        assert shop.accounts.by_session(first, NOW) is None
        shop.client.session.cookie_jar.clear()
        await shop.post("/login", {"name": "ann", "password": GOOD}, cookies={COOKIE: "chosen"})
        assert shop.accounts.by_session("chosen", NOW) is None

    play(shop, story)


def test_logout_ends_the_session_and_takes_a_token_against_forgery(shop: Shop) -> None:
    async def story() -> None:
        await shop.log_in()
        cookie, csrf = shop.cookie(), await shop.csrf()
        assert (await shop.post("/logout")).status == 403
        done = await shop.post("/logout", {"csrf": csrf})
        assert (done.status, done.headers["Location"]) == (303, "/login")
        assert shop.cookie() == ""
        assert shop.accounts.by_session(cookie, NOW) is None
        assert (await shop.get("/")).status == 303

    play(shop, story)


def test_a_link_logs_in_once_and_looking_at_it_does_not_spend_it(shop: Shop) -> None:
    async def story() -> None:
        code = shop.accounts.login_code("operator", **BY)
        for _ in range(3):
            page = await shop.get(f"/login/once?code={code}")
            assert (page.status, code in await page.text()) == (200, True)
        assert (await shop.get("/")).status == 303
        assert (await shop.post("/login/once", {"code": code})).status == 303
        assert (await shop.get("/pages/release")).status == 200
        shop.client.session.cookie_jar.clear()
        again = await shop.post("/login/once", {"code": code})
        assert again.status == 401
        assert "used already" in await again.text()
        late = shop.accounts.login_code("operator", minutes=10, **BY)
        shop.now += 10 * MINUTE
        assert (await shop.post("/login/once", {"code": late})).status == 401

    play(shop, story)


# -- guessing and forgery -----------------------------------------------------------------------------------------


def test_a_wrong_login_keeps_the_name_says_no_more_and_has_to_wait(shop: Shop) -> None:
    async def story() -> None:
        pages = [await (await shop.log_in(name, OTHER)).text() for name in ("ann", "bob")]
        assert pages[0].replace("ann", "bob") == pages[1]
        assert 'value="bob"' in pages[1]
        assert OTHER not in pages[0]
        for _ in range(4):
            assert (await shop.log_in("ann", OTHER)).status == 401
        early = await shop.log_in("ann", GOOD)
        assert (early.status, early.headers["Retry-After"]) == (429, "1")
        assert "Try again in 1 s" in await early.text()
        shop.now += 1000
        assert (await shop.log_in("ann", GOOD)).status == 303

    play(shop, story)


def test_a_change_by_a_session_needs_its_token_in_a_field_or_a_header(shop: Shop) -> None:
    async def story() -> None:
        await shop.log_in()
        csrf = await shop.csrf()
        shop.reached.clear()
        multipart = FormData({"csrf": csrf}, default_to_multipart=True)
        for good in ({"data": {"csrf": csrf}}, {"data": multipart}, {"json": {}, "headers": {"X-CSRF-Token": csrf}}):
            assert (await shop.post("/pages/verdict", **good)).status == 200
        assert len(shop.reached) == 3
        file = FormData()
        file.add_field("csrf", csrf.encode(), filename="csrf")
        bad: list[dict[str, Any]] = [
            {},
            {"data": {"csrf": ""}},
            {"data": {"csrf": csrf[:-1]}},
            {"data": {"csrf": "é"}},
            {"data": file},
            {"json": {"csrf": csrf}},
            {"params": {"csrf": csrf}},
            {"headers": {"X-CSRF-Token": "wrong"}, "data": {"csrf": csrf}},
        ]
        for asked in bad:
            assert (await shop.post("/pages/verdict", **asked)).status == 403, asked
            assert (await shop.post("/api/verdict", **asked)).status == 403, asked
        assert len(shop.reached) == 3

    play(shop, story)


def test_the_token_of_one_session_is_of_no_use_to_another(shop: Shop) -> None:
    async def story() -> None:
        await shop.log_in()
        csrf = await shop.csrf()
        await shop.log_in()
        assert (await shop.post("/pages/verdict", {"csrf": csrf})).status == 403

    play(shop, story)


def test_a_bearer_token_needs_none_against_forgery(shop: Shop) -> None:
    async def story() -> None:
        assert (await shop.post("/api/verdict", headers=bearer(shop, "analyst"))).status == 200

    play(shop, story)


FOREIGN = [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}]
FOREIGN += [{"Origin": "null"}]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_form_of_another_site_changes_nothing_and_logs_nobody_in(shop: Shop, headers: dict[str, str]) -> None:
    async def story() -> None:
        code = shop.accounts.login_code("viewer", **BY)
        for path, data in (("/login", {"name": "ann", "password": GOOD}), ("/login/once", {"code": code})):
            answer = await shop.post(path, data, headers=headers)
            assert answer.status == 403
            assert "Set-Cookie" not in answer.headers
        await shop.log_in()
        csrf = await shop.csrf()
        assert (await shop.post("/pages/verdict", {"csrf": csrf}, headers=headers)).status == 403
        ours = {"Origin": f"http://{shop.client.host}:{shop.client.port}", "Sec-Fetch-Site": "same-origin"}
        assert (await shop.post("/pages/verdict", {"csrf": csrf}, headers=ours)).status == 200

    play(shop, story)


def test_bodies_that_are_too_large_or_no_form_are_refused(shop: Shop) -> None:
    async def story() -> None:
        await shop.log_in()
        csrf = await shop.csrf()
        huge = {"csrf": csrf, "note": "x" * 20_000}
        assert (await shop.post("/pages/verdict", huge)).status == 413
        assert (await shop.post("/login", huge)).status == 413
        kind = "application/x-www-form-urlencoded"
        for body, charset in ((b"csrf=\xff", "utf-8"), (b"csrf=x", "nonsense")):
            headers = {"Content-Type": f"{kind}; charset={charset}"}
            assert (await shop.post("/pages/verdict", body, headers=headers)).status == 400
            assert (await shop.post("/login", body, headers=headers)).status == 400
        assert (await shop.get("/")).status == 200

    play(shop, story)


def test_logins_that_crowd_are_turned_away_and_not_kept_waiting(shop: Shop) -> None:
    async def story() -> None:
        answers = await asyncio.gather(*(shop.log_in(f"user{number}", OTHER) for number in range(60)))
        statuses = {answer.status for answer in answers}
        assert statuses <= {401, 429, 503}
        assert 503 in statuses
        assert (await shop.log_in(password=GOOD)).status in (303, 429)

    play(shop, story)


# -- pages and headers --------------------------------------------------------------------------------------------


def test_every_answer_keeps_scripts_frames_and_caches_out(shop: Shop) -> None:
    async def story() -> None:
        await shop.log_in()
        answers = [await shop.get(path) for path in ("/", "/nowhere", "/pages/users", "/api/users", "/healthz")]
        shop.client.session.cookie_jar.clear()
        answers += [await shop.get(path) for path in ("/", "/login", "/api/see", "/static/none.js")]
        for answer in answers:
            policy = answer.headers["Content-Security-Policy"]
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert answer.headers["Cache-Control"] == "no-store"
        assert "Cache-Control" not in (await shop.get("/static/app.js")).headers

    play(shop, story)


SCRIPT = '"><script>alert(1)</script>'


def test_what_somebody_typed_is_text_on_the_page() -> None:
    pages = [
        plain_login(LoginView(SCRIPT, SCRIPT, SCRIPT, code="")),
        plain_login(LoginView(SCRIPT, SCRIPT, SCRIPT, code=SCRIPT)),
        plain_refused(RefusedView(SCRIPT, SCRIPT, SCRIPT, SCRIPT)),
    ]
    assert [page for page in pages if "<script" in page] == []


def test_pages_of_ones_own_are_told_what_to_show(shop: Shop) -> None:
    seen: list[LoginView | RefusedView] = []

    def page(view: LoginView | RefusedView) -> str:
        seen.append(view)
        return "mine"

    async def story() -> None:
        shop.gate.login_page = shop.gate._refused_page = page
        assert await (await shop.log_in("ann", OTHER, next="/pages/see")).text() == "mine"
        await shop.log_in()
        assert await (await shop.get("/pages/users")).text() == "mine"
        assert seen == [
            LoginView("/pages/see", "ann", "The name or the password is wrong."),
            RefusedView("This is not yours to do.", "admin", "ann", "analyst"),
        ]

    play(shop, story)


def test_accounts_that_cannot_be_read_let_nobody_in(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise StateError("the disk is gone")

    async def story() -> None:
        await shop.log_in("root")
        monkeypatch.setattr(shop.accounts, "by_session", broken)
        monkeypatch.setattr(shop.accounts, "sign_in", broken)
        assert (await shop.get("/pages/users")).status == 503
        answer = await shop.log_in("root")
        assert answer.status == 503
        assert "Nobody can log in just now" in await answer.text()
        assert (await shop.get("/healthz")).status == 200

    play(shop, story)
