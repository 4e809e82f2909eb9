"""The alert queue: filters, a page of alerts, and the stream that says what is new while it is being read."""

import asyncio
from typing import Any

from aiohttp import web

from streams.access.gate import identity, requires
from streams.console import listing
from streams.console.keys import GATE
from streams.console.listing import Filter
from streams.console.office import OFFICE, SUMMARY, work
from streams.console.page import render

BEAT_S, STREAM_S, MOST_STREAMS = 15.0, 900.0, 200
STREAM = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}


@requires("see")
async def home(_: web.Request) -> web.StreamResponse:
    raise web.HTTPSeeOther("/queue")


@requires("see")
async def page(request: web.Request) -> web.Response:
    asked, problems = Filter.of(request.query)
    after = request.query.get("after", "")
    found = await work(request, lambda: _found(request, asked, after))
    template = "queue_rows.html" if "part" in request.query else "queue.html"
    return render(
        request, template, page="queue", asked=asked, problems=problems, after=after, first=not after, **found,
        **problem_of(request),
    )  # fmt: skip


def _found(request: web.Request, asked: Filter, after: str) -> dict[str, Any]:
    office, summary = request.app[OFFICE], request.app[SUMMARY]
    reader = office.reader(identity(request))
    with office.store.reading() as connection:
        listed = listing.queue(connection, asked, after, reader)
    counts = summary.counts()
    return {
        "listed": listed,
        "total": counts[asked.state] if listed.total is None else listed.total,
        "most_counted": listing.MOST_COUNTED,
        "totals": counts,
        "stake": counts["stake"],
        "facets": summary.facets(),
        "who": office.who(),
        "four_eyes": office.desk.four_eyes,
    }


@requires("see")
async def row(request: web.Request) -> web.Response:
    """One row of the queue as it is now."""
    asked, _ = Filter.of(request.query)
    office, alert_id = request.app[OFFICE], request.match_info["alert"]

    def found() -> dict[str, Any]:
        with office.store.reading() as connection:
            return {"listed": listing.one(connection, alert_id, asked), "who": office.who()}

    values = await work(request, found)
    if not values["listed"].alerts:
        raise web.HTTPNotFound
    return render(request, "queue_rows.html", asked=asked, first=True, totals={}, **values)


def problem_of(request: web.Request) -> dict[str, Any]:
    """What keeps pages from being as new as the topics; empty where nothing does."""
    feed = request.app[OFFICE].feed
    return {"problem": str(feed.error) if feed is not None and feed.error is not None else ""}


@requires("see")
async def stream(request: web.Request) -> web.StreamResponse:
    """Server-sent events: `alerts` that are new, `orders` that changed, `counts`; ends now and then, so that who may
    not look any more is not shown more. The browser comes again by itself."""
    hub = request.app[OFFICE].hub
    if len(hub) >= MOST_STREAMS:
        raise web.HTTPServiceUnavailable(headers={"Retry-After": "30"})
    response = web.StreamResponse(headers=STREAM)
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    until = loop.time() + STREAM_S
    await response.write(b"retry: 2000\n\n")
    async for text in hub.listen(BEAT_S):
        if loop.time() > until or not request.app[GATE].still(request):
            break
        try:
            await response.write(text.encode())
        except ConnectionError:
            break
    return response
