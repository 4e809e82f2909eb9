"""Login through an identity provider: who comes back with its word is let in by their groups; nobody else is."""

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from pydantic import SecretStr

from schemas.errors import SettingsError
from streams.access.accounts import Accounts, Refused
from streams.access.gate import COOKIE, identity, requires
from streams.access.oidc import Journey
from streams.access.pages import LoginView, onward, plain_login
from streams.access.settings import Oidc
from streams.access.sso import COOKIE as JOURNEY
from streams.access.web import protect
from streams.config import Settings
from tests.access_accounts import BY, NOW, open_accounts

KEY, OTHERS = RSAKey.generate_key(2048, {"kid": "1"}), RSAKey.generate_key(2048, {"kid": "1"})
GROUPS: dict[str, Any] = {"analysts": ("fraud",), "admins": ("leads",)}


@dataclass
class Identities:
    """A provider of identities that says what the test wants."""

    claims: dict[str, Any] = field(default_factory=lambda: {"preferred_username": "Ann", "groups": ["fraud", "x"]})
    """Of the next token; None leaves a claim out."""
    key: RSAKey | OctKey = field(default_factory=lambda: KEY)
    algorithm: str = "RS256"
    about: dict[str, Any] = field(default_factory=dict)
    answers: bool = True
    asked: dict[str, str] = field(default_factory=dict)
    taken: list[dict[str, str]] = field(default_factory=list)
    issuer: str = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self.configuration)
        app.router.add_get("/keys", self.keys)
        app.router.add_post("/token", self.token)
        return app

    async def configuration(self, _: web.Request) -> web.Response:
        if not self.answers:
            return web.Response(status=500)
        ends = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
        addresses = {name: self.issuer + path for name, path in ends.items()}
        return web.json_response({"issuer": self.issuer, **addresses, **self.about})

    async def keys(self, _: web.Request) -> web.Response:
        return web.json_response({"keys": [KEY.as_dict(private=False)]})

    async def token(self, request: web.Request) -> web.Response:
        sent = {name: str(value) for name, value in (await request.post()).items()}
        self.taken.append(sent)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(sent["code_verifier"].encode()).digest()).rstrip(b"=")
        authorized = request.headers.get("Authorization", "").startswith("Basic ")
        if sent["code"] != "good" or challenge.decode() != self.asked["code_challenge"] or not authorized:
            return web.json_response({"error": "invalid_grant"}, status=400)
        body = {"access_token": "a", "token_type": "Bearer"}
        return web.json_response(body | {"id_token": self.signed()} if self.claims is not None else body)

    def signed(self) -> str:
        whole = {
            "iss": self.issuer, "aud": "headrace", "sub": "1", "exp": NOW // 1000 + 60, "iat": NOW // 1000,
            "nonce": self.asked["nonce"], **self.claims,
        }  # fmt: skip
        claims = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode({"alg": self.algorithm, "kid": "1"}, claims, self.key, ["RS256", "HS256"])


@dataclass
class Shop:
    accounts: Accounts
    provider: Identities
    client: Any = None

    async def leave(self, path: str = "/") -> ClientResponse:
        """To the provider; what it is asked is in `provider.asked`."""
        answer: ClientResponse = await self.client.get("/login/sso", params={"next": path}, allow_redirects=False)
        if answer.status == 303:
            self.provider.asked = dict(parse_qsl(urlsplit(answer.headers["Location"]).query))
        return answer

    async def come_back(self, **answer: str) -> ClientResponse:
        asked = {"code": "good", "state": self.provider.asked.get("state", ""), **answer}
        found: ClientResponse = await self.client.get("/login/sso/back", params=asked, allow_redirects=False)
        return found

    async def who(self) -> str:
        answer = await self.client.get("/", allow_redirects=False)
        return await answer.text() if answer.status == 200 else ""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with open_accounts(Settings(data_dir=tmp_path)) as accounts:
        yield Shop(accounts, Identities())


def play(shop: Shop, story: Callable[[], Awaitable[None]], **changed: Any) -> None:
    @requires("see")
    async def page(request: web.Request) -> web.Response:
        return web.Response(text=f"{identity(request).name} is {identity(request).role}")

    async def whole() -> None:
        async with TestServer(shop.provider.app()) as server:
            shop.provider.issuer = f"http://127.0.0.1:{server.port}"
            values = {"client_id": "headrace", "client_secret": SecretStr("s"), **GROUPS, **changed}
            oidc = Oidc(issuer=shop.provider.issuer, public_url="https://console.shop", **values)
            app = web.Application()
            protect(app, shop.accounts, lambda: NOW, oidc=oidc)
            app.router.add_get("/", page)
            async with TestClient(TestServer(app)) as shop.client:
                await story()

    asyncio.run(whole())


def test_who_the_provider_knows_is_let_in_with_the_role_of_the_groups(shop: Shop) -> None:
    async def story() -> None:
        assert "/login/sso?next=/" in await (await shop.client.get("/login")).text()
        left = await shop.leave("/cases?a=1")
        asked = shop.provider.asked
        assert left.headers["Location"].startswith(shop.provider.issuer + "/authorize?")
        assert (asked["redirect_uri"], asked["response_type"]) == ("https://console.shop/login/sso/back", "code")
        assert (asked["scope"], asked["code_challenge_method"]) == ("openid profile email", "S256")
        back = await shop.come_back()
        assert back.status == 200
        assert 'content="0;url=/cases?a=1"' in await back.text()
        assert "SameSite=Strict" in back.headers.getall("Set-Cookie")[0]
        assert await shop.who() == "sso.ann is analyst"
        assert [sent["redirect_uri"] for sent in shop.provider.taken] == ["https://console.shop/login/sso/back"]

    play(shop, story)


def test_the_cookie_of_the_journey_is_for_these_pages_alone_and_of_no_use_afterwards(shop: Shop) -> None:
    async def story() -> None:
        cookie = (await shop.leave()).headers["Set-Cookie"]
        for part in (f"{JOURNEY}=", "HttpOnly", "SameSite=Lax", "Path=/login/sso", "Max-Age=600"):
            assert part in cookie
        assert (await shop.come_back()).status == 200
        shop.client.session.cookie_jar.clear(lambda morsel: morsel.key == COOKIE)
        again = await shop.come_back()
        assert (again.status, "took too long" in await again.text()) == (401, True)

    play(shop, story)


def test_the_role_is_what_the_provider_says_at_each_login_and_the_highest_counts(shop: Shop) -> None:
    async def story() -> None:
        for groups, role in ((["fraud"], "analyst"), (["leads", "fraud"], "admin"), ("fraud", "analyst")):
            shop.provider.claims["groups"] = groups
            await shop.leave()
            await shop.come_back()
            assert await shop.who() == f"sso.ann is {role}"
        changes = []
        while (change := shop.accounts.changes.claim(NOW)) is not None:
            changes.append((change.who, change.action, change.detail.get("role")))
            shop.accounts.changes.sent(change)
        made = [("users.add", "analyst"), ("users.role", "admin"), ("users.role", "analyst")]
        assert changes[2:] == [("sso.ann", *change) for change in made]

    play(shop, story)


def test_a_user_of_ours_is_nobody_of_theirs(shop: Shop) -> None:
    async def story() -> None:
        shop.provider.claims["preferred_username"] = "root"
        await shop.leave()
        await shop.come_back()
        assert await shop.who() == "sso.root is analyst"
        assert shop.accounts.sign_in("sso.root", "", "", NOW) == Refused()

    play(shop, story)


def test_who_was_disabled_here_is_not_let_in_from_there(shop: Shop) -> None:
    async def story() -> None:
        shop.accounts.users.add("sso.ann", "viewer", None, **BY)
        shop.accounts.users.disable("sso.ann", **BY)
        await shop.leave()
        answer = await shop.come_back()
        assert (answer.status, "may not use this console" in await answer.text()) == (401, True)
        user = shop.accounts.users.find("sso.ann")
        assert user is not None
        assert user.role == "viewer"

    play(shop, story)


WRONG: dict[str, dict[str, Any]] = {
    "no group with a role": {"groups": ["x"]},
    "no groups": {"groups": None},
    "groups that are none": {"groups": [1, None]},
    "no name": {"preferred_username": None},
    "a name that cannot be one": {"preferred_username": "<script>"},
    "a name that is no text": {"preferred_username": ["ann"]},
    "another audience": {"aud": "another"},
    "another client among the audience": {"aud": ["headrace", "another"], "azp": "another"},
    "another issuer": {"iss": "https://evil.example"},
    "time over": {"exp": NOW // 1000 - 61},
    "no end": {"exp": None},
    "of the future": {"iat": NOW // 1000 + 3600},
    "another login's": {"nonce": "another"},
    "no nonce": {"nonce": None},
    "nobody": {"sub": None},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_token_that_does_not_hold_lets_nobody_in(shop: Shop, wrong: str) -> None:
    async def story() -> None:
        shop.provider.claims |= WRONG[wrong]
        await shop.leave()
        assert (await shop.come_back()).status == 401
        assert await shop.who() == ""
        assert [user.name for user in shop.accounts.users.all()] == ["ann", "root"]

    play(shop, story)


SIGNATURES: dict[str, tuple[RSAKey | OctKey, str]] = {
    "another's key": (OTHERS, "RS256"),
    "a secret that is shared": (OctKey.import_key("s" * 32), "HS256"),
}


@pytest.mark.parametrize("how", SIGNATURES)
def test_a_token_that_the_provider_did_not_sign_lets_nobody_in(shop: Shop, how: str) -> None:
    async def story() -> None:
        shop.provider.key, shop.provider.algorithm = SIGNATURES[how]
        await shop.leave()
        assert (await shop.come_back()).status == 401
        assert await shop.who() == ""

    play(shop, story)


def test_a_token_without_a_signature_lets_nobody_in(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsigned(self: Identities) -> str:
        head, body, _ = whole(self).split(".")
        none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
        assert head != none
        return f"{none}.{body}."

    whole = Identities.signed
    monkeypatch.setattr(Identities, "signed", unsigned)

    async def story() -> None:
        await shop.leave()
        assert (await shop.come_back()).status == 401

    play(shop, story)


ANSWERS = {
    "another state": {"state": "another"},
    "no state": {"state": ""},
    "a state of strange letters": {"state": "é"},
    "a code that is none": {"code": "bad"},
    "another provider": {"iss": "https://evil.example"},
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_is_not_to_this_browsers_question_lets_nobody_in(shop: Shop, answer: str) -> None:
    async def story() -> None:
        await shop.leave()
        assert (await shop.come_back(**ANSWERS[answer])).status == 401
        assert await shop.who() == ""

    play(shop, story)


def test_an_answer_in_another_browser_lets_nobody_in(shop: Shop) -> None:
    async def story() -> None:
        await shop.leave()
        shop.client.session.cookie_jar.clear()
        assert (await shop.come_back()).status == 401
        assert shop.provider.taken == []

    play(shop, story)


def test_a_person_who_declines_is_back_at_the_login(shop: Shop) -> None:
    async def story() -> None:
        await shop.leave()
        asked = {"error": "access_denied", "state": shop.provider.asked["state"]}
        answer = await shop.client.get("/login/sso/back", params=asked, allow_redirects=False)
        assert (answer.status, "did not work" in await answer.text()) == (401, True)
        assert shop.provider.taken == []

    play(shop, story)


def test_a_provider_that_is_away_is_said_to_be_and_passwords_work(shop: Shop) -> None:
    async def story() -> None:
        shop.provider.answers = False
        answer = await shop.leave()
        assert (answer.status, "use a password" in await answer.text()) == (503, True)
        shop.provider.answers = True
        assert (await shop.leave()).status == 303

    play(shop, story)


@pytest.mark.parametrize("about", [{"issuer": "https://evil.example"}, {"token_endpoint": "ftp://x"}, {"jwks_uri": ""}])
def test_a_provider_that_says_strange_things_of_itself_is_not_followed(shop: Shop, about: dict[str, str]) -> None:
    async def story() -> None:
        shop.provider.about = about
        assert (await shop.leave()).status == 503

    play(shop, story)


def test_an_email_that_was_not_verified_is_no_name(shop: Shop) -> None:
    async def story() -> None:
        for verified, status in ((None, 401), ("true", 401), (True, 200)):
            shop.provider.claims |= {"email": "ann@shop.example", "email_verified": verified}
            await shop.leave()
            assert (await shop.come_back()).status == status
        assert await shop.who() == "sso.ann@shop.example is analyst"

    play(shop, story, name_claim="email")


def test_without_a_provider_there_is_no_such_door(shop: Shop) -> None:
    app = web.Application()
    protect(app, shop.accounts, oidc=Oidc())
    assert [route for route in app.router.routes() if "sso" in str(route.resource)] == []
    assert "sso" not in plain_login(LoginView())


@pytest.mark.parametrize("cookie", ["", "x", "e30", "WzEsMiwzLDRd", "W10", "é", "A" * 5000])
def test_a_cookie_that_is_no_journey_is_none(cookie: str) -> None:
    assert Journey.of(cookie) is None


def test_a_journey_comes_back_as_it_left() -> None:
    journey = Journey("s", "n", "v", "/cases?é=1")
    assert Journey.of(journey.cookie()) == journey


def test_the_page_that_leads_on_shows_text() -> None:
    assert "<script>" not in onward('/"><script>')


BAD: list[dict[str, Any]] = [{"issuer": "https://id.example"}, {"issuer": "http://id.example", "client_id": "x"}]
BAD += [{"issuer": "https://id.example", "client_id": "x", "public_url": "http://console.shop"}]


@pytest.mark.parametrize("oidc", BAD, ids=str)
def test_settings_that_do_not_fit_together_are_refused(oidc: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"access\.oidc"):
        Settings(data_dir=tmp_path, access={"oidc": oidc})


def test_groups_come_from_the_environment_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_ACCESS__OIDC__ADMINS", "leads, platform")
    assert Settings().access.oidc.admins == ("leads", "platform")
