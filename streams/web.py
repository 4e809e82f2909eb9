"""The worker's web part: /healthz, /readyz and /metrics, on 127.0.0.1 unless the settings say otherwise.
These only read: nothing that such a request does changes the worker. Requests for scores are in streams.asking."""

import time
from dataclasses import asdict
from typing import Any, Protocol, Self

from aiohttp import web

from schemas.errors import SettingsError
from streams.config_sections import Web
from streams.health import Clock, Provider, Watchdog, missing
from streams.metrics import Metrics

CLOSE_S = 2.0  # how long requests may still take when the server ends
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class More(Protocol):
    """Further pages."""

    def add_to(self, app: web.Application) -> None: ...


def application(
    provider: Provider,
    metrics: Metrics,
    limit_s: float,
    clock: Clock = time.monotonic,
    more: More | None = None,
    largest: int = 1 << 20,
) -> web.Application:
    """`limit_s`: how long offsets may stand still under lag, as for the watchdog. `largest`: bytes of a body."""
    watchdog = Watchdog(limit_s)

    async def healthz(_: web.Request) -> web.Response:
        tracks = provider.status().tracks
        stuck = watchdog.observe(clock(), tracks)
        body = {
            "live": not stuck,
            "stuck": [track.name for track in stuck],
            "parked": [track.name for track in tracks if track.parked],
            "tracks": [{**asdict(track), "lag": track.lag} for track in tracks],
        }
        return _answer(body, not stuck)

    async def readyz(_: web.Request) -> web.Response:
        status = provider.status()
        lacks = missing(status)
        said = {"releases": dict(status.releases), "refused": dict(status.refused)}
        return _answer({"ready": not lacks, "missing": lacks, **said}, not lacks)

    async def page(_: web.Request) -> web.Response:
        metrics.ready.set(not missing(provider.status()))
        return web.Response(body=metrics.page(), headers={"Content-Type": METRICS_TYPE})

    app = web.Application(client_max_size=largest)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", page)
    if more is not None:
        more.add_to(app)
    return app


def _answer(body: dict[str, Any], good: bool) -> web.Response:
    return web.json_response(body, status=200 if good else 503)


class Server:
    """Serves an application while its context is open. SettingsError if the address cannot be had."""

    def __init__(self, app: web.Application, settings: Web, section: str = "web") -> None:
        """`section` names the settings in errors."""
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_S)
        self._settings, self._section = settings, section
        self.port = settings.port

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._settings.host, self._settings.port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise SettingsError(
                f"cannot listen on {self._settings.host}:{self._settings.port}: {error.strerror}",
                where=f"{self._section}.host, {self._section}.port",
                expected="an address of this machine with a free port",
                todo=f"set HEADRACE_{self._section.upper()}__PORT; 0 takes any free one",
            ) from error
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
