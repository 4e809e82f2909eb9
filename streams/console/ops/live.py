"""The page of live rates and latency, and the stream of updates that keeps it new while it is looked at.
The stream sends the same fragments that the page is made of; they are made once a round for all who look.
"""

import asyncio
import json
from collections.abc import Mapping

from aiohttp import web
from markupsafe import escape

from streams.access.gate import requires
from streams.console.ops import live_view
from streams.console.ops.charts import line_chart, plot
from streams.console.ops.frame import ops, translator
from streams.console.page import fragment, language, render

MINUTES = 15
WAIT_S, STREAM_S, LOOKERS = 15.0, 600.0, 100
STREAM = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}


class Fragments:
    """The newest parts of the page by span and language, made when the first one asks after a round."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, str], str] = {}
        self._round = -1
        self.lookers = 0

    def get(self, request: web.Request, minutes: int) -> str:
        scraper = ops(request).scraper
        if scraper.rounds != self._round:
            self._made.clear()
            self._round = scraper.rounds
        key = minutes, language(request)
        if key not in self._made:
            self._made[key] = json.dumps(parts(request, minutes))
        return self._made[key]


FRAGMENTS: web.AppKey[Fragments] = web.AppKey("fragments", Fragments)


def minutes_of(request: web.Request) -> int:
    asked = request.query.get("minutes", "")
    return int(asked) if asked.isdecimal() and len(asked) < 3 and int(asked) in live_view.SPANS else MINUTES


def parts(request: web.Request, minutes: int) -> Mapping[str, str]:
    """HTML by the name of the place that it goes to."""
    here, t = ops(request), translator(request)
    scraper, tasks = here.scraper, here.settings.tasks
    now_ms = here.clock()
    made = {
        "headline": str(escape(live_view.headline(scraper.workers, t))),
        "tiles": fragment(request, "ops/tiles.html", tiles=live_view.tiles(scraper.workers, tasks)),
        "processes": fragment(
            request, "ops/processes.html", rows=live_view.processes(scraper.workers, scraper.learners, now_ms)
        ),
    }
    for chart in live_view.charts(scraper.workers, tasks, deadlines(request), minutes, now_ms, t):
        made[f"plot-{chart.key}"] = str(plot(chart))
    return made


def deadlines(request: web.Request) -> dict[str, int]:
    settings = ops(request).settings
    return {task: settings.deadline_ms(task) for task in settings.tasks}


@requires("see")
async def page(request: web.Request) -> web.Response:
    here, minutes, now_ms = ops(request), minutes_of(request), ops(request).clock()
    scraper, tasks, t = here.scraper, here.settings.tasks, translator(request)
    charts = live_view.charts(scraper.workers, tasks, deadlines(request), minutes, now_ms, t)
    return render(
        request,
        "ops/live.html",
        page="live",
        minutes=minutes,
        spans=list(live_view.SPANS),
        headline=live_view.headline(scraper.workers, t),
        tiles=live_view.tiles(scraper.workers, tasks),
        rows=live_view.processes(scraper.workers, scraper.learners, now_ms),
        charts=[line_chart(chart) for chart in charts],
    )


@requires("see")
async def stream(request: web.Request) -> web.StreamResponse:
    """Ends after some minutes, or with the session: the browser comes back, and is asked who it is again."""
    fragments, here, minutes = request.app[FRAGMENTS], ops(request), minutes_of(request)
    if fragments.lookers >= LOOKERS:
        raise web.HTTPServiceUnavailable(text="too many look at once", headers={"Retry-After": "60"})
    response = web.StreamResponse(headers=STREAM)
    fragments.lookers += 1
    try:
        await response.prepare(request)
        until, rounds = asyncio.get_running_loop().time() + STREAM_S, here.scraper.rounds
        while asyncio.get_running_loop().time() < until and not here.scraper.stopped:
            now = await here.scraper.after(rounds, WAIT_S)
            if not here.still(request):
                break
            text = ": nothing new\n\n" if now == rounds else f"data: {fragments.get(request, minutes)}\n\n"
            rounds = now
            await response.write(text.encode())
    except ConnectionError:  # the reader left
        pass
    finally:
        fragments.lookers -= 1
    return response
