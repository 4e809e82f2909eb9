"""A Chromium for tests of pages: Debian's, or the one that HEADRACE_CHROMIUM names; it reaches our pages alone."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--font-render-hinting=none",
)  # fmt: skip


def chromium() -> str:
    """Its path; empty where there is none."""
    return os.environ.get("HEADRACE_CHROMIUM") or shutil.which("chromium") or ""


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        try:
            yield made
        finally:
            made.close()


def log_in(context: BrowserContext, base: str, code: str) -> Page:
    """By a link that works once."""
    page = context.new_page()
    page.goto(f"{base}/login/once?code={code}")
    page.get_by_role("button").click()
    page.wait_for_url(f"{base}/queue")
    return page


def violations(page: Page) -> list[str]:
    """What axe finds wrong on the page, whatever its weight; rule and place."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']} ({one['impact']}): {node['html'][:120]}" for one in found for node in one["nodes"]]
