"""The console in a real browser: an analyst's work by keys alone, live news, and what axe and a narrow screen say."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from schemas.errors import BrokerUnavailable
from streams.access.gate import COOKIE
from streams.console.store import Batch
from tests.browser import ops_shots
from tests.browser.driving import browser, chromium, log_in, violations
from tests.console_app import Shown, serving, shown
from tests.console_ops import filled, house
from tests.console_shop import alert, alert_id, shop

BAD = "20260131T140000-cccccccc"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not chromium(), reason="no Chromium: apt-get install chromium, or set HEADRACE_CHROMIUM"),
]


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as made:
        yield made


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Shown]:
    with shown(tmp_path, shop(quiet=12)) as made:
        yield made


@pytest.fixture
def base(console: Shown) -> Iterator[str]:
    with serving(console.app()) as address:
        yield address


@pytest.fixture
def page(chrome: Browser, console: Shown, base: str) -> Iterator[Page]:
    """Logged in as an analyst; what the browser complains about fails the test."""
    context = chrome.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    made = log_in(context, base, console.code("analyst", "mara"))
    made.on("console", heard)
    made.on("pageerror", lambda error: complaints.append(str(error)))
    yield made
    context.close()
    assert complaints == []


def told(console: Shown, record: dict[str, Any]) -> None:
    """As the feed does."""
    applied = console.store.apply(Batch([record]))
    console.hub.say("alerts", {"alerts": applied.new})


def test_a_day_by_keys_alone(page: Page, console: Shown) -> None:
    page.keyboard.press("j")
    chosen = page.locator("tr[aria-current]")
    first = chosen.get_attribute("data-order")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(chosen).to_have_attribute("data-order", str(first))
    page.keyboard.press("f")
    expect(page.locator("#toasts")).to_contain_text(f"Order {first}: fraud. The label is published.")
    expect(page.locator(f"tr[data-order='{first}'] [data-state]")).to_have_text("Fraud")
    assert [(order, said.value) for order, said in console.labels.said] == [(first, 1.0)]
    expect(chosen).not_to_have_attribute("data-order", str(first))
    page.keyboard.press("u")
    expect(page.locator(f"tr[data-order='{first}'] [data-state]")).to_have_text("Open")
    assert [said.revision for _, said in console.labels.said] == [0, 1]
    page.keyboard.press("Enter")
    page.wait_for_url("**/cases/**")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Order")
    page.keyboard.press("g")
    expect(page.locator(".verdict-now")).to_contain_text("Genuine")
    page.keyboard.press("q")
    page.wait_for_url("**/queue**")
    page.keyboard.press("/")
    page.keyboard.type("605")
    page.keyboard.press("Enter")
    page.wait_for_url("**text=605**")


def test_a_case_is_judged_whole_by_one_key_and_taken_back_in_the_queue_and_on_its_page(
    page: Page, console: Shown
) -> None:
    chosen, toasts = page.locator("tr[aria-current]"), page.locator("#toasts")
    for _ in range(9):
        page.keyboard.press("j")
        if chosen.get_attribute("data-case"):
            break
    row = page.locator(f"tr[data-alert='{chosen.get_attribute('data-alert')}']")
    expect(row.locator("[data-state]")).to_have_text("4 open 2 fraud")
    page.keyboard.press("f")
    expect(toasts).to_contain_text("4 orders of the case: fraud. The labels are published.")
    expect(row.locator("[data-state]")).to_have_text("6 fraud")
    assert len({order for order, _ in console.labels.said}) == len(console.labels.said) == 4
    page.keyboard.press("u")
    expect(toasts).to_contain_text("Taken back on 4 orders of the case.")
    expect(row.locator("[data-state]")).to_have_text("4 open 2 fraud")
    page.keyboard.press("Enter")
    page.wait_for_url("**/cases/**")
    here = page.locator("#the-case")
    expect(here.locator("tbody tr")).to_have_count(6)
    page.keyboard.press("G")
    expect(here).to_contain_text("4 genuine")
    expect(page.locator(".verdict-now")).to_contain_text("Genuine")
    expect(here.locator("[data-whole]")).to_have_count(0)
    page.keyboard.press("U")
    expect(here).to_contain_text("4 open")
    assert len(console.labels.said) == 16


def test_who_judges_a_case_that_has_grown_is_told_beside_its_buttons(page: Page, console: Shown) -> None:
    page.goto(f"{page.url.split('/queue')[0]}/cases/{_of(console, 'u18314')}")
    console.store.apply(Batch([alert("late", user_id="new", entities=["device:device-7f3e9a41c2"])]))
    page.keyboard.press("F")
    expect(page.locator("#case-error")).to_contain_text("since you opened it")
    assert console.labels.said == []
    page.reload()
    expect(page.locator("#the-case tbody tr")).to_have_count(7)


def test_a_new_alert_is_announced_and_moves_nothing_that_is_being_read(page: Page, console: Shown) -> None:
    expect(page.locator("#live")).to_have_text("live")
    page.keyboard.press("j")
    before = page.locator("tr[data-alert]").evaluate_all("rows => rows.map(row => row.dataset.order)")
    told(console, alert("brand-new", expected_loss=99_999.0))
    news = page.locator("#news")
    expect(news).to_contain_text("1 new alert")
    assert news.get_attribute("aria-live") == "polite"
    assert page.locator("tr[data-alert]").evaluate_all("rows => rows.map(row => row.dataset.order)") == before
    news.get_by_role("button").click()
    expect(page.locator("tr[data-order='brand-new']")).to_be_visible()
    expect(news).to_be_hidden()


def test_a_verdict_of_another_analyst_shows_in_place(page: Page, console: Shown) -> None:
    row = page.locator("tr[data-alert]").first
    order, name = row.get_attribute("data-order"), row.get_attribute("data-alert")
    expect(page.locator("#live")).to_have_text("live")
    console.desk.verdict(str(name), 0.0, "other", console.now)
    console.hub.say("orders", {"orders": [order]})
    expect(page.locator(f"tr[data-order='{order}'] [data-state]")).to_have_text("Genuine")


def test_a_verdict_to_an_older_state_is_told_and_shown(page: Page, console: Shown) -> None:
    page.goto(f"{page.url.split('/queue')[0]}/cases/{_open(console)}")
    console.desk.verdict(_open(console), 0.0, "other", console.now)
    page.keyboard.press("f")
    expect(page.locator("#verdict-error")).to_contain_text("since you opened it")
    assert len(console.labels.said) == 1


def test_what_was_typed_stays_when_it_cannot_be_kept(page: Page, console: Shown) -> None:
    page.goto(f"{page.url.split('/queue')[0]}/cases/{_open(console)}")
    page.keyboard.press("n")
    page.keyboard.type("Called her. f and g are only letters here.")
    console.audit.error = BrokerUnavailable("no broker listens")
    page.get_by_role("button", name="Keep the note").click()
    expect(page.locator("#note-error")).to_contain_text("no broker listens")
    expect(page.get_by_label("Add a note")).to_have_value("Called her. f and g are only letters here.")
    page.reload()
    expect(page.get_by_label("Add a note")).to_have_value("Called her. f and g are only letters here.")
    console.audit.error = None
    page.get_by_role("button", name="Keep the note").click()
    expect(page.locator(".notes")).to_contain_text("only letters here")
    assert console.labels.said == []


def test_the_page_works_without_scripts(chrome: Browser, console: Shown, base: str) -> None:
    context = chrome.new_context(java_script_enabled=False)
    page = log_in(context, base, console.code("analyst", "mara"))
    page.locator("tr[data-alert] a").first.click()
    page.get_by_role("button", name="Fraud").click()
    expect(page.locator(".verdict-now")).to_contain_text("Fraud")
    page.get_by_role("link", name="Read the order").click()
    expect(page.locator("body")).to_contain_text("Total")
    assert len(console.labels.said) == 1
    context.close()


def test_a_viewer_looks_and_is_refused(chrome: Browser, console: Shown, base: str) -> None:
    context = chrome.new_context()
    page = log_in(context, base, console.code("viewer", "vera"))
    page.keyboard.press("j")
    page.keyboard.press("f")
    expect(page.locator("#toasts .toast")).to_contain_text("yours to do")
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_contain_text("Your role may look, not judge.")
    expect(page.locator("[data-verdict]")).to_have_count(0)
    assert console.labels.said == []
    context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 360])
def test_axe_finds_nothing_and_nothing_is_cut_off(
    chrome: Browser, console: Shown, base: str, theme: Any, width: int
) -> None:
    context = chrome.new_context(viewport={"width": width, "height": 800}, color_scheme=theme)
    door = context.new_page()
    door.goto(f"{base}/login")
    assert violations(door) == []
    page = log_in(context, base, console.code("analyst", "mara"))
    cases = f"/cases/{_open(console)}", f"/cases/{_of(console, 'u18314')}"
    for path in ("/queue", "/queue?text=nobody", "/queue?state=all", "/queue?each=1&state=all", *cases, "/cases/none"):
        page.goto(base + path)
        page.wait_for_timeout(200)  # what comes later has come
        assert violations(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    context.close()


OPERATIONS = (
    "/live", "/quality?task=fraud", "/learn", "/releases?task=fraud", "/releases/fraud/rollback", "/letters",
    "/policies", "/policies/new", "/lists", "/audit",
)  # fmt: skip
OF_ONE = (
    f"/releases/fraud/at/{BAD}", f"/releases/fraud/promote?version={BAD}", "/releases/fraud/pin",
    "/letters/replay?all=1&code=truncated", "/policies/at/spring@1?against=winter@2", "/policies/new?from=spring@1",
)  # fmt: skip
"""Pages of one thing, which there is in a shop at work only."""


@pytest.mark.parametrize("full", [True, False], ids=["a shop at work", "nothing there yet"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_on_the_operations_pages_and_nothing_is_cut_off(
    chrome: Browser, tmp_path: Path, theme: Any, full: bool
) -> None:
    """Wide and on a phone, with figures and without; the dark ones in Chinese."""
    with house(tmp_path, workers=(), learners=()) as made:
        made.here.scraper.round = ops_shots.nothing  # type: ignore[method-assign, assignment]  # what is put in is shown
        if full:
            filled(made.shelf, made.shown.now)
            made.shown.now = int(time.time() * 1000)
            ops_shots.half_an_hour(made)
        cookie = made.visitor("admin").cookie
        for width in (1440, 360):
            context = chrome.new_context(viewport={"width": width, "height": 800}, color_scheme=theme)
            lang = {"light": "en", "dark": "zh"}[theme]
            cookies = {COOKIE: cookie, "lang": lang}
            context.add_cookies([{"name": name, "value": value, "url": made.where} for name, value in cookies.items()])
            page = context.new_page()
            for path in OPERATIONS + (OF_ONE if full else ()):
                page.goto(made.where + path)
                page.wait_for_timeout(200)
                assert violations(page) == [], path
                assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            context.close()


def test_what_was_typed_outlives_the_session_that_it_was_typed_in(chrome: Browser, tmp_path: Path) -> None:
    with house(tmp_path, workers=(), learners=()) as made:
        filled(made.shelf, made.shown.now)
        context = chrome.new_context()
        first = made.visitor("operator")
        context.add_cookies([{"name": COOKIE, "value": first.cookie, "url": made.where}])
        page = context.new_page()
        page.goto(f"{made.where}/policies/new?from=winter@2")
        page.get_by_label("Document").fill('name = "summer"\n')
        made.shown.accounts.sessions.end(first.cookie)
        page.get_by_role("button", name="Check").click()
        page.wait_for_url(re.compile("/login.next=/policies/new"))
        context.add_cookies([{"name": COOKIE, "value": made.visitor("operator").cookie, "url": made.where}])
        page.goto(f"{made.where}/policies/new?from=winter@2")
        expect(page.get_by_label("Document")).to_have_value('name = "summer"\n')
        expect(page.get_by_text("What you had typed is here again.")).to_be_visible()
        page.get_by_role("button", name="Check").click()
        expect(page.get_by_text("It can be used")).to_be_visible()
        page.goto(f"{made.where}/policies/new?from=winter@2")
        page.get_by_role("button", name="Throw it away").click()
        expect(page.get_by_label("Document")).not_to_have_value('name = "summer"\n')
        page.reload()
        expect(page.get_by_text("What you had typed is here again.")).to_be_hidden()
        context.close()


def _open(console: Shown) -> str:
    return _of(console, "u15218")


def _of(console: Shown, user: str) -> str:
    with console.store.reading() as connection:
        row = connection.execute("SELECT order_id FROM alerts WHERE user_id = ?", (user,)).fetchone()
    assert re.fullmatch(r"\d+", row[0])
    return alert_id(row[0])
