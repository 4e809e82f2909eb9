"""The page of lists: who and what is blocked, allowed or watched, why and until when; adding to one, taking off one.
What is typed wrong comes back as it was typed, with the reason beside its field.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from heapq import nsmallest

from aiohttp import web

from schemas.errors import HeadraceError
from streams.access.gate import form, identity, requires
from streams.clients import require_broker
from streams.console.ops.frame import Ops, change, explained, ops, problem_of, seen
from streams.console.ops.shelf import LISTS as SHELF_LISTS
from streams.console.page import render
from streams.events import Record
from streams.policy.lists import LISTS, TYPES
from streams.policy_lists import Entry, ListWriter

PAGE = 100
TOKEN = re.compile(r"[^\s\x00-\x1f\x7f]{1,256}")
REASON_CHARS = 300
DONE = {"added": "It is on the list: orders are decided with it from now on.", "removed": "It is off the list."}


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    list: str
    type: str
    token: str
    reason: str
    until: int | None
    by: str
    at: int
    ended: bool


def rows(records: Mapping[str, Record], name: str, now_ms: int, token: str = "") -> tuple[list[Row], int]:
    """The newest PAGE of one list, or of all where `name` is empty, whose token holds `token`; and how many there are.

    ended: by the clock; event time may differ.
    """
    found = [
        (at_key, each)
        for at_key, each in records.items()
        if name in ("", each["list"]) and token in each["token"]
    ]  # fmt: skip
    newest = nsmallest(PAGE, found, key=lambda pair: (-pair[1]["at"], pair[0]))
    return [_row(at_key, each, now_ms) for at_key, each in newest], len(found)


def _row(at_key: str, each: Record, now_ms: int) -> Row:
    ended = each["until"] is not None and each["until"] <= now_ms
    return Row(
        at_key, each["list"], each["type"], each["token"], each["reason"], each["until"], each["by"], each["at"], ended
    )


@dataclass(frozen=True, slots=True)
class Typed:
    """A form as it was typed, and what is wrong with it, by field."""

    fields: Mapping[str, str]
    until: int | None = None
    errors: Mapping[str, str] = field(default_factory=dict)


def checked(fields: Mapping[str, str], now_ms: int) -> Typed:
    """fields: list, type, token, reason, until (a local date and time in UTC, or empty)."""
    kept = {name: fields.get(name, "").strip()[:1_000] for name in ("list", "type", "token", "reason", "until")}
    errors: dict[str, str] = {}
    if kept["list"] not in LISTS:
        errors["list"] = "Choose a list."
    if kept["type"] not in TYPES:
        errors["type"] = "Choose what it is."
    if not TOKEN.fullmatch(kept["token"]):
        errors["token"] = "One token, without spaces, of at most 256 characters."
    if not kept["reason"]:
        errors["reason"] = "Say why: whoever reads the list later will ask."
    elif len(kept["reason"]) > REASON_CHARS:
        errors["reason"] = f"At most {REASON_CHARS} characters."
    until = moment(kept["until"])
    if kept["until"] and until is None:
        errors["until"] = "A day and a time, such as 2026-12-31T18:00, in UTC."
    elif until is not None and until <= now_ms:
        errors["until"] = "That is over already."
    return Typed(kept, until, errors)


def moment(text: str) -> int | None:
    try:
        parsed = datetime.fromisoformat(text) if len(text) <= 40 else None
    except ValueError:
        return None
    if parsed is None or not 1970 <= parsed.year <= 9000:
        return None
    return round(parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp() * 1000)


def put_on(here: Ops, entry: Entry) -> None:
    """Blocking. Raises BrokerUnavailable, RegistryUnavailable, ProduceFailed, SettingsError."""
    require_broker(here.settings)
    ListWriter(here.settings, here.registry).put(entry)
    here.shelf.lists.know(entry.key, asdict(entry))


def take_off(here: Ops, at: str, record: Record) -> None:
    """As `put_on`."""
    require_broker(here.settings)
    ListWriter(here.settings, here.registry).take_off(record["list"], record["type"], record["token"])
    here.shelf.lists.know(at, None)


@requires("see")
@explained
async def lists(request: web.Request) -> web.Response:
    return shown(request)


def shown(request: web.Request, typed: Typed | None = None, failed: HeadraceError | None = None) -> web.Response:
    here = ops(request)
    asked = request.query.get("list", "")
    name = asked if asked in LISTS else ""
    records = here.shelf.lists.records()
    # Whoever sees tokens masked must not find out what they are by asking.
    token = request.query.get("token", "").strip()[:256] if identity(request).can("reveal") else ""
    found, count = rows(records, name, here.clock(), token)
    status = 200 if failed is None and (typed is None or not typed.errors) else 400
    return render(
        request, "ops/lists.html", page="policies", status=503 if failed is not None and failed.retriable else status,
        name=name, names=LISTS, types=TYPES, rows=found, total=count, sizes=_sizes(records), token=token,
        typed=typed or Typed({"list": name}), failed=failed, done=DONE.get(request.query.get("done", ""), ""),
        people=here.audit.pseudonyms.names(here.people()), **problem_of(request, SHELF_LISTS),
    )  # fmt: skip


def _sizes(records: Mapping[str, Record]) -> Mapping[str, int]:
    found = Counter(each["list"] for each in records.values())
    return {name: found[name] for name in LISTS}


@requires("lists")
@explained
async def add(request: web.Request) -> web.StreamResponse:
    """POST /lists/add: fields list, type, token, reason, until."""
    here, now_ms = ops(request), ops(request).clock()
    typed = checked(await form(request), now_ms)
    if typed.errors:
        return shown(request, typed)
    fields = typed.fields
    entry = Entry(
        fields["list"], fields["type"], fields["token"], fields["reason"], typed.until,
        here.audit.pseudonyms.of(identity(request).name), now_ms,
    )  # fmt: skip
    mark = here.audit.pseudonyms.of_token(fields["token"])
    detail = {"list": fields["list"], "type": fields["type"], "token": mark, "until": typed.until}
    try:
        await change(request, "list.add", f"list {fields['list']}", detail, lambda: put_on(here, entry))
    except HeadraceError as error:
        return shown(request, typed, error)
    raise seen(f"/lists?list={fields['list']}&done=added")


@requires("lists")
@explained
async def remove(request: web.Request) -> web.StreamResponse:
    """POST /lists/remove: field key."""
    here, at = ops(request), (await form(request)).get("key", "")
    record = here.shelf.lists.get(at)
    if record is None:
        raise seen("/lists?done=removed")
    mark = here.audit.pseudonyms.of_token(record["token"])
    detail = {"list": record["list"], "type": record["type"], "token": mark}
    try:
        await change(request, "list.remove", f"list {record['list']}", detail, lambda: take_off(here, at, record))
    except HeadraceError as error:
        return shown(request, None, error)
    raise seen(f"/lists?list={record['list'] if record['list'] in LISTS else ''}&done=removed")
