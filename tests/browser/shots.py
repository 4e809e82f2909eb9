"""Pictures of the console's pages, light and dark, wide and on a phone: `python -m tests.browser.shots [FOLDER]`.
They are of the sample shop, and are to be looked at: the newest are in docs/console."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.driving import browser, log_in
from tests.console_app import Shown, serving, shown
from tests.console_shop import Shop, shop

FOLDER = Path(__file__).parents[2] / "docs" / "console"
SIZES = {"wide": (1440, 900), "phone": (390, 844)}
THEMES = ("light", "dark")
IN_VIEW = ("keys", "verdict")  # what is fixed to the window is in a picture of the window
UNFIXED = "[data-verdict] { position: static !important; box-shadow: none !important; border-top: 0 !important }"
"""In a picture of the whole page, what is fixed to the window would lie over its middle. The console's own policy would
refuse this style, too: for pictures it is passed by."""

Visit = Callable[[Page, str, Shop], None]


def _queue(page: Page, base: str, made: Shop) -> None:
    page.goto(f"{base}/queue")
    page.keyboard.press("j")


def _case_of(user: str) -> Visit:
    def visit(page: Page, base: str, made: Shop) -> None:
        known = next(one for one in made.alerts if one["user_id"] == user)
        page.goto(f"{base}/cases/{known['alert_id']}")
        page.wait_for_selector("#order-card [data-fragment] :is(.facts, .empty)")

    return visit


def _each(page: Page, base: str, made: Shop) -> None:
    page.goto(f"{base}/queue?each=1&state=all&text=u1831")


def _judged(page: Page, base: str, made: Shop) -> None:
    """The whole case, by one key."""
    _case_of("u18314")(page, base, made)
    page.keyboard.press("F")
    page.wait_for_selector(".toast")
    page.wait_for_selector("#order-card [data-fragment] :is(.facts, .empty)")


def _missing(page: Page, base: str, made: Shop) -> None:
    page.goto(f"{base}/cases/none")


def _keys(page: Page, base: str, made: Shop) -> None:
    _queue(page, base, made)
    page.keyboard.press("?")


def _news(page: Page, base: str, made: Shop) -> None:
    _queue(page, base, made)
    page.keyboard.press("f")
    page.wait_for_selector(".toast")


def _nothing(page: Page, base: str, made: Shop) -> None:
    page.goto(f"{base}/queue?text=nobody&least=ten")


VISITS: dict[str, Visit] = {
    "queue": _queue, "case": _case_of("u15218"), "linked": _case_of("u18314"), "answered": _case_of("u16900"),
    "old": _case_of("u12001"), "keys": _keys, "no-match": _nothing, "missing": _missing,
    "each": _each, "judged": _judged, "verdict": _news,
}  # fmt: skip
ROLES = {"viewer": ("viewer", "en"), "chinese": ("analyst", "zh-CN")}
"""Further pictures of the case: as whom, and in which language."""


def take(folder: Path, names: list[str] | None = None) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    wanted, taken = names or ["login", *VISITS, *ROLES, "empty"], list[Path]()
    for size, theme in product(SIZES, THEMES):
        with ExitStack() as stack:
            home, made = stack.enter_context(TemporaryDirectory()), shop()
            console = stack.enter_context(shown(Path(home), made))
            base, chrome = stack.enter_context(serving(console.app())), stack.enter_context(browser())
            taken += Round(chrome, console, base, made, folder, size, theme).take(wanted)
    return taken


@dataclass
class Round:
    """All pictures of one size and theme."""

    chrome: Browser
    console: Shown
    base: str
    made: Shop
    folder: Path
    size: str
    theme: Any

    def take(self, names: list[str]) -> list[Path]:
        taken = []
        if "login" in names:
            door = self._context().new_page()
            door.goto(f"{self.base}/login")
            taken.append(self._shot(door, "login"))
            door.get_by_label("Name").fill("mara")
            door.get_by_label("Password").fill("not this one")
            door.get_by_role("button").first.click()
            taken.append(self._shot(door, "login-wrong"))
        if "empty" in names:
            taken.append(self._empty())
        page = log_in(self._context(), self.base, self.console.code("analyst", "mara"))
        for name in names:
            if name in ROLES:
                role, lang = ROLES[name]
                other = log_in(self._context(lang), self.base, self.console.code(role, f"{role}.{name}"))
                VISITS["linked"](other, self.base, self.made)
                taken.append(self._shot(other, name))
            elif name in VISITS:
                VISITS[name](page, self.base, self.made)
                taken.append(self._shot(page, name))
        return taken

    def _empty(self) -> Path:
        """The first day: nothing was raised yet."""
        with TemporaryDirectory() as home, shown(Path(home), four_eyes=True) as console, serving(console.app()) as base:
            return self._shot(log_in(self._context(), base, console.code("analyst", "mara")), "empty")

    def _context(self, lang: str = "en") -> BrowserContext:
        width, height = SIZES[self.size]
        return self.chrome.new_context(
            viewport={"width": width, "height": height}, color_scheme=self.theme, locale=lang, bypass_csp=True
        )

    def _shot(self, page: Page, name: str) -> Path:
        path = self.folder / f"{name}-{self.size}-{self.theme}.png"
        page.wait_for_timeout(250)
        page.screenshot(path=path, full_page=name not in IN_VIEW, style="" if name in IN_VIEW else UNFIXED)
        return reduced(path)


def reduced(path: Path) -> Path:
    """256 colours are enough for pages, and a third of the bytes."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


if __name__ == "__main__":
    for path in take(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER, sys.argv[2:]):
        print(path)
