"""The operations pages without Kafka: books filled by hand, a learner and workers that say what they are told.
What changes something meets a broker that is away, unless a test gives it another way."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import requests
from aiohttp import web

from schemas.errors import BadRecord
from schemas.registry import MemoryRegistry
from schemas.wire import Encoder
from streams.access.gate import COOKIE
from streams.config import Settings
from streams.console import ops
from streams.console.keys import ACCOUNTS, AUDIT, CLOCK, GATE, SETTINGS
from streams.console.ops.backtests import Backtests
from streams.console.ops.frame import Ops, Threads
from streams.console.ops.keyed_book import KeyedBook
from streams.console.ops.letter_book import LetterBook
from streams.console.ops.release_book import ReleaseBook
from streams.console.ops.scraping import Scraper
from streams.console.ops.shelf import Shelf
from streams.deadletters import DONE, dead_letter
from streams.learner.control import Command, Status
from streams.pointers import Announcement, Pointer
from streams.privacy.sealed_letters import LetterSeals
from streams.raw import RawRecord
from streams.release_moves import ReleaseMoves
from tests.console_app import Shown, serving, shown

ROLES = ("viewer", "analyst", "operator", "admin")
LARGEST = 300_000
EVIL = "<script>alert('x')</script>"
MINUTE = 60_000


@dataclass
class Learner:
    """models.learning."""

    said: dict[str, Status] = field(default_factory=dict)
    asked: dict[str, Command] = field(default_factory=dict)

    def statuses(self) -> dict[str, Status]:
        return dict(self.said)

    def command(self, task: str) -> Command:
        return self.asked.get(task, Command(task))

    def wait_current(self, timeout: float) -> None:
        """It is."""


class StillShelf:
    """What the pages read, as a test has put it there. problem: as if the broker were away."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.registry = MemoryRegistry()
        self.releases = ReleaseBook(self.registry)
        self.letters = LetterBook(self.registry, LetterSeals(settings or Settings()))
        self.policies, self.lists = KeyedBook(self.registry, "policy"), KeyedBook(self.registry, "list_entry")
        self.learning = Learner()
        self.trouble, self.read = "", True
        self._letters = Encoder(self.registry, "deadletters", "dead_letter")
        self._releases = Encoder(self.registry, "models.releases", "model_release")

    def problem(self, what: str) -> str:
        return self.trouble

    def ready(self, what: str) -> bool:
        return self.read

    def stop(self) -> None:
        """Nothing runs."""

    def announce(self, said: Announcement) -> None:
        self.releases.apply(said.key, self._releases(said.record()))

    def move(self, *pointers: Pointer) -> None:
        for each in pointers:
            self.releases.apply(f"{each.task}/live".encode(), self._releases(each.record()))

    def letter(self, offset: int, error: BadRecord, now_ms: int) -> None:
        record = RawRecord("events.orders", 1, offset, now_ms, b"user-17", b"\x00\x01", ())
        self.letters.apply(0, offset, self._letters(dead_letter(record, error, now_ms)), ())

    def mark(self, *offsets: int) -> None:
        self.letters.apply(0, 10_000, None, [(DONE, ",".join(map(str, offsets)).encode())])


def check(name: str, *, passed: bool, said: str = "", value: float = 0.5, bound: float = 1.0) -> dict[str, Any]:
    return {"name": name, "value": value, "bound": bound, "passed": passed, "said": said or f"{name} is {value}."}


def report(*checks: dict[str, Any], **figures: float) -> str:
    verdict = "pass" if all(each["passed"] for each in checks) else "refuse"
    missing = {"old pr_auc": "no old event has a label"}
    return json.dumps({"verdict": verdict, "checks": checks, "figures": figures, "not_judged": missing})


def filled(shelf: StillShelf, now_ms: int) -> None:
    """A shop in the middle of its day: something of everything, and script wherever a stranger could have put it."""
    old, new, bad = "20260131T120000-aaaaaaaa", "20260131T130000-bbbbbbbb", "20260131T140000-cccccccc"
    gains = {"pr_auc_difference": 0.04, "pr_auc_low": 0.01, "pr_auc_high": 0.07}
    manifest = json.dumps({"task": "fraud", "version": new, "config": {"width": 64}, "metrics": {"pr_auc": 0.6}})
    shelf.move(
        Pointer("fraud", old, None, 1, False, now_ms - 60 * MINUTE),
        Pointer("fraud", new, old, 2, False, now_ms - 30 * MINUTE),
    )
    good, half = check("pr_auc", passed=True), now_ms - 30 * MINUTE
    failed = check("calibration", passed=False, said=f"It predicts too much. {EVIL}", value=1.9, bound=1.25)
    shelf.announce(Announcement("fraud", new, "live", manifest, report(good, **gains), half))
    shelf.announce(Announcement("fraud", bad, "refused", manifest, report(good, failed, **gains), now_ms - 9 * MINUTE))
    parts = {"train": 40.0, "judge": 5.5}
    last = {"result": "refused", "made": bad, "why": EVIL, "seconds": parts, "label_to_live_s": 58.0}
    detail = {
        "champion": new, "new": 1_234, "positives": 56, "held": 3, "attempts": 1, "watched": 900,
        "why_not": f"1,234 of 5,000 examples {EVIL}", "last": last,
    }  # fmt: skip
    shelf.learning.said["fraud"] = Status("fraud", "watching", detail, now_ms - MINUTE)
    shelf.letter(1, BadRecord("unknown_schema", f"schema id 9 {EVIL}", expected=EVIL, todo=EVIL), now_ms - 5 * MINUTE)
    shelf.letter(2, BadRecord("truncated", "the message ends early"), now_ms - 4 * MINUTE)
    shelf.letter(3, BadRecord("truncated", "the message ends early"), now_ms - 3 * MINUTE)
    shelf.mark(3)
    base = {"task": "fraud", "digest": "", "applied_at": now_ms - 90 * MINUTE, "by": "0" * 16, "note": EVIL}
    for key, text in (("live", 'name = "spring"\n'), ("spring@1", 'name = "spring"\n'), ("winter@2", f"# {EVIL}\n")):
        standing, version = ("live", "spring@1") if key == "live" else ("kept", key)
        record = {**base, "standing": standing, "version": version, "document": text}
        shelf.policies.know(f"fraud/{key}", record)
    entry = {"type": "card", "reason": EVIL, "by": "0" * 16, "at": now_ms - MINUTE}
    for name, token, until in (("block", "card-123456789", None), ("watch", "user-987654321", now_ms - 1)):
        shelf.lists.know(f"{name}/card:{token}", {**entry, "list": name, "token": token, "until": until})


VOID = frozenset(("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"))


class Page(HTMLParser):
    """What a page holds: its text, tags, forms, and what a strict policy would refuse."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.text, self.tags = html, "", list[tuple[str, dict[str, str]]]()
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data

    def areas(self, name: str) -> list[str]:
        """What the text areas of that name hold, as a browser would send it."""
        found = re.findall(rf'<textarea[^>]*name="{name}"[^>]*>(.*?)</textarea>', self.html, re.S)
        return [unescape(text).removeprefix("\n").replace("\n", "\r\n") for text in found]

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]

    def forms(self) -> list[tuple[str, str]]:
        """Method and action of those that lie in the page's content."""
        return [(form.get("method", "get"), form.get("action", "")) for form in self.all("form")]


class Visitor:
    """Somebody of a role, with a session of theirs."""

    def __init__(self, where: str, cookie: str, csrf: str) -> None:
        self.where, self.cookie, self.csrf = where, cookie, csrf
        self.session = requests.Session()
        self.session.cookies.set(COOKIE, cookie)

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.session.get(self.where + path, timeout=30, headers=headers, allow_redirects=False)

    def page(self, path: str) -> Page:
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:2_000])
        return Page(answer.text)

    def post(self, path: str, **fields: Any) -> requests.Response:
        return self.send(path, {"csrf": self.csrf, **fields})

    def send(self, path: str, fields: Mapping[str, Any]) -> requests.Response:
        """As another site would: without what only our own pages know."""
        return self.session.post(self.where + path, data=fields, timeout=60, allow_redirects=False)


@dataclass
class House:
    """A console that runs, and what is behind it."""

    shown: Shown
    shelf: StillShelf
    scraper: Scraper
    where: str
    here: Ops

    def visitor(self, role: str) -> Visitor:
        users, now_ms = self.shown.accounts.users, self.shown.now
        user = users.find(role) or users.add(role, role, None, by="test", now_ms=now_ms)
        opened = self.shown.accounts.sessions.open(user, now_ms)
        assert opened is not None
        return Visitor(self.where, opened.cookie, opened.identity.csrf)

    @property
    def audited(self) -> list[tuple[str, str]]:
        return [(entry.action, entry.subject) for entry in self.shown.audit.entries]

    def detail(self, place: int = -1) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self.shown.audit.entries[place].detail)
        return found


@contextmanager
def house(folder: Path, *, workers: tuple[str, ...] = (), learners: tuple[str, ...] = ()) -> Iterator[House]:
    shelf, made = StillShelf(), list[Ops]()

    def opening(app: web.Application) -> Ops:
        settings, clock = app[SETTINGS], app[CLOCK]
        scraper = Scraper(workers, learners)
        moves = ReleaseMoves(settings, shelf.registry, clock)
        here = Ops(
            settings, shelf.registry, app[AUDIT], scraper, cast(Shelf, shelf), moves,
            Backtests(settings, shelf.registry, clock), Threads(), clock, app[ACCOUNTS].names, app[GATE].still,
        )  # fmt: skip
        made.append(here)
        return here

    with shown(folder) as door:
        app = door.app()
        ops.routes(app, opening)
        with serving(app) as where:
            yield House(door, shelf, made[0].scraper, where, made[0])


def inner(html: str) -> str:
    """The page's main part."""
    found = re.search(r'<main class="page".*?</main>', html, re.S)
    assert found is not None
    return found.group()
