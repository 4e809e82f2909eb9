"""The worker: one process's share of the partitions, from start to stop.
It wires the parts and owns their lives; a failure of any part ends the process with its inputs uncommitted.
"""

import asyncio
import ctypes
import gc
import logging
import sys
import time
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from itertools import count
from typing import Any

from schemas.confluent import ConfluentRegistry
from streams.app import App, check_topics, make_app, until_stopped
from streams.asking.service import Asking
from streams.assembly import Assembly
from streams.changelog import Changelog
from streams.codecs import make_names
from streams.collecting import seldom
from streams.config import Settings
from streams.entity_worker import EntityWorker
from streams.exploring import exploring_task
from streams.flush import TURNS, Flusher
from streams.handover import Handover
from streams.health import Pulse, Watch, Watchdog
from streams.loop import Loop
from streams.metrics import Metrics
from streams.privacy.entries import STATE
from streams.privacy.forgetting import Forgetting
from streams.reporting import Reporter
from streams.restore import until_it_works
from streams.scoring import Scorer
from streams.sender import Sender
from streams.signals import hear
from streams.store import UserStore
from streams.transacted import make_sender
from streams.web import Server, application

log = logging.getLogger(__name__)

REPORT_S = 1.0
STEP_S = 5.0  # so long a step of a restore may still take at the end of a process
#: How long a thread may keep the interpreter while another waits: the event loop must not wait 5 ms for a flush.
SWITCH_S = 0.0005
#: mallopt(3): how much freed memory stays with the process, and up to which size; glibc's own limit is 32 MiB.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES, LARGEST_KEPT = 256 << 20, 32 << 20


def run(settings: Settings) -> None:
    """Runs one worker until SIGTERM or SIGINT. Raises what ended it: the caller exits non-zero."""
    check_topics(settings, settings.topics.inputs, partitions=settings.partitions)
    seldom()
    _keep_freed_memory()
    sys.setswitchinterval(SWITCH_S)
    asyncio.run(_main(settings))


def _keep_freed_memory() -> None:
    """Arrays of a micro-batch come and go: glibc would hand each back to the kernel, and fault it in again.

    A tenth of the CPU at batches of 512. Where the C library is another one, nothing happens.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)


async def _main(settings: Settings) -> None:
    asked = asyncio.Event()
    hear(asyncio.get_running_loop(), asked.set)  # first: what is begun from now on is ended in order
    worker = Worker(settings, make_app(settings))
    beside = asyncio.ensure_future(worker.serve())
    try:
        await until_stopped(worker.app, asked, worker.ready(beside))
    finally:
        beside.cancel()
        await asyncio.wait([beside])
        worker.close()


class Worker:
    """All methods run on the app's event loop."""

    def __init__(self, settings: Settings, app: App) -> None:
        self.settings, self.app = settings, app
        self.metrics, self.assembly = Metrics(), Assembly()
        self.store = UserStore(settings.data_dir / "state" / settings.app_id)
        self.changelog = Changelog(settings)
        self.registry = ConfluentRegistry(settings.registry())
        self.tasks = [exploring_task(settings, name) for name in settings.tasks]
        self.names = make_names(settings, self.tasks)
        self.intake = app.intake(*settings.topics.inputs)
        self.entity_worker = EntityWorker(settings, app)
        self.reporter = Reporter(settings, app, self.assembly, self.intake, self.metrics)
        self.asking = Asking(settings, app, self.tasks, self.metrics)
        self._sending: Sender | None = None
        self._handover: Handover | None = None
        self._ready = asyncio.Event()
        self._background: set[asyncio.Future[None]] = set()
        app.on_release(self.asking.release)

    # -- start and stop --------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Everything beside the app: health first, then what scoring stands on, then the loops. Until cancelled."""
        limit = self.settings.watchdog_s
        pulse = Pulse(asyncio.get_running_loop().call_soon_threadsafe)
        watch = Watch(self.reporter, Watchdog(limit), time.monotonic, pulse)
        largest = self.settings.max_message_bytes
        pages = application(self.reporter, self.metrics, limit, more=self.asking, largest=largest)
        try:
            async with Server(pages, self.settings.web) as server:
                log.info("health and metrics on %s:%d", self.settings.web.host, server.port)
                self.asking.listening(server.port)
                watch.start()
                await self._guarded(self._assemble())
                await asyncio.Event().wait()
        finally:
            for part in list(self._background):
                part.cancel()
            if self._handover is not None:
                await self._handover.settled(STEP_S)
            if self._sending is not None:
                await self._sending.close()
            await self.asking.close()
            watch.stop()

    async def ready(self, serving: "asyncio.Future[None]") -> None:
        """Returns when it can score, and may join the group: who joins before holds partitions that nobody scores,
        and every rebalance up. Raises what ended `serving`.
        """
        ready = asyncio.ensure_future(self._ready.wait())
        ended: list[asyncio.Future[Any]] = [serving, ready]
        try:
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if serving.done():
            serving.result()

    async def _assemble(self) -> None:
        settings, loop = self.settings, asyncio.get_running_loop()

        def crash(error: BaseException) -> None:
            loop.call_soon_threadsafe(self._crash, error)

        scorer = await self.assembly.build(
            settings, self.registry, self.tasks, self.names, self.store, self.metrics,
            on_failure=crash, stagger=self._stagger,
        )  # fmt: skip
        await until_it_works("the schema registry", self.entity_worker.ready, self.registry)
        encoders = await until_it_works("the schema registry", self.asking.encoders, self.registry)
        self.sender = self._sending = sender = await until_it_works(
            "the broker", make_sender, settings, self.app, self.names, self.metrics
        )
        self.flusher = Flusher(self.intake, scorer.state, self.changelog, self.store, self.metrics, self.names.inputs)
        assert self.assembly.feed is not None
        assert self.assembly.live is not None
        assert self.assembly.shadows is not None
        asker = self.asking.begin(
            scorer, self.assembly.engines, sender.fast, encoders, self.assembly.shadows.after, self.assembly.traces
        )
        self.loop = Loop(
            self.intake, scorer, self.sender, self.assembly.engines, self.metrics,
            self.assembly.feed, self.assembly.live, self.assembly.shadows,
            resume=self.flusher.resume, in_flight=settings.batch.in_flight, spawn=self._spawn,
            traces=self.assembly.traces,
        )  # fmt: skip
        self.flusher.absorbed = self.loop.position
        self._handover = handover = Handover(
            settings, self.app, scorer, self.flusher, self.loop, sender, self.changelog, self.store,
            self.entity_worker, self.asking, self.reporter, spawn=self._spawn,
        )  # fmt: skip
        self.reporter.flusher, self.reporter.loop = self.flusher, self.loop
        for part in (
            self.loop.run(),
            self.loop.unpark(),
            sender.run(),
            asker.run(),
            self._flush(),
            self._report(),
            self.entity_worker.run(sender.patient),
            self.assembly.live.run(),
            self.assembly.shadows.run(sender.patient),
            self._forgetting(scorer, handover).run(),
        ):
            self._spawn(part)
        gc.collect()
        gc.freeze()  # what is made by now stays: no collection need look at it again
        self._ready.set()

    def _forgetting(self, scorer: Scorer, handover: Handover) -> Forgetting:
        forgotten = self.assembly.forgotten
        assert forgotten is not None
        self.changelog.forgotten_at = lambda partition: forgotten.entries.newest(STATE, partition)
        self.entity_worker.forgotten_at = lambda: forgotten.entries.deleted_at
        return Forgetting(
            scorer.state, self.store, self.flusher,
            erasures=lambda: forgotten.erasures, put=forgotten.put,
            settled=self.intake.settled, revocations=lambda: handover.revocations, caches=scorer.answers.forget_user,
        )  # fmt: skip

    def close(self) -> None:
        """After the app has stopped."""
        self.assembly.close()
        self.changelog.close()
        self.store.close()
        self.entity_worker.close()
        self.registry.close()

    def _stagger(self) -> float:
        """Seconds: the workers swap one after another, each in the place of its lowest partition."""
        lowest = min(tuple(self.flusher.owned), default=0) if self._ready.is_set() else 0
        return self.settings.swap.stagger_s * lowest / self.settings.partitions

    # -- loops -----------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        for turn in count():
            await asyncio.sleep(self.settings.state.flush_interval_s / TURNS)
            await self.flusher.flush(self.app.batches, self.sender.ends, turn)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self.reporter.report()

    def _spawn(self, part: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(self._guarded(part))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _guarded(self, part: Awaitable[None]) -> None:
        """Any failure of a part is the worker's."""
        try:
            await part
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  whatever it was, it ends the process
            self._crash(error)

    def _crash(self, error: BaseException) -> None:
        # A metric would end with the process before anybody read it: what ends workers is counted from the log.
        log.critical("the worker ends: %s", error, extra={"kind": type(error).__name__})
        self.app._crash(error)
