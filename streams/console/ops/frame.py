"""What the operations pages share: what they stand on, threads for what must ask Kafka, audited changes, error pages.
A page answers from memory; what cannot is done in a thread, within a time limit, and says so when that is over.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from aiohttp import web

from schemas.errors import BrokerUnavailable, HeadraceError
from schemas.registry import Registry
from streams.access.gate import identity
from streams.audit.log import Audit
from streams.config import Settings
from streams.console import words
from streams.console.ops.backtests import Backtests
from streams.console.ops.scraping import Scraper
from streams.console.ops.shelf import Shelf
from streams.console.page import language, render
from streams.release_moves import ReleaseMoves

log = logging.getLogger(__name__)

READ_S, CHANGE_S = 8.0, 30.0
THREADS = 6

Result = TypeVar("Result")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Threads:
    """For what asks Kafka or a store while a page waits: a few threads, so that none that hangs takes all there are."""

    def __init__(self, count: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="console")

    async def do(self, call: Callable[[], Result], patience_s: float, what: str) -> Result:
        """Raises what `call` raises; BrokerUnavailable after `patience_s`: the call itself goes on."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        try:
            return await asyncio.wait_for(asyncio.shield(future), patience_s)
        except TimeoutError:
            future.add_done_callback(_forget)
            raise BrokerUnavailable(
                f"no answer in {patience_s:g} s",
                where=what,
                todo="look at the broker; what was asked for may still happen, so look before you ask again",
            ) from None

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _forget(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("what a page did not wait for failed: %s", error)


@dataclass(frozen=True, slots=True)
class Ops:
    """clock: UTC ms. people: names of users, for the audit page."""

    settings: Settings
    registry: Registry
    audit: Audit
    scraper: Scraper
    shelf: Shelf
    moves: ReleaseMoves
    backtests: Backtests
    threads: Threads
    clock: Callable[[], int]
    people: Callable[[], list[str]]
    still: Callable[[web.Request], bool]


OPS: web.AppKey[Ops] = web.AppKey("ops", Ops)


def ops(request: web.Request) -> Ops:
    return request.app[OPS]


def translator(request: web.Request) -> Callable[..., str]:
    return words.translator(language(request))


def task_of(request: web.Request, name: str) -> str:
    """A task of the settings, or 404."""
    if name not in ops(request).settings.tasks:
        raise web.HTTPNotFound
    return name


def chosen_task(request: web.Request) -> str:
    """That of the query, else the first."""
    tasks = ops(request).settings.tasks
    asked = request.query.get("task", "")
    return asked if asked in tasks else tasks[0]


async def read(request: web.Request, call: Callable[[], Result], what: str) -> Result:
    return await ops(request).threads.do(call, READ_S, what)


async def change(
    request: web.Request, action: str, subject: str, detail: Mapping[str, Any], call: Callable[[], Result]
) -> Result:
    """Writes it into the audit log, and then does it; both go on where the page has stopped waiting.

    In that order, as a change without an entry would not show; what was refused is written as well.
    Raises what `call` raises, and what `Audit.append` raises: then nothing was done.
    """
    here, who, now_ms = ops(request), identity(request).name, ops(request).clock()

    def done() -> Result:
        here.audit.append(who, action, subject, dict(detail), now_ms)
        try:
            return call()
        except HeadraceError as error:
            _note_refusal(here.audit, who, action, subject, error, here.clock())
            raise

    return await here.threads.do(done, CHANGE_S, action)


def _note_refusal(audit: Audit, who: str, action: str, subject: str, error: HeadraceError, now_ms: int) -> None:
    try:
        audit.append(who, f"{action}.refused", subject, {"why": error.what}, now_ms)
    except HeadraceError as second:  # the log of the process has it
        log.error("%s of %s came to nothing (%s), and the audit log cannot say so: %s", action, subject, error, second)


def explained(handler: Handler) -> Handler:
    """A HeadraceError that a handler did not show beside its form becomes a page of its own."""

    @wraps(handler)
    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except HeadraceError as error:
            return problem_page(request, error)

    return guarded


def problem_page(request: web.Request, error: HeadraceError) -> web.Response:
    """Where a form led here, trying again means its page: the form itself is not sent twice by a link."""
    again = request.path_qs if request.method == "GET" else request.path.rpartition("/")[0] or "/"
    return render(request, "ops/problem.html", status=503 if error.retriable else 400, error=error, again=again)


def problem_of(request: web.Request, what: str) -> Mapping[str, Any]:
    """For a page's notice: what is in the way of reading on, and whether anything was read at all."""
    shelf = ops(request).shelf
    return {"problem": shelf.problem(what), "ready": shelf.ready(what)}


def seen(path: str) -> web.HTTPSeeOther:
    """To the page that shows what a form did. `path` is ours, never the reader's."""
    return web.HTTPSeeOther(path)
