"""The case: everything about one alert on one page, and what an analyst does there.
A script gets JSON, a plain form a redirect; what goes wrong comes back beside the field, with what was typed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web

from schemas.errors import HeadraceError
from streams.access.gate import form, identity, requires
from streams.console import cases, desk, listing, timeline, together, words
from streams.console.desk import Outcome
from streams.console.graph import drawing
from streams.console.history import history
from streams.console.keys import CLOCK
from streams.console.listing import Filter
from streams.console.notes import MOST_CHARACTERS
from streams.console.office import OFFICE, Office, work
from streams.console.page import fragment, language, render
from streams.console.queue_page import problem_of

ORDER_S = 4.0
WHOLE = "whole"
"""Of a form: it is about the whole case, and not about the one order."""
VALUES = {"fraud": 1.0, "genuine": 0.0}


@requires("see")
async def page(request: web.Request) -> web.Response:
    return await _shown(request)


async def _shown(request: web.Request, status: int = 200, **told: Any) -> web.Response:
    """`told`: what a form is told: problem by field, and the text that was typed."""
    asked, _ = Filter.of(request.query)
    found = await work(request, lambda: _found(request, asked))
    if found is None:
        return render(request, "missing.html", status=404, page="queue")
    values: dict[str, Any] = {"problems": {}, "typed": "", "done": request.query.get("done", "")} | told
    return render(
        request, "case.html", status=status, page="queue", asked=asked, **found, **values, **problem_of(request)
    )


def _found(request: web.Request, asked: Filter) -> dict[str, Any] | None:
    office, alert_id = request.app[OFFICE], request.match_info["alert"]
    reader = office.reader(identity(request))
    with office.store.reading() as connection:
        case = cases.case(connection, alert_id)
        if case is None:
            return None
        before, after = listing.neighbours(connection, asked, case.alert, reader)
        _, said = together.said_together(connection, case.alert["grp"], reader.who)
    steps = timeline.steps(case.row, office.row_name) if case.row is not None else []
    return {
        "case": case,
        "before": before,
        "after": after,
        "said_together": said,
        "most_at_once": desk.MOST_AT_ONCE,
        "visits": timeline.visits(steps),
        "drawing": drawing(case) if case.ties else None,
        "notes": office.desk.notes.of(case.alert["order_id"]),
        "notes_problem": str(office.notes_problem() or ""),
        "history": history(case),
        "who": office.who(),
        "own": reader.who,
        "four_eyes": office.desk.four_eyes,
        "most_characters": MOST_CHARACTERS,
    }


@requires("see")
async def order(request: web.Request) -> web.Response:
    """The order's items and addresses, from its topic; a part of the page, asked for when the rest is there."""
    office = request.app[OFFICE]
    with office.store.reading() as connection:
        case = cases.case(connection, request.match_info["alert"])
    if case is None:
        raise web.HTTPNotFound
    partition, offset = case.detail["order_partition"], case.detail["order_offset"]
    orders, record, problem = office.orders, None, ""
    if orders is not None and partition >= 0 and offset >= 0:
        try:
            record = await work(request, lambda: orders.read(partition, offset, case.alert["order_id"]), ORDER_S)
        except HeadraceError as error:
            problem = str(error)
    text = fragment(request, "order.html", record=record, problem=problem, item_name=office.item_name, alert=case.alert)
    return web.Response(text=text, content_type="text/html")


@requires("verdict")
async def verdict(request: web.Request) -> web.StreamResponse:
    fields = await form(request)
    value, seen = VALUES.get(fields.get("verdict", "")), fields.get("seen", "")
    if value is None:
        return await _refused(request, 400, "verdict", _t(request)("Choose fraud or genuine."))
    known = int(seen) if seen.isdecimal() and len(seen) < 10 else None
    office, alert_id, who, now_ms = _asked(request)
    if fields.get(WHOLE):
        act = partial(office.desk.verdict_on_case, alert_id, value, who, now_ms, seen or None)
        return await _done(request, "case", act)
    return await _done(request, "verdict", lambda: office.desk.verdict(alert_id, value, who, now_ms, known))


@requires("verdict")
async def undo(request: web.Request) -> web.StreamResponse:
    fields = await form(request)
    office, alert_id, who, now_ms = _asked(request)
    if fields.get(WHOLE):
        return await _done(request, "case", lambda: office.desk.undo_on_case(alert_id, who, now_ms))
    return await _done(request, "verdict", lambda: office.desk.undo(alert_id, who, now_ms))


@requires("verdict")
async def note(request: web.Request) -> web.StreamResponse:
    fields = await form(request)
    text, note_id = fields.get("text", ""), fields.get("note_id", "")[:64]
    if not text.strip():
        return await _refused(request, 400, "note", _t(request)("Write something first."))
    if len(text) > MOST_CHARACTERS:
        said = _t(request)("A note has at most {most} characters; this one has {n}.", most=MOST_CHARACTERS, n=len(text))
        return await _refused(request, 400, "note", said, typed=text)
    office, alert_id, who, now_ms = _asked(request)
    return await _done(request, "note", lambda: office.desk.note(alert_id, text, who, now_ms, note_id), typed=text)


@requires("verdict")
async def remove_note(request: web.Request) -> web.StreamResponse:
    office, alert_id, who, now_ms = _asked(request)
    note_id = request.match_info["note"]
    return await _done(request, "note", lambda: office.desk.remove_note(alert_id, note_id, who, now_ms))


@requires("verdict")
async def assign(request: web.Request) -> web.StreamResponse:
    """To oneself, or to nobody."""
    fields = await form(request)
    office, alert_id, who, now_ms = _asked(request)
    whom = who if fields.get("to") == "me" else ""
    return await _done(request, "assign", lambda: office.desk.assign(alert_id, whom, who, now_ms))


def _asked(request: web.Request) -> tuple[Office, str, str, int]:
    return request.app[OFFICE], request.match_info["alert"], identity(request).name, request.app[CLOCK]()


async def _done(request: web.Request, field: str, call: Callable[[], Outcome], typed: str = "") -> web.StreamResponse:
    office: Office = request.app[OFFICE]

    def act() -> Outcome:
        outcome = call()
        if outcome.touched:
            office.announce(outcome.touched)
        return outcome

    try:
        outcome = await work(request, act)
    except HeadraceError as error:
        said = f"{_t(request)('Nothing was changed.')} {error}"
        return await _refused(request, 503 if error.retriable else 400, field, said, typed=typed)
    if not outcome.done or outcome.problem:
        status = 503 if outcome.problem else 404 if outcome.kind == desk.UNKNOWN else 409
        return await _refused(request, status, field, told(_t(request), outcome), typed=typed)
    if _by_script(request):
        return web.json_response({"kind": outcome.kind, "value": outcome.value, "words": told(_t(request), outcome)})
    query = Filter.of(request.query)[0].query()
    raise web.HTTPSeeOther(
        f"/cases/{request.match_info['alert']}?{query}{'&' if query else ''}done={outcome.kind.replace(' ', '-')}"
    )


async def _refused(request: web.Request, status: int, field: str, said: str, typed: str = "") -> web.StreamResponse:
    if _by_script(request):
        return web.json_response({"field": field, "words": said}, status=status)
    return await _shown(request, status, problems={field: said}, typed=typed)


def _by_script(request: web.Request) -> bool:
    return "application/json" in request.headers.get("Accept", "")


def _t(request: web.Request) -> Callable[..., str]:
    return words.translator(language(request))


def told(t: Callable[..., str], outcome: Outcome) -> str:
    """What came of it, in one sentence."""
    order_id = outcome.order_id
    if outcome.orders:
        return _told_of_case(t, outcome)
    if outcome.kind in (desk.PUBLISHED, desk.WAITING):
        said = t("fraud") if outcome.value else t("genuine")
        if outcome.kind == desk.PUBLISHED:
            return t("Order {order}: {verdict}. The label is published.", order=order_id, verdict=said)
        return t("Order {order}: {verdict}. It counts when a second analyst agrees.", order=order_id, verdict=said)
    sentences = {
        desk.WITHDRAWN: "Order {order}: the verdict is taken back.",
        desk.NO_LONGER: "Order {order}: your opinion is taken back.",
        "noted": "The note is kept.",
        "note removed": "The note is removed.",
        "assigned": "Order {order}: the assignment is changed.",
        desk.STALE: "Somebody spoke on order {order} since you opened it. Look again, then decide.",
        desk.NOTHING: "There is nothing to take back.",
        desk.UNKNOWN: "There is no such alert any more.",
        desk.ANSWERED: "Every order of this case has an answer.",
    }
    return t(sentences[outcome.kind], order=order_id)


def _told_of_case(t: Callable[..., str], outcome: Outcome) -> str:
    said, n = t("fraud") if outcome.value else t("genuine"), len(outcome.orders)
    sentences = []
    if outcome.kind == desk.WITHDRAWN:
        sentences.append(t("Taken back on {n} orders of the case.", n=n))
    elif published := n - outcome.wait:
        sentences.append(t("{n} orders of the case: {verdict}. The labels are published.", n=published, verdict=said))
    if outcome.wait:
        sentences.append(
            t("{n} orders of the case: {verdict}, when a second analyst agrees.", n=outcome.wait, verdict=said)
        )
    if outcome.left:
        sentences.append(t("{n} more are as they were.", n=outcome.left))
    return " ".join([*sentences, outcome.problem]).strip()
