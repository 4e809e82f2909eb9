"""The policy pages: what decides now and what is shadowed, the history, how two differ, and a new one step by step.
A document is checked whole, shown as a difference to what is live, backtested if wanted, and only then applied.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from schemas.errors import HeadraceError, PolicyError
from streams import policy_topic
from streams.access.gate import form, identity, requires
from streams.clients import require_broker
from streams.console.ops.frame import change, explained, ops, problem_of, seen
from streams.console.ops.lists import moment
from streams.console.ops.policy_view import Policies, counted, diff, policies
from streams.console.ops.shelf import POLICIES
from streams.console.page import render
from streams.policies import KEPT, TASK
from streams.policy.decide import Policy
from streams.policy.facts import FACTS
from streams.policy.lists import Lists
from streams.policy_topic import LIVE, SHADOW, TRIED, Applied

DAY_MS = 86_400_000
NOTE_CHARS = 500
DONE = {"live": "It is live: workers decide by it from their next micro-batch on.",
        "shadow": "It is shadowed: it only counts what it would decide.",
        "cleared-live": "No policy decides now: the release's own thresholds do.",
        "cleared-shadow": "No policy is shadowed now."}  # fmt: skip


def known(request: web.Request) -> Policies:
    return policies(ops(request).shelf.policies.records())


@requires("see")
@explained
async def listed(request: web.Request) -> web.Response:
    found, here = known(request), ops(request)
    names = here.audit.pseudonyms.names(here.people())
    problems = {
        name: drafted(one.document).problems for name, one in (("live", found.live), ("shadow", found.shadow)) if one
    }
    return render(
        request, "ops/policies.html", page="policies", found=found, names=names, unusable=problems,
        done=DONE.get(request.query.get("done", ""), ""), backtests=ops(request).backtests.all(),
        sizes={name: sum(each["list"] == name for each in here.shelf.lists.records().values())
                for name in ("block", "allow", "watch")},
        **problem_of(request, POLICIES),
    )  # fmt: skip


@requires("see")
@explained
async def shown(request: web.Request) -> web.Response:
    """GET /policies/at/{version}: one document, against another (`against`, else the live one)."""
    found, here = known(request), ops(request)
    name = request.match_info["version"]
    one = found.get(name)
    if one is None:
        raise web.HTTPNotFound
    against = request.query.get("against", "live")
    other = found.get(against)
    lines = diff(other.document, one.document) if other is not None and other.version != one.version else []
    return render(
        request, "ops/policy.html", page="policies", found=found, one=one, other=other, lines=lines,
        changed=counted(lines), names=here.audit.pseudonyms.names(here.people()), **problem_of(request, POLICIES),
    )  # fmt: skip


# -- a new one ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """As it was typed. policy: what it came to; None where it cannot be used, for `problems`."""

    text: str
    note: str = ""
    policy: Policy | None = None
    problems: tuple[str, ...] = ()


def drafted(text: str, note: str = "") -> Draft:
    if not text.strip():
        return Draft(text, note, None, ("Paste a policy: a TOML document.",))
    try:
        return Draft(text, note, Policy.parse(text, Lists(), "the document"))
    except PolicyError as error:
        return Draft(text, note, None, tuple(error.what.split("; ")))


def document_of(fields: Mapping[str, str]) -> str:
    """Browsers send line ends as CR LF; a document is named by its digest, so they must not count."""
    return fields.get("document", "").replace("\r\n", "\n")


@requires("policy")
@explained
async def new(request: web.Request) -> web.Response:
    found = known(request)
    begun = found.get(request.query.get("from", "live"))
    return _draft(request, Draft(begun.document if begun is not None else ""))


@requires("policy")
@explained
async def check(request: web.Request) -> web.Response:
    fields = await form(request)
    return _draft(request, drafted(document_of(fields), fields.get("note", "")), checked=True)


def _draft(
    request: web.Request, draft: Draft, *, checked: bool = False, failed: HeadraceError | None = None,
    errors: Mapping[str, str] | None = None, span: tuple[str, str] = ("", ""),
) -> web.Response:  # fmt: skip
    found = known(request)
    live = found.live
    lines = diff(live.document if live is not None else "", draft.text) if draft.policy is not None else []
    status = 503 if failed is not None and failed.retriable else 400 if failed or draft.problems or errors else 200
    return render(
        request, "ops/policy_new.html", page="policies", status=status, draft=draft, checked=checked, lines=lines,
        changed=counted(lines), live=live, shadow=found.shadow, failed=failed, errors=errors or {}, span=span,
        facts=sorted(FACTS.items()), **problem_of(request, POLICIES),
    )  # fmt: skip


@requires("policy")
@explained
async def apply(request: web.Request) -> web.StreamResponse:
    """POST /policies/apply: fields document, standing (live or shadow), note, expected-live and -shadow: what stood."""
    here, fields = ops(request), await form(request)
    note, standing = " ".join(fields.get("note", "").split()), fields.get("standing", "")
    draft = drafted(document_of(fields), note)
    if standing not in (LIVE, SHADOW):
        raise web.HTTPBadRequest(text="standing: live or shadow")
    if draft.policy is None:
        return _draft(request, draft, checked=True)
    if not note or len(note) > NOTE_CHARS:
        said = "Say why: it is kept beside the policy." if not note else f"At most {NOTE_CHARS} characters."
        return _draft(request, draft, checked=True, errors={"note": said})
    if (moved := _moved_on(request, fields, standing)) is not None:
        return _draft(request, draft, checked=True, failed=moved)
    shadow, who = standing == SHADOW, here.audit.pseudonyms.of(identity(request).name)

    def done() -> Applied:
        require_broker(here.settings)
        made = policy_topic.apply(
            here.settings, here.registry, draft.text, shadow=shadow, by=who, note=note, now_ms=here.clock()
        )
        _know(request, made)
        return made

    detail = {"version": draft.policy.version, "note": note}
    try:
        await change(request, f"policy.{standing}", f"policy {draft.policy.version}", detail, done)
    except HeadraceError as error:
        return _draft(request, draft, checked=True, failed=error)
    raise seen(f"/policies?done={standing}")


def _moved_on(request: web.Request, fields: Mapping[str, str], standing: str) -> PolicyError | None:
    """Somebody else has applied another one since the page was made."""
    now, expected = known(request).get(standing), fields.get(f"expected-{standing}", "")
    version = now.version if now is not None else ""
    if version == expected:
        return None
    return PolicyError(
        f"{version or 'none'} is {standing} by now",
        where=ops(request).settings.topics.policies,
        expected=f"{expected or 'none'}, as it was when the page was made",
        todo="look at the difference again, and decide anew",
    )


def _know(request: web.Request, made: Applied) -> None:
    """At once in our own book, as the page that follows is made from it."""
    record = {
        "task": TASK, "standing": made.standing, "version": made.version, "digest": "", "document": made.document,
        "applied_at": made.applied_at, "by": made.by, "note": made.note,
    }  # fmt: skip
    book = ops(request).shelf.policies
    book.know(f"{TASK}/{made.standing}", record)
    if made.version:
        book.know(f"{TASK}/{made.version}", record | {"standing": KEPT if made.standing == LIVE else TRIED})


@requires("policy")
@explained
async def clear(request: web.Request) -> web.StreamResponse:
    """POST /policies/clear: field standing; then none decides, or none is shadowed."""
    here, standing = ops(request), (await form(request)).get("standing", "")
    if standing not in (LIVE, SHADOW):
        raise web.HTTPBadRequest(text="standing: live or shadow")
    before = known(request).get(standing)
    who = here.audit.pseudonyms.of(identity(request).name)

    def done() -> Applied:
        require_broker(here.settings)
        made = policy_topic.apply(
            here.settings, here.registry, "", shadow=standing == SHADOW, by=who, now_ms=here.clock()
        )
        _know(request, made)
        return made

    await change(request, f"policy.clear-{standing}", f"policy {before.version if before else 'none'}", {}, done)
    raise seen(f"/policies?done=cleared-{standing}")


# -- backtests ---------------------------------------------------------------------------------------------------


@requires("policy")
@explained
async def backtest(request: web.Request) -> web.StreamResponse:
    """POST /policies/backtest: fields document, from, to (UTC, of the orders' own time)."""
    fields = await form(request)
    draft = drafted(document_of(fields), fields.get("note", ""))
    typed = fields.get("from", ""), fields.get("to", "")
    start, end = moment(typed[0]), moment(typed[1])
    errors = {name: "A day and a time, such as 2026-01-31T12:00, in UTC."
              for name, value in (("from", start), ("to", end)) if value is None}  # fmt: skip
    if start is not None and end is not None and start >= end:
        errors["to"] = "After the beginning."
    if draft.policy is None or errors or start is None or end is None:
        return _draft(request, draft, checked=True, errors=errors, span=typed)
    begun = ops(request).backtests.begin(draft.text, draft.policy.version, (start, end))
    if begun is None:
        return _draft(request, draft, checked=True, errors={"to": "Another backtest runs: wait for it."}, span=typed)
    raise seen(f"/policies/backtests/{begun.number}")


@requires("see")
@explained
async def result(request: web.Request) -> web.Response:
    number = request.match_info["number"]
    found = ops(request).backtests.get(int(number)) if number.isdecimal() and len(number) < 10 else None
    if found is None:
        raise web.HTTPNotFound
    return render(request, "ops/backtest.html", page="policies", found=found, report=found.report)
