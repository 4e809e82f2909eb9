"""The page of the audit log: who changed what, the newest first, by person or action; and whether the chain holds.
The log knows people by pseudonym; here, where the key and the accounts are, names are shown.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from schemas.registry import Registry
from streams.access.gate import requires
from streams.audit.chain import Entry, Unreadable, Verdict, verify
from streams.audit.log import newest, read, remember_head, remembered_head
from streams.audit.pseudonyms import shell_users
from streams.clients import require_broker
from streams.config import Settings
from streams.console.ops.frame import explained, ops
from streams.console.ops.frame import read as in_time
from streams.console.page import render

PAGE = 100
CHUNK, MOST = 500, 10_000  # entries looked through for a page of a filter
VERIFY_S = 60.0


@dataclass(frozen=True, slots=True)
class Filter:
    """Beginning of an action, and a name or pseudonym; empty: all. before: an offset; 0: from the newest."""

    action: str = ""
    who: str = ""
    before: int = 0

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Filter":
        before = query.get("before", "")
        return cls(
            query.get("action", "").strip()[:100], query.get("who", "").strip()[:100],
            int(before) if before.isdecimal() and len(before) < 16 else 0,
        )  # fmt: skip

    def takes(self, entry: Entry, names: Mapping[str, str]) -> bool:
        person = names.get(entry.who, entry.who)
        return entry.action.startswith(self.action) and self.who in ("", person, entry.who)


@dataclass(frozen=True, slots=True)
class Row:
    """An entry for people. trouble: why it is no entry."""

    sequence: int
    at: int
    who: str
    action: str
    subject: str
    detail: Sequence[tuple[str, str]] = field(default_factory=tuple)
    hash: str = ""
    trouble: str = ""


def row(entry: Entry | Unreadable, names: Mapping[str, str]) -> Row:
    if isinstance(entry, Unreadable):
        return Row(0, 0, "", "unreadable", f"offset {entry.offset}", trouble=entry.why)
    return Row(
        entry.sequence, entry.at, names.get(entry.who, entry.who), entry.action, named(entry.subject, names),
        details(entry.detail), entry.hash,
    )  # fmt: skip


def named(subject: str, names: Mapping[str, str]) -> str:
    """A user who is the subject of a change is there by pseudonym, too."""
    kind, _, found = subject.partition(" ")
    return f"{kind} {names[found]}" if found in names else subject


def details(text: str) -> tuple[tuple[str, str], ...]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return (("detail", text[:300]),)
    if not isinstance(found, dict):
        return (("detail", str(found)[:300]),)
    return tuple((str(name), _text(value)) for name, value in found.items())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)[:300]


def page_of(
    settings: Settings, registry: Registry, chosen: Filter, names: Mapping[str, str]
) -> tuple[list[Entry | Unreadable], int | None]:
    """At most PAGE that the filter takes, the newest first, and the offset from which the next page goes on back."""
    found: list[Entry | Unreadable] = []
    before, looked = chosen.before or None, 0
    while looked < MOST:
        chunk = newest(settings, registry, CHUNK, before)
        if not chunk:
            return found, None
        for entry in reversed(chunk):
            if isinstance(entry, Unreadable) or chosen.takes(entry, names):
                found.append(entry)
                if len(found) == PAGE:
                    return found, entry.offset
        looked, before = looked + len(chunk), chunk[0].offset
        if len(chunk) < CHUNK:
            return found, None
    return found, before


@requires("audit")
@explained
async def audit(request: web.Request) -> web.Response:
    here, chosen = ops(request), Filter.of(request.query)
    names = here.audit.pseudonyms.names([*here.people(), *shell_users()])

    def fetch() -> tuple[list[Entry | Unreadable], int | None]:
        require_broker(here.settings)
        return page_of(here.settings, here.registry, chosen, names)

    found, before = await in_time(request, fetch, here.settings.topics.audit)
    return render(
        request, "ops/audit.html", page="audit", rows=[row(entry, names) for entry in found], chosen=chosen,
        before=before, people=sorted(here.people()), verdict=None,
    )  # fmt: skip


@requires("audit")
@explained
async def check(request: web.Request) -> web.Response:
    """POST /audit/verify: reads the whole log, as `headrace audit verify` does."""
    here = ops(request)

    def verified() -> Verdict:
        require_broker(here.settings)
        verdict = verify(read(here.settings, here.registry), remembered_head(here.settings))
        if verdict.broken is None and verdict.head is not None:
            remember_head(here.settings, verdict.head)
        return verdict

    verdict = await here.threads.do(verified, VERIFY_S, here.settings.topics.audit)
    return render(
        request, "ops/audit.html", page="audit", rows=None, chosen=Filter(), before=None, people=(), verdict=verdict
    )  # fmt: skip
