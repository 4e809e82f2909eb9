"""The console's pages over HTTP: who sees what, what forms answer, what hostile values do, how large pages are."""

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from schemas.errors import BrokerUnavailable
from streams.access.gate import doors
from streams.console import words
from streams.console.page import STATIC, environment
from streams.console.store import Batch
from streams.tasks.field_words import FIELD_WORDS
from tests.console_app import Shown, shown
from tests.console_shop import Shop, alert, alert_id, label, shop

A = alert_id("a")
EVIL = "<img src=x onerror=alert(1)>\"'{{7*7}}"
SCRIPT = {"Accept": "application/json"}

Client = TestClient[Any, Any]
Story = Callable[[Client, Shown], Awaitable[None]]


@asynccontextmanager
async def open_client(console: Shown, role: str = "") -> AsyncIterator[Client]:
    async with TestClient(TestServer(console.app()), cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        if role:
            answer = await client.post("/login/once", data={"code": console.code(role)}, allow_redirects=False)
            assert answer.status == 303
        yield client


def played(console: Shown, role: str, story: Story) -> None:
    async def play() -> None:
        async with open_client(console, role) as client:
            await story(client, console)

    asyncio.run(play())


async def text(client: Client, path: str, status: int = 200, lang: str = "en") -> str:
    answer = await client.get(path, headers={"Accept": "text/html", "Accept-Language": lang})
    assert answer.status == status, await answer.text()
    return await answer.text()


async def csrf(client: Client) -> str:
    found = re.search(r'data-csrf="([^"]+)"', await text(client, "/queue"))
    assert found
    return found[1]


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("role", ["viewer", "analyst", "admin"])
def test_queue_and_each_case_show_in_every_role_and_language(tmp_path: Path, role: str, lang: str) -> None:
    made = shop(quiet=6)

    async def story(client: Client, console: Shown) -> None:
        for path in (
            "/queue",
            "/queue?state=answered",
            "/queue?state=all&each=1",
            "/queue?least=x",
            "/queue?text=none",
        ):
            assert "<h1>" in await text(client, path, lang=lang)
        for one in made.alerts:
            page = await text(client, f"/cases/{one['alert_id']}", lang=lang)
            assert one["order_id"] in page
            assert await text(client, f"/cases/{one['alert_id']}/order", lang=lang)

    with shown(tmp_path, made) as console:
        played(console, role, story)


def test_no_door_is_open_but_login_and_health(tmp_path: Path) -> None:
    async def story(client: Client, console: Shown) -> None:
        for door in doors(console.app()):
            path = door.path.replace("{alert}", A).replace("{note}", "n")
            answer = await client.request(door.method, path, allow_redirects=False)
            open_ = path in ("/login", "/login/once", "/healthz", "/static")
            assert (answer.status == 303 and answer.headers["Location"].startswith("/login")) != open_, path

    with shown(tmp_path, Shop([alert("a")])) as console:
        assert {door.path for door in doors(console.app()) if not door.action} == set()
        played(console, "", story)


def test_a_viewer_changes_nothing_and_sees_tokens_masked(tmp_path: Path) -> None:
    made = Shop([alert("a", user_id="customer-4711", entities=["card:card-4242424242"])])

    async def story(client: Client, console: Shown) -> None:
        token = await csrf(client)
        for path in ("verdict", "undo", "notes", "assign", "notes/n/remove"):
            data = {"csrf": token, "verdict": "fraud", "text": "x"}
            answer = await client.post(f"/cases/{A}/{path}", data=data)
            assert answer.status == 403
        page = await text(client, f"/cases/{A}") + await text(client, "/queue")
        assert "card-4242424242" not in page
        assert "customer-4711" not in page
        assert "••••242" in page
        assert 'value="fraud"' not in page

    with shown(tmp_path, made) as console:
        played(console, "viewer", story)
        assert (console.labels.said, console.audit.entries) == ([], [])


def test_a_viewer_finds_nothing_by_guessing_masked_values(tmp_path: Path) -> None:
    made = Shop([alert("a", user_id="customer-4711", entities=["card:card-4242424242"])])

    async def story(client: Client, console: Shown) -> None:
        for guess in ("card-4242424242", "customer-4711", "customer"):
            assert A not in await text(client, f"/queue?text={guess}")
        assert A in await text(client, "/queue?text=a")

    with shown(tmp_path, made) as console:
        played(console, "viewer", story)


def test_a_verdict_by_form_and_by_script_with_undo(tmp_path: Path) -> None:
    async def story(client: Client, console: Shown) -> None:
        token = await csrf(client)
        answer = await client.post(f"/cases/{A}/verdict", data={"csrf": token, "verdict": "fraud", "seen": "0"})
        assert answer.url.path == f"/cases/{A}"
        assert "Kept." in await answer.text()
        undone = await client.post(f"/cases/{A}/undo", data={"csrf": token}, headers=SCRIPT)
        assert (await undone.json())["kind"] == "withdrawn"
        late = await client.post(
            f"/cases/{A}/verdict", data={"csrf": token, "verdict": "genuine", "seen": "0"}, headers=SCRIPT
        )
        assert late.status == 409
        assert "since you opened it" in (await late.json())["words"]

    with shown(tmp_path, Shop([alert("a")])) as console:
        played(console, "analyst", story)
        assert [said.value for _, said in console.labels.said] == [1.0, 0.0]


@pytest.mark.parametrize("token", ["", "wrong", "0" * 43])
def test_a_change_without_the_pages_token_is_refused(tmp_path: Path, token: str) -> None:
    async def story(client: Client, console: Shown) -> None:
        for path in (f"/cases/{A}/verdict", f"/cases/{A}/notes", "/preferences", "/logout"):
            answer = await client.post(path, data={"csrf": token, "verdict": "fraud", "text": "x"})
            assert answer.status == 403

    with shown(tmp_path, Shop([alert("a")])) as console:
        played(console, "admin", story)
        assert console.labels.said == []


def test_a_verdict_that_is_none_and_an_alert_that_is_none_are_told(tmp_path: Path) -> None:
    async def story(client: Client, console: Shown) -> None:
        token = await csrf(client)
        answer = await client.post(f"/cases/{A}/verdict", data={"csrf": token, "verdict": "maybe"})
        assert (answer.status, "Choose fraud or genuine." in await answer.text()) == (400, True)
        gone = await client.post("/cases/none/verdict", data={"csrf": token, "verdict": "fraud"}, headers=SCRIPT)
        assert gone.status == 404
        assert "nothing at this address" in await text(client, "/cases/none", 404)
        assert "nothing at this address" in await text(client, "/no/such/page", 404)

    with shown(tmp_path, Shop([alert("a")])) as console:
        played(console, "analyst", story)


def test_what_was_typed_comes_back_beside_what_is_wrong(tmp_path: Path) -> None:
    typed = f"She called twice. {EVIL}"

    async def story(client: Client, console: Shown) -> None:
        token = await csrf(client)
        console.audit.error = BrokerUnavailable("no broker listens", where="kafka:9092")
        answer = await client.post(f"/cases/{A}/notes", data={"csrf": token, "text": typed})
        page = await answer.text()
        assert answer.status == 503
        assert html.escape(typed, quote=False) in page.replace("&#34;", '"').replace("&#39;", "'")
        assert 'aria-describedby="note-error"' in page
        assert "no broker listens" in page
        long = await client.post(f"/cases/{A}/notes", data={"csrf": token, "text": "y" * 5000})
        assert (long.status, "y" * 5000 in await long.text()) == (400, True)

    with shown(tmp_path, Shop([alert("a")])) as console:
        played(console, "analyst", story)
        assert console.notes.of("a") == []


def test_a_broker_that_is_away_says_so_beside_the_verdict(tmp_path: Path) -> None:
    async def story(client: Client, console: Shown) -> None:
        token = await csrf(client)
        console.labels.error = BrokerUnavailable("no broker listens")
        answer = await client.post(f"/cases/{A}/verdict", data={"csrf": token, "verdict": "fraud"})
        assert answer.status == 503
        assert "Nothing was changed. no broker listens" in await answer.text()

    with shown(tmp_path, Shop([alert("a")])) as console:
        played(console, "analyst", story)


def test_what_comes_in_an_event_never_becomes_markup(tmp_path: Path) -> None:
    made = alert(
        EVIL, user_id=EVIL, release=EVIL, policy_version=EVIL, country=EVIL, currency=EVIL, reasons=[EVIL],
        rules=[EVIL],
        entities=[f"card:{EVIL}", f"{EVIL}:x"], links=[EVIL], sentences={"en": EVIL, "zh": EVIL}, amount=b"\x01",
        contributions=[{"group": EVIL, "logit": 1.0}],
    )  # fmt: skip
    other = alert("b", user_id="b", entities=[f"card:{EVIL}"], currency=EVIL, amount=b"\x01")

    async def story(client: Client, console: Shown) -> None:
        token = await csrf(client)
        case = f"/cases/{made['alert_id']}"
        await client.post(f"{case}/notes", data={"csrf": token, "text": EVIL})
        for path in (
            "/queue", case, f"/cases/{other['alert_id']}", f"{case}/order", f"/rows/{made['alert_id']}",
            f"/queue?text={EVIL}&least={EVIL}&country={EVIL}", f"/cases/{EVIL.replace('/', '')}",
        ):  # fmt: skip
            page = await (await client.get(path, headers={"Accept": "text/html"})).text()
            assert "<img" not in page
            assert 'onerror=alert(1)>"' not in page
            assert "49" not in re.findall(r"\"'(\d+)", page)

    with shown(tmp_path, Shop([made, other], [label("b", 1.0)])) as console:
        played(console, "analyst", story)


def test_pages_are_small_allow_nothing_written_into_them_and_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    made = shop(quiet=60)

    async def story(client: Client, console: Shown) -> None:
        for path in ("/queue?state=all", f"/cases/{made.alerts[-1]['alert_id']}"):
            answer = await client.get(path)
            page = await answer.text()
            policy = answer.headers["Content-Security-Policy"]
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
            assert not re.search(r"<script(?![^>]* src=)|\sstyle=|\son\w+=|<style", page)
            loaded = set(re.findall(r"(?:src|href)=\"([^\"#]+)", page))
            assert not [address for address in loaded if not address.startswith("/")]
            size = len(page.encode())
            for asset in {address for address in loaded if address.startswith("/static/")}:
                got = await client.get(asset)
                assert "immutable" in got.headers["Cache-Control"]
                size += len(await got.read())
            assert size < 300_000, (path, size)

    with shown(tmp_path, made) as console:
        played(console, "analyst", story)


def test_open_pages_are_told_what_is_new_and_nothing_personal(tmp_path: Path) -> None:
    async def story(client: Client, console: Shown) -> None:
        async with client.get("/events") as stream:
            assert stream.content_type == "text/event-stream"
            assert b"retry" in await stream.content.readuntil(b"\n\n")
            token = await csrf(client)
            await client.post(f"/cases/{A}/verdict", data={"csrf": token, "verdict": "fraud"}, headers=SCRIPT)
            event = (await asyncio.wait_for(stream.content.readuntil(b"\n\n"), 5)).decode()
            name, data = re.fullmatch(r"event: (\w+)\ndata: (.*)\n\n", event).groups()  # type: ignore[union-attr]  # fails if none
            assert (name, json.loads(data)) == ("orders", {"orders": ["a"], "cases": [A]})

    with shown(tmp_path, Shop([alert("a")])) as console:
        played(console, "analyst", story)


def test_language_and_theme_are_kept_and_lead_back_only_to_our_own_pages(tmp_path: Path) -> None:
    async def story(client: Client, console: Shown) -> None:
        token = await csrf(client)
        answer = await client.post(
            "/preferences", data={"csrf": token, "lang": "zh", "theme": "dark", "back": "/queue?state=all"}
        )
        page = await answer.text()
        assert answer.url.path_qs == "/queue?state=all"
        assert '<html lang="zh-Hans" data-theme="dark">' in page
        assert "警报队列" in page
        away = await client.post(
            "/preferences",
            data={"csrf": token, "back": "https://elsewhere.example/", "lang": "xx"},
            allow_redirects=False,
        )
        assert away.headers["Location"] == "/"
        assert "Set-Cookie" not in away.headers

    with shown(tmp_path, Shop([alert("a")])) as console:
        played(console, "analyst", story)


def test_the_login_page_keeps_the_name_and_says_what_was_wrong_in_the_readers_language(tmp_path: Path) -> None:
    async def story(client: Client, console: Shown) -> None:
        answer = await client.post(
            "/login", data={"name": "anna", "password": "wrong", "next": "/queue"}, headers={"Accept-Language": "zh-CN"}
        )
        page = await answer.text()
        assert answer.status == 401
        assert 'value="anna"' in page
        assert "用户名或密码错误。" in page

    with shown(tmp_path) as console:
        played(console, "", story)


def test_a_fault_looks_like_a_page_and_tells_nothing_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(client: Client, console: Shown) -> None:
        monkeypatch.setattr(console.store, "reading", lambda: 1 / 0)
        page = await text(client, f"/cases/{A}", 500)
        assert "The fault is ours" in page
        assert "ZeroDivision" not in page

    with shown(tmp_path, Shop([alert("a")])) as console:
        played(console, "analyst", story)


def test_a_verdict_that_a_chargeback_overrules_is_said_not_to_count(tmp_path: Path) -> None:
    made = Shop([alert("a")], [label("a", 0.0), label("a", 1.0, "chargeback", 0)])

    async def story(client: Client, console: Shown) -> None:
        assert "The verdict does not count." in await text(client, f"/cases/{A}")
        console.store.apply(Batch(labels=[label("a", 1.0, revision=1)]))
        assert "The verdict does not count." not in await text(client, f"/cases/{A}")

    with shown(tmp_path, made) as console:
        played(console, "analyst", story)


def test_a_chinese_page_names_what_similar_alerts_differ_in_in_chinese(tmp_path: Path) -> None:
    made = shop(quiet=6)

    async def story(client: Client, console: Shown) -> None:
        named = set[str]()
        for one in made.alerts:
            page = await text(client, f"/cases/{one['alert_id']}", lang="zh")
            named |= {
                said for cell in re.findall(r'data-label="差异"[^>]*>([^<]*)<', page) for said in cell.split("、")
            }
        assert named
        assert named <= {said.zh for said in FIELD_WORDS.values()} | {"几乎没有"}

    with shown(tmp_path, made) as console:
        played(console, "analyst", story)


def test_a_case_says_when_notes_may_be_missing(tmp_path: Path) -> None:
    async def story(client: Client, console: Shown) -> None:
        assert "Notes may be missing." not in await text(client, f"/cases/{A}")
        console.office.notes_problem = lambda: BrokerUnavailable("no answer", where="console.notes")
        assert "Notes may be missing." in await text(client, f"/cases/{A}")

    with shown(tmp_path, Shop([alert("a")])) as console:
        played(console, "analyst", story)


def test_every_word_of_the_templates_has_a_chinese_one() -> None:
    known = words.dictionary("zh")
    missing = set()
    for name in environment().list_templates():
        if not name.startswith("ops/"):
            source = (STATIC.parent / "templates" / name).read_text()
            missing |= {found[2] for found in re.finditer(r"\bt\(\s*(['\"])(.*?)\1", source)} - known.keys()
    assert not missing


def test_translations_ask_for_no_value_that_is_not_given() -> None:
    for english, chinese in words.dictionary("zh").items():
        assert set(re.findall(r"\{\w*\}", chinese)) <= set(re.findall(r"\{\w*\}", english)), english
