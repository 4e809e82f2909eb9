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
from typing import Any

from faust.types import TP

from schemas.confluent import ConfluentRegistry
from streams.app import App, check_topics, make_app, until_stopped
from streams.asking.service import Asking
from streams.assembly import Assembly
from streams.changelog import Changelog
from streams.codecs import make_names
from streams.config import Settings
from streams.entity_worker import EntityWorker
from streams.exploring import exploring_task
from streams.flush import Flusher
from streams.health import Pulse, Watch, Watchdog
from streams.loop import Loop
from streams.metrics import Metrics
from streams.offsets import bounds
from streams.privacy.entries import STATE
from streams.privacy.forgetting import Forgetting
from streams.reporting import Reporter
from streams.restore import Recovery, until_it_works
from streams.scoring import Scorer
from streams.sender import Sender
from streams.store import UserStore
from streams.transacted import make_sender
from streams.web import Server, application

log = logging.getLogger(__name__)

REPORT_S, CATCH_UP_S = 1.0, 0.02
#: A micro-batch makes thousands of short-lived dicts and no cycles: collecting at every 700 costs a third of the CPU.
GC_THRESHOLDS = (100_000, 50, 100)
#: How long a thread may keep the interpreter while another waits: the event loop must not wait 5 ms for a flush.
SWITCH_S = 0.0005
#: mallopt(3): how much freed memory stays with the process, and up to which size; glibc's own limit is 32 MiB.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES, LARGEST_KEPT = 256 << 20, 32 << 20


def run(settings: Settings) -> None:
    """Runs one worker until SIGTERM or SIGINT. Raises what ended it: the caller exits non-zero."""
    check_topics(settings, settings.topics.inputs, partitions=settings.partitions)
    gc.set_threshold(*GC_THRESHOLDS)
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
    worker = Worker(settings, make_app(settings))
    beside = asyncio.ensure_future(worker.serve())
    listening = asyncio.ensure_future(worker.listening.wait())
    try:
        await asyncio.wait([beside, listening], return_when=asyncio.FIRST_COMPLETED)
        if beside.done():
            beside.result()
        await until_stopped(worker.app)
    finally:
        listening.cancel()
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
        self.listening = asyncio.Event()
        self._sending: Sender | None = None
        self._ready = asyncio.Event()
        self._background: set[asyncio.Future[None]] = set()
        self._revocations = 0
        app.on_assigned(self.restore)
        app.on_partitions_revoked.connect(self._hold, weak=False)
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
                self.listening.set()
                watch.start()
                await self._guarded(self._assemble())
                await asyncio.Event().wait()
        finally:
            for part in list(self._background):
                part.cancel()
            if self._sending is not None:
                await self._sending.close()
            await self.asking.close()
            watch.stop()

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
        asker = self.asking.begin(scorer, self.assembly.engines, sender.fast, encoders, self.assembly.shadows.after)
        self.loop = Loop(
            self.intake, scorer, self.sender, self.assembly.engines, self.metrics,
            self.assembly.feed, self.assembly.live, self.assembly.shadows,
            resume=self.flusher.resume, in_flight=settings.batch.in_flight, spawn=self._spawn,
            traces=self.assembly.traces,
        )  # fmt: skip
        self.flusher.absorbed = self.loop.position
        self.recovery = Recovery(settings, scorer, self.changelog, self.store, self.reporter.progress)
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
            self._forgetting(scorer).run(),
        ):
            self._spawn(part)
        gc.collect()
        gc.freeze()  # what is made by now stays: no collection need look at it again
        self._ready.set()

    def _forgetting(self, scorer: Scorer) -> Forgetting:
        forgotten = self.assembly.forgotten
        assert forgotten is not None
        self.changelog.forgotten_at = lambda partition: forgotten.entries.newest(STATE, partition)
        self.entity_worker.forgotten_at = lambda: forgotten.entries.deleted_at
        return Forgetting(
            scorer.state, self.store, self.flusher,
            erasures=lambda: forgotten.erasures, put=forgotten.put,
            settled=self.intake.settled, revocations=lambda: self._revocations, caches=scorer.answers.forget_user,
        )  # fmt: skip

    def close(self) -> None:
        """After the app has stopped."""
        self.assembly.close()
        self.changelog.close()
        self.store.close()
        self.entity_worker.close()
        self.registry.close()

    # -- rebalance -------------------------------------------------------------------------------------------

    async def _hold(self, *_: Any, **__: Any) -> None:
        """Before partitions go: no flush begins, and one under way ends; else their next owner fences it, and us."""
        self._revocations += 1
        self.asking.own(())
        if self._ready.is_set():
            await self.flusher.hold()

    async def restore(self, assigned: set[TP], kept: set[TP]) -> None:
        """Before records flow: brings the state of new partitions up, and lets go of the others."""
        if (await self.app.wait(self._ready.wait())).stopped:
            return
        self.reporter.assigned = True
        self.asking.own(())
        flusher, inputs, revocations = self.flusher, set(self.names.inputs), self._revocations
        mine = {tp.partition for tp in assigned if tp.topic in inputs}
        current = {tp.partition for tp in kept if tp.topic in inputs} & flusher.owned
        async with flusher.lock:
            assert self.assembly.scorer is not None
            self.assembly.scorer.state.drop(flusher.owned - current)
            for partition in flusher.owned - current:
                self.changelog.release(partition)
                self.store.close(partition)
            flusher.owned = current
            for partition in sorted(mine - current):
                self.reporter.recovering = tuple(sorted(mine - flusher.owned))
                await self._recover(partition)
            self.reporter.recovering = ()
            flusher.held = self._revocations != revocations  # they go again
        await self.entity_worker.restore(assigned, kept)
        if not flusher.held:
            self.asking.own(current)
            self._spawn(self._catch_up(mine - current))

    async def _catch_up(self, partitions: set[int]) -> None:
        """Requests are answered for new partitions when what their topics hold by now is read: a predecessor's answer
        to the same event may be among it.
        """
        revocations = self._revocations
        places = [(topic, partition) for topic in self.names.inputs for partition in sorted(partitions)]
        found = await until_it_works("the ends of the input topics", bounds, self.settings, places)
        waiting = {TP(*place): end for place, (_, end) in found.items()}
        while self._revocations == revocations:
            waiting = {tp: end for tp, end in waiting.items() if not self.reporter.reached(tp, end)}
            if not waiting:
                self.asking.own(self.flusher.owned)
                return
            await asyncio.sleep(CATCH_UP_S)

    async def _recover(self, partition: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        restored = await until_it_works(f"partition {partition}", self.recovery.run, partition, now_ms)
        resume = {TP(topic, partition): at for topic, at in zip(self.names.inputs, restored.resume, strict=True)}
        self.flusher.resume.update(resume)
        self.loop.position.update(resume)
        for task, offset in restored.scores.items():
            self.sender.ends[task][partition] = offset
        if restored.window is not None:
            await self.loop.say(restored.window, resume)
        self.flusher.owned.add(partition)

    def _stagger(self) -> float:
        """Seconds: the workers swap one after another, each in the place of its lowest partition."""
        lowest = min(tuple(self.flusher.owned), default=0) if self._ready.is_set() else 0
        return self.settings.swap.stagger_s * lowest / self.settings.partitions

    # -- loops -----------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(self.settings.state.flush_interval_s)
            await self.flusher.flush(self.app.batches, self.sender.ends)

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
