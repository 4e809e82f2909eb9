"""The webhook service: every endpoint of the settings in one event loop, and the pages that tell of them.
It is no part of the worker, so a webhook that hangs delays no score.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from aiohttp import web

from schemas.errors import HeadraceError, SettingsError
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.offsets import places
from streams.patience import RETRY_S
from streams.producer import Producer
from streams.signals import hear
from streams.web import METRICS_TYPE, Server
from streams.webhooks.body import CONTRACT as ALERT
from streams.webhooks.delivering import Delivering
from streams.webhooks.failures import CONTRACT as FAILURE
from streams.webhooks.failures import FailureWriter
from streams.webhooks.metrics import WebhookMetrics
from streams.webhooks.signing import read_secrets

log = logging.getLogger(__name__)

T = TypeVar("T")

READY_S = 0.05


class Webhooks:
    """Blocking `run`; SIGTERM, SIGINT and `stop` end it: attempts that run may end, and what they did is committed."""

    def __init__(self, settings: Settings, registry: Registry, on_ready: Callable[[], None] = lambda: None) -> None:
        """`on_ready` is called when every endpoint has its partitions. SettingsError."""
        if not settings.webhooks.endpoints:
            raise SettingsError(
                "there is no endpoint to post to",
                where="webhooks.endpoints",
                expected="name, url and secrets of one at least",
                todo="docs/webhooks.md shows how to name one",
            )
        self._secrets = {each.name: read_secrets(each) for each in settings.webhooks.endpoints}
        self._settings, self._registry, self._on_ready = settings, registry, on_ready
        self._metrics = WebhookMetrics()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._endpoints: list[Delivering] = []
        self.port = 0

    def run(self) -> None:
        """Raises SettingsError, SchemaError."""
        asyncio.run(self._main())

    def stop(self) -> None:
        """From any thread."""
        if self._loop is None:
            self._stopping.set()
        else:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        hear(self._loop, self._stopping.set)
        async with Server(self._application(), self._settings.webhooks_web, "webhooks_web") as server:
            self.port = server.port
            log.info("health and metrics on %s:%d", self._settings.webhooks_web.host, server.port)
            names = self._settings.topics
            for topic in (names.alerts, names.webhooks_failed):
                await self._until_it_works(partial(places, self._settings, topic))
            decode = Decoder(self._registry, ALERT)
            encode = await self._until_it_works(lambda: Encoder(self._registry, names.webhooks_failed, FAILURE))
            producer = Producer(self._settings)
            try:
                await self._deliver(decode, FailureWriter(self._settings, producer, encode))
            finally:
                await producer.close()

    async def _deliver(self, decode: Decoder, failures: FailureWriter) -> None:
        self._endpoints = [
            Delivering(self._settings, each, self._secrets[each.name], decode, failures, self._metrics)
            for each in self._settings.webhooks.endpoints
        ]
        parts = [asyncio.create_task(each.run()) for each in self._endpoints]
        stopped = asyncio.create_task(self._stopping.wait())
        ready = asyncio.create_task(self._ready())
        try:
            await asyncio.wait([stopped, *parts], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in self._endpoints:
                each.stop()
            await asyncio.wait(parts)
            for extra in (stopped, ready):
                extra.cancel()
        for part in parts:
            part.result()

    async def _ready(self) -> None:
        while not all(each.state()["partitions"] for each in self._endpoints):
            await asyncio.sleep(READY_S)
        log.info("alerts are posted to %s", ", ".join(each.name for each in self._endpoints))
        self._on_ready()

    async def _until_it_works(self, attempt: Callable[[], T]) -> T:
        while True:
            try:
                return await asyncio.to_thread(attempt)
            except HeadraceError as error:
                if not error.retriable or self._stopping.is_set():
                    raise
                log.warning("webhooks wait: %s", error)
                await asyncio.sleep(RETRY_S)

    def _application(self) -> web.Application:
        async def healthz(_: web.Request) -> web.Response:
            return web.json_response({"endpoints": [each.state() for each in self._endpoints]})

        async def page(_: web.Request) -> web.Response:
            return web.Response(body=self._metrics.page(), headers={"Content-Type": METRICS_TYPE})

        app = web.Application()
        app.router.add_get("/healthz", healthz)
        app.router.add_get("/metrics", page)
        return app
