"""The learner's process: the label join, the loop that learns, and the pages that tell of both, until stopped.
Whatever ends one of them ends the process; all of it goes on where it was when it is started again.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from streams.config import Settings
from streams.joining.service import LabelService
from streams.learner.learning import Learning
from streams.learner.metrics import LearnerMetrics
from streams.signals import hear
from streams.web import METRICS_TYPE, Server

log = logging.getLogger(__name__)

REPORT_S = 1.0
STUCK_S = 300.0


class Learner:
    """Blocking `run`; SIGTERM and SIGINT end it between two steps."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._metrics = settings, LearnerMetrics()
        self.learning = Learning(settings, self._metrics)
        self.labels = LabelService(settings, on_served=self.learning.served)
        self._heard = (0, 0.0)
        self.port = 0

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Raises what ended it: Fenced where another learner has taken over, SettingsError, SchemaError, StateError."""
        asyncio.run(self._main(on_ready))

    def stop(self) -> None:
        """From any thread."""
        self.labels.stop()
        self.learning.stop()

    async def _main(self, on_ready: Callable[[], None]) -> None:
        hear(asyncio.get_running_loop(), self.stop)
        async with Server(self._application(), self._settings.learner_web, "learner_web") as server:
            self.port = server.port
            log.info("health and metrics on %s:%d", self._settings.learner_web.host, server.port)
            parts = [asyncio.create_task(asyncio.to_thread(part.run)) for part in (self.labels, self.learning)]
            report = asyncio.create_task(self._report())
            on_ready()
            try:
                await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.stop()
                await asyncio.wait(parts)
                report.cancel()
            for part in parts:
                part.result()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            for task, counts in self.labels.take_counts().items():
                self._metrics.joined(task, counts)
            self._metrics.examples.inc(self.labels.take_examples())
            if (seconds := self.labels.join_s) is not None:
                self._metrics.label_join.set(seconds)
            if (watermark := self.labels.watermark) is not None:
                self._metrics.behind.set(time.time() - watermark / 1000)

    def _application(self) -> web.Application:
        async def healthz(_: web.Request) -> web.Response:
            alive = self._alive(time.monotonic())
            body: dict[str, Any] = {"live": alive, "rounds": self.learning.rounds}
            return web.json_response(body, status=200 if alive else 503)

        async def page(_: web.Request) -> web.Response:
            return web.Response(body=self._metrics.page(), headers={"Content-Type": METRICS_TYPE})

        app = web.Application()
        app.router.add_get("/healthz", healthz)
        app.router.add_get("/metrics", page)
        return app

    def _alive(self, now: float) -> bool:
        """Whether the loop has gone round lately; what it waits for, the log says."""
        rounds = self.learning.rounds
        if rounds != self._heard[0] or not self._heard[1]:
            self._heard = rounds, now
        return now - self._heard[1] < STUCK_S
