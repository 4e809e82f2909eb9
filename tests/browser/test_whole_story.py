"""The whole story in a real browser on a real broker: an alert comes, is understood and judged; a release goes back."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from schemas.confluent import ConfluentRegistry
from schemas.wire import Encoder
from streams.config import Settings
from streams.console.app import now_ms
from streams.console.service import Console
from streams.local import LocalRegistry
from streams.offsets import bounds
from streams.pointers import Pointers, live_pointers
from tests import shop
from tests.browser.driving import browser, chromium, log_in, violations
from tests.conftest import FreshSettings
from tests.console_app import serving
from tests.console_shop import shop as sample_shop

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not chromium(), reason="no Chromium: apt-get install chromium, or set HEADRACE_CHROMIUM"),
]


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    store, _ = shop.releases()
    return fresh_settings(release_store=store, console={"port": 0, "workers": "127.0.0.1:9", "learners": "127.0.0.1:9"})


@pytest.fixture
def schemas(settings: Settings) -> Iterator[ConfluentRegistry]:
    with closing(ConfluentRegistry(settings.registry())) as client:
        yield client


@pytest.fixture
def console(settings: Settings, schemas: ConfluentRegistry) -> Iterator[Console]:
    with closing(Console(settings, schemas)) as made:
        made.feed.wait_current(30)
        yield made


@pytest.fixture
def base(console: Console) -> Iterator[str]:
    with serving(console.app) as where:
        yield where


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as made:
        yield made


def entered(context: BrowserContext, console: Console, base: str, role: str) -> Page:
    return log_in(context, base, console.accounts.login_code(role, by="test", now_ms=now_ms()))


def test_from_an_alert_to_its_label_and_a_release_back(
    settings: Settings, schemas: ConfluentRegistry, console: Console, base: str, chrome: Browser
) -> None:
    store, versions = shop.releases()
    second = shop.copy_release(store, "fraud", versions["fraud"], "story-second")
    pointers = Pointers(settings, schemas)
    pointers.move("fraud", versions["fraud"], now_ms=now_ms() - 1)
    pointers.move("fraud", second, now_ms=now_ms())

    analyst = entered(chrome.new_context(), console, base, "analyst")
    expect(analyst.locator("#rows")).to_contain_text("No alerts yet")
    expect(analyst.locator("#live")).to_have_text("live")
    order_id = _raised(settings, schemas)
    expect(analyst.locator("#news")).to_contain_text("1 new alert")
    analyst.locator("#news").get_by_role("button").click()
    expect(analyst.locator("#rows")).to_contain_text(order_id)
    analyst.keyboard.press("Enter")
    expect(analyst.get_by_role("heading", level=1)).to_have_text(f"Order {order_id}")
    expect(analyst.locator(".lead")).to_contain_text("mostly because the amount is")
    expect(analyst.locator(".bars li").first).to_contain_text("amount")
    expect(analyst.locator(".order-facts")).to_contain_text("894.60")
    analyst.keyboard.press("f")
    expect(analyst.locator(".verdict-now")).to_contain_text("Fraud")
    (label,) = shop.read(settings, settings.topics.labels, "label")
    assert (label["target_id"], label["value"], label["source"]) == (order_id, 1.0, "analyst")

    operator = entered(chrome.new_context(), console, base, "operator")
    operator.goto(f"{base}/releases?task=fraud")
    operator.get_by_role("link", name="Roll back").click()
    operator.get_by_label("Why").fill("It is worse on live labels.")
    operator.get_by_role("button", name="Roll back").click()
    operator.wait_for_url("**/releases?**done=rollback**")
    assert live_pointers(settings)["fraud"].version == versions["fraud"]

    viewer = entered(chrome.new_context(), console, base, "viewer")
    viewer.goto(f"{base}/releases/fraud/rollback")
    expect(viewer.locator("main")).to_contain_text("needs the role")
    assert violations(viewer) == []
    assert [entry["action"] for entry in shop.read(settings, settings.topics.audit, "audit_entry")][-2:] == [
        "verdict", "release.rollback",
    ]  # fmt: skip


def _raised(settings: Settings, schemas: ConfluentRegistry) -> str:
    """One of the sample shop's, and its order, on their topics; the order's id."""
    made = sample_shop()
    record = next(one for one in made.alerts if one["user_id"] == "u15218")
    order = made.orders[record["order_offset"]]
    encode = Encoder(schemas, settings.topics.orders, "order")
    shop.send(settings, settings.topics.orders, order["user_id"].encode(), encode(order))
    here = next(n for n in range(settings.partitions) if _end(settings, n))
    told = record | {"order_partition": here, "order_offset": 0, "raised_at": now_ms()}
    encode = Encoder(schemas, settings.topics.alerts, "fraud_alert")
    shop.send(settings, settings.topics.alerts, record["order_id"].encode(), encode(told))
    return str(record["order_id"])


def _end(settings: Settings, partition: int) -> int:
    place = settings.topics.orders, partition
    return bounds(settings, [place])[place][1]
