"""The process of `headrace mapping run`: a follower in a thread, and the pages that tell of it, until stopped.
A signal ends it at any moment: what it waits for then, the broker or the registry, it waits for no longer.
"""

import asyncio
import logging
import os
import threading
import time
from pathlib import Path

from aiohttp import web

from schemas.errors import HeadraceError
from schemas.registry import Registry
from streams.config import Settings
from streams.contracts import topic_contract
from streams.mapping.compiling import Compiled
from streams.mapping.document import TARGETS, read
from streams.mapping.mapper import Mapper
from streams.mapping.metrics import MappingMetrics
from streams.mapping.reading import Start
from streams.mapping.service import Follower, mapped_topic, words
from streams.patience import until_it_works
from streams.signals import hear
from streams.web import METRICS_TYPE, Server

log = logging.getLogger(__name__)

LOOK_S = 0.1
END_S = 5.0
"""A question to a broker that went away takes up to 15 s. Whoever is asked to end does not wait for it any longer."""
STUCK_S = 300.0


def leave() -> None:
    """Ends the process where it stands: as if it had been killed, which loses and repeats nothing."""
    log.warning("no answer of the broker for %.0f s: what was not committed is read again by the next start", END_S)
    logging.shutdown()
    os._exit(0)


class MappingProcess:
    """Blocking `run`; SIGTERM, SIGINT and `stop` end it after the transaction that it is in."""

    def __init__(self, settings: Settings, registry: Registry, path: str, start: Start = "committed") -> None:
        """Of a mapping file. SettingsError that names all that is wrong with it."""
        self._settings, self._registry, self._start = settings, registry, start
        self._compiled, self._folder = Compiled(read(path), path), Path(path).parent
        self._document = self._compiled.document
        self._metrics = MappingMetrics(self._document.name)
        self._follower: Follower | None = None
        self._stopped = threading.Event()
        self.port = 0

    def run(self) -> None:
        """Raises Fenced where another process carries the same, ProduceFailed, SettingsError, SchemaError,
        FrontierTooOld.
        """
        asyncio.run(self._main())

    def stop(self) -> None:
        """From any thread."""
        self._stopped.set()

    def said(self) -> str:
        """From where to where, and what became of what it has read."""
        to = topic_contract(self._settings, TARGETS[self._document.target]).name
        return f"{self._document.source} to {to}: {words(self._follower.carried) if self._follower else 'not begun'}"

    def missing(self) -> list[str]:
        """What it lacks to be ready, in words; empty: it is ready."""
        if self._follower is None:
            return ["the registry has not answered yet"]
        if self._follower.waits:
            return [self._follower.waits]
        return [] if self._follower.begun else [f"{self._document.source} is not opened yet"]

    async def _main(self) -> None:
        hear(asyncio.get_running_loop(), self.stop)
        async with Server(self._application(), self._settings.mapping_web, "mapping_web") as server:
            self.port = server.port
            log.info("health and metrics on %s:%d", self._settings.mapping_web.host, server.port)
            work = asyncio.create_task(asyncio.to_thread(self._followed))
            asked: float | None = None
            while not (await asyncio.wait([work], timeout=LOOK_S))[0]:
                if asked is None and self._stopped.is_set():
                    asked = time.monotonic()
                if asked is not None and time.monotonic() - asked > END_S:
                    leave()
            work.result()

    def _followed(self) -> None:
        """In a thread of its own."""
        try:
            mapper = until_it_works("the mapping", self._mapper, self._stopped, log)
        except HeadraceError as error:
            if error.retriable and self._stopped.is_set():  # what was waited for is not wanted any more
                return
            raise
        plan = mapped_topic(self._settings, mapper)
        self._follower = Follower(self._settings, self._registry, plan, self._metrics.told, self._stopped)
        self._follower.run(start=self._start)

    def _mapper(self) -> Mapper:
        return Mapper(self._settings, self._registry, self._compiled, self._folder)

    def _application(self) -> web.Application:
        async def healthz(_: web.Request) -> web.Response:
            alive = self._follower is None or time.monotonic() - self._follower.turned < STUCK_S
            return web.json_response({"live": alive, "said": self.said()}, status=200 if alive else 503)

        async def readyz(_: web.Request) -> web.Response:
            lacks = self.missing()
            return web.json_response({"ready": not lacks, "missing": lacks}, status=503 if lacks else 200)

        async def page(_: web.Request) -> web.Response:
            waits = self._follower is None or bool(self._follower.waits)
            return web.Response(body=self._metrics.page(waits), headers={"Content-Type": METRICS_TYPE})

        app = web.Application()
        app.router.add_get("/healthz", healthz)
        app.router.add_get("/readyz", readyz)
        app.router.add_get("/metrics", page)
        return app
