"""The dead-letter pages: the newest by reason and topic, one with its bytes, and the way home for chosen ones.
Bringing home is what `headrace deadletters replay` does, in the same code; a page before it says what will happen.
"""

from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlencode

from aiohttp import web

from schemas.errors import DataUnavailable, HeadraceError
from streams.access.gate import form_list, identity, requires
from streams.clients import require_broker
from streams.console.ops import letter_feed
from streams.console.ops.frame import change, explained, ops, problem_of, read, seen
from streams.console.ops.letter_book import Brief
from streams.console.ops.letter_view import Filter, listed, opened
from streams.console.ops.shelf import LETTERS
from streams.console.page import render
from streams.deadletters import DeadLetters, Letter, Replayed, Selection

MOST = 2_000  # letters in one go from a page; the command takes all
SHOWN = 200


@requires("see")
@explained
async def letters(request: web.Request) -> web.Response:
    here, chosen = ops(request), Filter.of(request.query)
    found = listed(here.shelf.letters.briefs(), chosen)
    query = {"code": chosen.code, "topic": chosen.topic, "home": "1" if chosen.home else ""}
    done = request.query.get("done", "")
    return render(
        request, "ops/letters.html", page="letters", found=found, chosen=chosen, done=_count(done),
        stay=_count(request.query.get("stay", "")), query=urlencode({k: v for k, v in query.items() if v}),
        reveal=identity(request).can("reveal"), **problem_of(request, LETTERS),
    )  # fmt: skip


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 10 else None


@requires("see")
@explained
async def letter(request: web.Request) -> web.Response:
    here, reveal = ops(request), identity(request).can("reveal")
    letter_id = request.match_info["letter"]
    if here.shelf.letters.get(letter_id) is None:
        raise web.HTTPNotFound

    def fetch() -> tuple[Letter, object]:
        found = letter_feed.show(here.settings, here.registry, here.shelf.letters, letter_id)
        return found, opened(found, here.settings, here.registry, reveal=reveal)

    found, shown = await read(request, fetch, here.settings.topics.deadletters)
    return render(
        request, "ops/letter.html", page="letters", letter=found, record=found.record, shown=shown,
        brief=here.shelf.letters.get(letter_id), **problem_of(request, LETTERS),
    )  # fmt: skip


# -- home --------------------------------------------------------------------------------------------------------


def chosen_letters(request: web.Request, ids: Sequence[str], fields: "Filter | None") -> list[Brief]:
    """Those that are not home: the ticked ones, else all that a filter takes."""
    book = ops(request).shelf.letters
    if fields is not None:
        found = [brief for brief in book.briefs() if fields.takes(brief)]
    else:
        found = [brief for brief in map(book.get, dict.fromkeys(ids)) if brief is not None]
    return [brief for brief in found if not brief.home][:MOST]


@requires("letters")
@explained
async def confirm(request: web.Request) -> web.Response:
    """GET /letters/replay: fields id, repeated; or all=1 with the list's filter."""
    everything = request.query.get("all") == "1"
    found = chosen_letters(request, request.query.getall("id", []), Filter.of(request.query) if everything else None)
    return _confirm(request, found)


def _confirm(request: web.Request, found: Sequence[Brief], failed: HeadraceError | None = None) -> web.Response:
    status = 200 if failed is None else 503 if failed.retriable else 400
    return render(
        request, "ops/letters_confirm.html", page="letters", status=status, found=found, shown=found[:SHOWN],
        failed=failed, topics=sorted(Counter(brief.topic for brief in found if not brief.cut).items()),
        codes=sorted(Counter(brief.code for brief in found).items()), cut=sum(brief.cut for brief in found),
        again=sum(brief.replays > 0 for brief in found), **problem_of(request, LETTERS),
    )  # fmt: skip


@requires("letters")
@explained
async def replay(request: web.Request) -> web.StreamResponse:
    """POST /letters/replay: fields id, repeated."""
    here, ids = ops(request), await form_list(request, "id")
    found = chosen_letters(request, ids, None)
    if not found:
        return _confirm(request, found, DataUnavailable("none of these is there to be brought home any more"))
    wanted = frozenset(brief.id for brief in found)

    def done() -> Replayed:
        require_broker(here.settings)
        letters = DeadLetters(here.settings, here.registry)
        return letters.replay(Selection(ids=wanted))

    detail = {"letters": len(wanted), "ids": sorted(wanted)[:SHOWN]}
    subject = f"letters of {', '.join(sorted({brief.topic for brief in found}))}"[:300]
    try:
        replayed = await change(request, "letters.replay", subject, detail, done)
    except HeadraceError as error:
        return _confirm(request, found, error)
    raise seen(f"/letters?done={replayed.sent}&stay={replayed.refusals}")
