"""The console as one application: its own pages, those of operations, the gate before all, and what they stand on.
It holds no threads of its own but those that answer: `service` has the rest.
"""

import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from schemas.registry import Registry
from streams.access.accounts import Accounts
from streams.access.web import protect
from streams.audit.log import Audit
from streams.config import Settings
from streams.console import case_page, queue_page, session_pages
from streams.console.keys import ACCOUNTS, AUDIT, CLOCK, COUNTS, GATE, REGISTRY, SETTINGS
from streams.console.office import OFFICE, POOL, SUMMARY, THREADS, Office, Summary
from streams.console.page import STATIC

MOST_BYTES = 256 * 1024  # of a form
FOR_EVER = "public, max-age=31536000, immutable"
Clock = Callable[[], int]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def application(
    settings: Settings,
    registry: Registry,
    accounts: Accounts,
    audit: Audit,
    office: Office,
    clock: Clock = now_ms,
    *,
    operations: bool = True,
) -> web.Application:
    """Whoever made the office closes it. Without `operations` their pages, which read topics, are left out."""
    app = web.Application(client_max_size=MOST_BYTES, middlewares=[session_pages.designed])
    app[SETTINGS], app[REGISTRY], app[ACCOUNTS], app[AUDIT], app[CLOCK] = settings, registry, accounts, audit, clock
    app[OFFICE] = office
    app[SUMMARY] = summary = Summary(office.store)
    app[COUNTS] = summary.counts
    app[GATE] = protect(
        app, accounts, clock, behind_proxy=settings.access.behind_proxy, login_page=session_pages.login,
        refused_page=session_pages.refused,
    )  # fmt: skip
    app.middlewares.insert(0, session_pages.remembered)
    _own_routes(app)
    if operations:
        from streams.console import ops

        ops.routes(app)
    app.on_response_prepare.append(_kept)
    app.on_shutdown.append(_let_go)
    app.cleanup_ctx.append(_pool)
    return app


def _own_routes(app: web.Application) -> None:
    app.router.add_static("/static", STATIC)
    app.add_routes(
        [
            web.get("/", queue_page.home),
            web.get("/queue", queue_page.page),
            web.get("/events", queue_page.stream),
            web.get("/rows/{alert}", queue_page.row),
            web.get("/cases/{alert}", case_page.page),
            web.get("/cases/{alert}/order", case_page.order),
            web.post("/cases/{alert}/verdict", case_page.verdict),
            web.post("/cases/{alert}/undo", case_page.undo),
            web.post("/cases/{alert}/notes", case_page.note),
            web.post("/cases/{alert}/notes/{note}/remove", case_page.remove_note),
            web.post("/cases/{alert}/assign", case_page.assign),
            web.post("/preferences", session_pages.preferences),
            web.get("/healthz", _healthz),
        ]
    )


async def _healthz(request: web.Request) -> web.Response:
    """Open to all: it says only whether the console is there."""
    return web.json_response({"live": True})


async def _kept(request: web.Request, response: web.StreamResponse) -> None:
    """A static file whose address names its content never changes."""
    if request.path.startswith("/static/") and request.query_string and response.status in (200, 304):
        response.headers["Cache-Control"] = FOR_EVER


async def _let_go(app: web.Application) -> None:
    app[OFFICE].hub.close()


async def _pool(app: web.Application) -> AsyncIterator[None]:
    app[POOL] = ThreadPoolExecutor(THREADS, thread_name_prefix="console")
    yield
    app[POOL].shutdown(wait=False, cancel_futures=True)
