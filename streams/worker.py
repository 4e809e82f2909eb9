"""The worker: takes micro-batches, scores them, sends what follows, and keeps its state where a successor finds it.
A failure of any part ends the process with its inputs uncommitted; nothing here restarts in place.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from faust.types import TP

from schemas.confluent import ConfluentRegistry
from schemas.errors import RegistryUnavailable
from schemas.wire import Decoder
from streams.app import App, check_topics, make_app, until_stopped
from streams.catalog import Catalogue
from streams.changelog import Changelog, Frontier
from streams.codecs import make_codecs, make_names
from streams.compacted import Compacted
from streams.config import Settings
from streams.deadletters import carried_bytes
from streams.entities import EntityView
from streams.entity_worker import EntityWorker
from streams.health import Pulse, Status, Track, Watch, Watchdog
from streams.intake import Intake, MicroBatch
from streams.live import CatalogueFeed, LiveReleases
from streams.metrics import Metrics
from streams.outputs import Counts
from streams.producer import Acknowledged, Output, Producer
from streams.restore import Recovery, until_it_works
from streams.scoring import Scorer
from streams.state import UserState
from streams.store import UserStore
from streams.tasks import make_task
from streams.web import Server, application
from streams.work import Outgoing, Work

log = logging.getLogger(__name__)

UNPARK_S = 1.0
START_TIMEOUT_S = 60.0


def run(settings: Settings) -> None:
    """Runs one worker until SIGTERM or SIGINT. Raises what ended it: the caller exits non-zero."""
    check_topics(settings, settings.topics.inputs, together=True)
    asyncio.run(_main(settings))


async def _main(settings: Settings) -> None:
    worker = Worker(settings, make_app(settings))
    beside = asyncio.ensure_future(worker.serve())
    try:
        await until_stopped(worker.app)
    finally:
        beside.cancel()
        await asyncio.wait([beside])
        worker.close()


class Worker:
    """One process's share of the partitions. All methods run on the app's event loop unless they say otherwise."""

    def __init__(self, settings: Settings, app: App) -> None:
        self.settings, self.app = settings, app
        self.metrics = Metrics()
        self.catalog = Catalogue()
        self.store = UserStore(settings.data_dir / "state" / settings.app_id)
        self.changelog = Changelog(settings)
        self.registry = ConfluentRegistry(settings.registry())
        self.names = make_names(settings, tasks := [make_task(name) for name in settings.tasks])
        self.tasks = tasks
        self.engines = ThreadPoolExecutor(1, "engines")
        self.builds = ThreadPoolExecutor(1, "builds")
        self.intake: Intake = app.intake(*settings.topics.inputs)
        self.entity_worker = EntityWorker(settings, app)
        self.scorer: Scorer | None = None
        self.producer: Producer | None = None
        self._resume: dict[TP, int] = {}
        self._read: dict[TP, int] = {}
        self._scored: dict[str, dict[int, int]] = {task.name: {} for task in tasks}
        self._owned: set[int] = set()
        self._recovering: set[int] = set()
        self._missing = ["the worker is starting"]
        self._flushing = asyncio.Lock()
        self._slots_free = asyncio.Semaphore(settings.batch.in_flight)
        self._background: set[asyncio.Future[Any]] = set()
        self._closers: list[Callable[[], None]] = [self.engines.shutdown, self.builds.shutdown, self.changelog.close]
        app.on_assigned(self.restore)
        self._ready = asyncio.Event()

    # -- start -----------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Everything beside the app: health first, then what scoring stands on, then the loops. Until cancelled."""
        loop = asyncio.get_running_loop()
        watch = Watch(self, Watchdog(self.settings.watchdog_s), time.monotonic, Pulse(loop.call_soon_threadsafe))
        page = application(self, self.metrics, self.settings.watchdog_s)
        async with Server(page, self.settings.web) as server:
            log.info("health and metrics on %s:%d", self.settings.web.host, server.port)
            watch.start()
            self._closers.append(watch.stop)
            await self._guard(self._prepare())
            if not self._ready.is_set():
                return
            for part in (self._score(), self._flush_always(), self._unpark_always(), self._report_always()):
                self._spawn(part)
            assert self.producer is not None
            self._spawn(self.entity_worker.run(self.producer))
            try:
                await asyncio.Event().wait()
            finally:
                for part in list(self._background):
                    part.cancel()
                await self.producer.close(abandon=True)

    async def _prepare(self) -> None:
        """Registry, catalogue, engines: whatever is away is waited for, and said."""
        settings = self.settings
        codecs = await until_it_works("the registry", make_codecs, self.registry, self.names, self.tasks)
        await until_it_works("the registry", self.entity_worker.ready, self.registry)
        self._missing = ["the catalogue is being read"]
        feed = CatalogueFeed(settings, self.registry, self.catalog)
        self._closers.append(feed.stop)
        await until_it_works("the catalogue", feed.wait_current, START_TIMEOUT_S)
        feed.drain()
        entities = EntityView(Decoder(self.registry, "entity_state"))
        view = Compacted(settings, settings.topics.entity_state, entities.apply)
        self._closers.append(view.stop)
        await until_it_works("shared entities", view.wait_current, START_TIMEOUT_S)
        self._missing = []
        loop = asyncio.get_running_loop()
        self.live = LiveReleases(
            settings, self.registry, settings.tasks, self.catalog, engines=self.engines, builds=self.builds,
            on_failure=lambda error: loop.call_soon_threadsafe(self.app._crash, error),
        )  # fmt: skip
        self._closers.append(self.live.stop)
        await until_it_works("releases", self.live.wait_current, START_TIMEOUT_S)
        while self.live.cold:
            await asyncio.sleep(0.05)
        self.feed = feed
        state = settings.state
        self.scorer = Scorer(
            self.tasks, self.live.slots, codecs, self.names,
            UserState(slots=state.slots, store=self.store, dedupe_per_user=state.dedupe_per_user),
            self.catalog, entities,
            partitions=settings.partitions, max_message_bytes=settings.max_message_bytes,
            deadlines_ms={task.name: settings.deadline_ms(task.name) for task in self.tasks},
            carried_bytes=carried_bytes(settings),
        )  # fmt: skip
        self.producer = Producer(settings, lease=self.app.lease)
        self._ready.set()

    # -- rebalance -------------------------------------------------------------------------------------------

    async def restore(self, assigned: set[TP], kept: set[TP]) -> None:
        """Before records flow: brings the state of new partitions up, and lets go of the others."""
        if (await self.app.wait(self._ready)).stopped:
            return
        assert self.scorer is not None
        inputs = set(self.names.inputs)
        mine = {tp.partition for tp in assigned if tp.topic in inputs}
        current = {tp.partition for tp in kept if tp.topic in inputs} & self._owned
        async with self._flushing:
            gone = self._owned - current
            self.scorer.state.drop(gone)
            for partition in gone:
                self.changelog.release(partition)
                self.store.close(partition)
            self._owned = current
            self._recovering = mine - current
            for partition in sorted(mine - current):
                await self._recover(partition)
            self._owned, self._recovering = mine, set()
            await self.entity_worker.restore(assigned, kept)

    async def _recover(self, partition: int) -> None:
        assert self.scorer is not None
        recovery = Recovery(self.settings, self.scorer, self.changelog, self.store)
        restored = await until_it_works(f"recovery of partition {partition}", recovery.run, partition, _now_ms())
        for topic, offset in zip(self.names.inputs, restored.resume, strict=True):
            self._resume[TP(topic, partition)] = self._read[TP(topic, partition)] = offset
        for task, offset in restored.scores.items():
            self._scored[task][partition] = offset
        self._owned.add(partition)
        if restored.window is not None:
            await self._say(restored.window)

    # -- scoring ---------------------------------------------------------------------------------------------

    async def _score(self) -> None:
        """Take a micro-batch, absorb and score it, send what follows; the next one is computed while that is sent."""
        await self._ready.wait()
        while True:
            batch = await self.intake.take()
            if self.feed.drain():
                self.live.refresh()
            work = self._prepared(batch)
            if work is None:
                batch.done()
                continue
            await self._infer(work)
            batch.computed()
            await self._slots_free.acquire()
            self._spawn(self._finish(batch, work))

    def _prepared(self, batch: MicroBatch) -> Work | None:
        """Decodes and absorbs; parks the partitions whose schema cannot be asked for now."""
        assert self.scorer is not None
        started = time.perf_counter()
        parts = []
        for part in batch.parts:
            topic = self.names.inputs.index(part.tp.topic)
            resume = self._resume.get(part.tp, 0)
            records = part.records
            if records and records[0].offset < resume:  # scored already, by recovery
                records = [record for record in records if record.offset >= resume]
            try:
                decoded = self.scorer.decode(topic, records)
            except RegistryUnavailable as error:
                log.warning("%s[%d] waits: %s", part.tp.topic, part.tp.partition, error)
                self.intake.park(part, 0)
                continue
            self._read[part.tp] = part.records[-1].offset + 1
            parts.append((topic, records, decoded))
        if not parts:
            return None
        decoded_at = time.perf_counter()
        work = self.scorer.prepare(parts, _now_ms())
        self.metrics.decode.observe(decoded_at - started)
        self.metrics.absorb.observe(time.perf_counter() - decoded_at)
        self.metrics.batch_events.observe(len(batch))
        return work

    async def _infer(self, work: Work) -> None:
        assert self.scorer is not None
        started = time.perf_counter()
        await asyncio.get_running_loop().run_in_executor(self.engines, self.scorer.infer, work)
        self.metrics.infer.observe(time.perf_counter() - started)

    async def _say(self, work: Work) -> None:
        """Scores a window and sends its two waves; returns when all is acknowledged."""
        assert self.scorer is not None
        await self._infer(work)
        await self._send_all(*self.scorer.outputs.waves(work))

    async def _finish(self, batch: MicroBatch, work: Work) -> None:
        assert self.scorer is not None
        try:
            started = time.perf_counter()
            first, second = self.scorer.outputs.waves(work)
            encoded = time.perf_counter()
            self.metrics.encode.observe(encoded - started)
            await self._send_all(first, second, work)
            self.metrics.produce.observe(time.perf_counter() - encoded)
            batch.done()
        finally:
            self._slots_free.release()

    async def _send_all(self, first: list[Outgoing], second: list[Outgoing], work: Work | None = None) -> None:
        """`served`, alerts and touches follow the acknowledged scores: see Scorer.outputs."""
        for topic, acknowledged in await self._send(first):
            for task, name in self.names.scores.items():
                if name == topic:
                    for (_, partition), offset in acknowledged.items():
                        ends = self._scored[task]
                        ends[partition] = max(ends.get(partition, 0), offset + 1)
        if work is not None:
            self._observe(work)
        await self._send(second)

    async def _send(self, outgoing: Iterable[Outgoing]) -> list[tuple[str, Acknowledged]]:
        assert self.producer is not None
        by_topic: defaultdict[str, list[Output]] = defaultdict(list)
        for record in outgoing:
            by_topic[record.topic].append((record.key, record.value, record.partition, record.headers))
        futures = [self.producer.send(topic, outputs) for topic, outputs in by_topic.items()]
        return list(zip(by_topic, await asyncio.gather(*futures), strict=True))

    # -- state -----------------------------------------------------------------------------------------------

    async def _flush_always(self) -> None:
        while True:
            await asyncio.sleep(self.settings.state.flush_interval_s)
            await self.flush()

    async def flush(self) -> None:
        """Barrier, commit, copy, resume; then the copies are written. Saved state never passes the committed offset."""
        assert self.scorer is not None
        async with self._flushing:
            state, started = self.scorer.state, time.perf_counter()
            owned = [partition for partition in self._owned if state.dirty(partition)]
            if not owned:
                return
            await self.intake.drain()
            try:
                if not await self.app.batches.commit_now():
                    return  # a rebalance is on: who gets the partitions replays from the older frontier
                frontiers = {partition: self._frontier(partition) for partition in owned}
                snapshot = state.snapshot(owned)
            finally:
                self.intake.resume()
            for partition, frontier in frontiers.items():
                await asyncio.to_thread(self._write, partition, list(snapshot.records(partition)), frontier)
            state.saved(snapshot)
            self.metrics.flush_seconds.observe(time.perf_counter() - started)
            self.metrics.flushed_rows.inc(len(snapshot))

    def _write(self, partition: int, records: list[tuple[bytes, bytes]], frontier: Frontier) -> None:
        position = self.changelog.flush(partition, records, frontier)
        self.store.write(partition, records, position)

    def _frontier(self, partition: int) -> Frontier:
        committed = self.app.batches.committed()
        places = [TP(topic, partition) for topic in self.names.inputs]
        inputs = tuple(max(committed.get(tp, 0), self._resume.get(tp, 0)) for tp in places)
        scores = {task: ends.get(partition, 0) for task, ends in self._scored.items()}
        return Frontier(inputs, scores, _now_ms())

    # -- health ----------------------------------------------------------------------------------------------

    def status(self) -> Status:
        """From the watchdog's thread: reads only."""
        consumer = self.app.consumer
        assigned = list(self._read)
        parked = self.intake.parked
        tracks = []
        for tp in assigned:
            end = consumer.highwater(tp) if consumer is not None and tp.partition in self._owned else None
            tracks.append(Track(f"{tp.topic}[{tp.partition}]", self._read[tp], end, tp in parked))
        slots = self.live.slots if self._ready.is_set() else {}
        return Status(
            assigned=bool(self._owned) or bool(self._recovering),
            recovering=tuple(sorted(self._recovering)),
            cold=() if self._ready.is_set() else tuple(self.settings.tasks),
            unreachable=tuple(self._missing),
            stopping=bool(self.app.should_stop),
            tracks=tuple(tracks),
            releases={task: slot.live.release for task, slot in slots.items()},
        )

    def _observe(self, work: Work) -> None:
        import numpy as np

        now = _now_ms()
        for job in work.jobs:
            age = np.array([now - work.raw[i].timestamp for i in job.index]) / 1000
            self.metrics.latency.observe(job.task.name, age)

    async def _report_always(self) -> None:
        """Counters are added up in the loop and told once a second."""
        while True:
            await asyncio.sleep(1.0)
            self._report()

    def _report(self) -> None:
        assert self.scorer is not None
        counts, metrics = self.scorer.outputs.counts, self.metrics
        self.scorer.outputs.counts = Counts()
        for code, count in counts.dead.items():
            metrics.dead_letters.labels(code).inc(count)
        for task, count in counts.scored.items():
            metrics.scores.labels(task).inc(count)
        for task, count in counts.late.items():
            metrics.late.labels(task).inc(count)
        for task, count in counts.fallback.items():
            metrics.fallbacks.labels(task, "deadline").inc(count)
        metrics.duplicates.inc(counts.duplicates)
        status = self.status()
        metrics.set_parked(self.intake.parked)
        metrics.set_releases(
            {task: (slot.live.release, slot.live.engine_name) for task, slot in self.live.slots.items()}
        )
        metrics.users.set(len(self.scorer.state))
        del status

    # -- tasks -----------------------------------------------------------------------------------------------

    async def _unpark_always(self) -> None:
        while True:
            await asyncio.sleep(UNPARK_S)
            for tp in self.intake.parked:
                self.intake.unpark(tp)

    def _spawn(self, part: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(self._guard(part))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _guard(self, part: Awaitable[Any]) -> None:
        """Any failure of a part is the worker's: it stops, uncommitted."""
        try:
            await part
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  whatever it was, it ends the process
            log.critical("the worker ends: %s", error)
            self.app._crash(error)

    def close(self) -> None:
        """After the app has stopped."""
        for close in reversed(self._closers):
            close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
