"""The routes of the operations pages, and what stands behind them from the application's start to its end.
Nothing is opened before that, and a broker that is away holds up neither the start nor a page.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

from aiohttp import web

from streams.config import Settings
from streams.config_sections import Web
from streams.console.keys import ACCOUNTS, AUDIT, CLOCK, GATE, REGISTRY, SETTINGS
from streams.console.ops import audit, letters, lists, live, policies, quality, releases
from streams.console.ops.backtests import Backtests
from streams.console.ops.frame import OPS, Ops, Threads
from streams.console.ops.scraping import Scraper
from streams.console.ops.shelf import Shelf
from streams.release_moves import ReleaseMoves

log = logging.getLogger(__name__)

EVERYWHERE = ("0.0.0.0", "::", "")

Opening = Callable[[web.Application], Ops]


def routes(app: web.Application, opening: Opening | None = None) -> None:
    """Before the application starts; the keys of `streams.console.keys` are read when it does, by `opening`."""
    opening = opening or opened
    app[live.FRAGMENTS] = live.Fragments()
    add = app.router.add_get
    add("/live", live.page)
    add("/live/events", live.stream)
    add("/quality", quality.quality)
    add("/learn", quality.learn)
    add("/releases", releases.releases)
    add("/releases/{task}/at/{version}", releases.release)
    add("/releases/{task}/{act:promote|rollback|pin|unpin}", releases.confirm)
    add("/letters", letters.letters)
    add("/letters/replay", letters.confirm)
    add("/letters/at/{letter}", letters.letter)
    add("/policies", policies.listed)
    add("/policies/new", policies.new)
    add("/policies/at/{version}", policies.shown)
    add("/policies/backtests/{number}", policies.result)
    add("/lists", lists.lists)
    add("/audit", audit.audit)
    post = app.router.add_post
    post("/learn/{task}", quality.ask)
    post("/releases/{task}/{act:promote|rollback|pin|unpin}", releases.act)
    post("/letters/replay", letters.replay)
    post("/policies/check", policies.check)
    post("/policies/apply", policies.apply)
    post("/policies/clear", policies.clear)
    post("/policies/backtest", policies.backtest)
    post("/lists/add", lists.add)
    post("/lists/remove", lists.remove)
    post("/audit/verify", audit.check)
    app.cleanup_ctx.append(partial(standing, opening=opening))
    app.on_shutdown.append(let_go)


def opened(app: web.Application) -> Ops:
    """Of what the application's keys say. Its readers run already, and are waited for by nobody."""
    settings, registry, clock = app[SETTINGS], app[REGISTRY], app[CLOCK]
    return Ops(
        settings, registry, app[AUDIT], Scraper(*addresses(settings)), Shelf(settings, registry),
        ReleaseMoves(settings, registry, clock), Backtests(settings, registry, clock), Threads(), clock,
        app[ACCOUNTS].names, app[GATE].still,
    )  # fmt: skip


async def standing(app: web.Application, opening: Opening) -> AsyncIterator[None]:
    here = app[OPS] = opening(app)
    asking = asyncio.create_task(here.scraper.run())
    asking.add_done_callback(_told)
    yield
    asking.cancel()
    await asyncio.wait([asking])
    await asyncio.to_thread(here.backtests.stop)
    await asyncio.to_thread(here.shelf.stop)
    here.threads.close()


def _told(asking: "asyncio.Task[None]") -> None:
    """A fault, at once and not at the end: from then on the figures stand still."""
    if not asking.cancelled() and (fault := asking.exception()) is not None:
        log.error("nobody is asked for figures any more", exc_info=fault)


async def let_go(app: web.Application) -> None:
    """Open streams end, so that the console need not wait for who looks at it."""
    if OPS in app:
        await app[OPS].scraper.stop()


def addresses(settings: Settings) -> tuple[Sequence[str], Sequence[str]]:
    """Of the workers' and the learners' pages: those that are named, else where one of these settings listens."""
    said, console = settings.sources(), settings.console
    workers = console.workers if said.get("console.workers") != "default" else _here(settings.web)
    learners = console.learners if said.get("console.learners") != "default" else _here(settings.learner_web)
    return workers, learners


def _here(page: Web) -> tuple[str, ...]:
    """Where a process of these settings listens; nobody knows where one with port 0 does."""
    if not page.port:
        return ()
    host = "127.0.0.1" if page.host in EVERYWHERE else page.host
    return (f"[{host}]:{page.port}" if ":" in host else f"{host}:{page.port}",)
