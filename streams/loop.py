"""The scoring loop: take a micro-batch, absorb and score it, send what follows; while that is sent, the next one.
It acknowledges an input when everything it caused is acknowledged, and holds partitions whose schema is not known yet.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from faust.types import TP

from engines.turns import Turns
from schemas.errors import RegistryUnavailable
from streams.alerts import raised
from streams.intake import Intake, MicroBatch
from streams.live import CatalogueFeed, LiveReleases
from streams.metrics import Metrics
from streams.notices import Notices
from streams.scoring import Scorer
from streams.sender import Positions, Sender
from streams.shadow import Shadows
from streams.work import Outgoing, Work

if TYPE_CHECKING:
    from streams.telemetry.spans import Traces

log = logging.getLogger(__name__)

UNPARK_S = 1.0


class Loop:
    """`resume` is where recovery left each input: what comes before was scored by it. `position`: what is read next."""

    def __init__(
        self,
        intake: Intake,
        scorer: Scorer,
        sender: Sender,
        engines: Turns,
        metrics: Metrics,
        feed: CatalogueFeed,
        live: LiveReleases,
        shadows: Shadows,
        *,
        resume: Mapping[TP, int],
        in_flight: int,
        traces: "Traces | None" = None,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._intake, self._scorer, self._sender, self._engines = intake, scorer, sender, engines
        self._metrics, self._feed, self._live, self._resume = metrics, feed, live, resume
        self._shadows, self._traces = shadows, traces
        self._spawn, self._free = spawn, asyncio.Semaphore(in_flight)
        self._topics = {name: number for number, name in enumerate(scorer.names.inputs)}
        self._notices = Notices(log)
        self.position: dict[TP, int] = {}
        self.newest: dict[str, int] = {}  # event time in ms, by topic

    async def run(self) -> None:
        """Until cancelled. Raises what makes going on wrong: ProduceFailed, Fenced, StateError."""
        while True:
            batch = await self._intake.take()
            if self._feed.drain():
                self._live.refresh()
            work = self._prepared(batch)
            if work is None:
                batch.done()
                continue
            await self.infer(work)
            batch.computed()
            await self._free.acquire()
            self._spawn(self._finish(batch, work))

    async def unpark(self) -> None:
        """Tries held partitions again, once a second."""
        while True:
            await asyncio.sleep(UNPARK_S)
            for tp in self._intake.parked:
                self._intake.unpark(tp)
            self._notices.flush()
            self._scorer.outputs.notices.flush()

    async def infer(self, work: Work) -> None:
        """A long one on the engines' thread: the event loop goes on fetching and acknowledging meanwhile."""
        started = time.perf_counter()
        await self._engines.run(self._scorer.infer, work, events=len(work.events))
        self._metrics.infer.observe(lasted := time.perf_counter() - started)
        if work.trace is not None:
            work.trace.stage("infer", lasted)

    async def say(self, work: Work, resume: Mapping[TP, int]) -> None:
        """Scores what recovery prepared, up to `resume`; returns when all of it is acknowledged."""
        if self._traces is not None:
            work.trace = self._traces.begin(work, 0)
        await self.infer(work)
        scored = work.trace.scored if work.trace is not None else lambda: None
        await self._send(work, *self._scorer.outputs.waves(work), scored, lambda: resume)
        self._shadows.after(work)

    def _prepared(self, batch: MicroBatch) -> Work | None:
        """Decoded and absorbed; None if every part is held, or was scored before."""
        started = time.perf_counter()
        parts = []
        for part in batch.parts:
            topic, resume, records = self._topics[part.tp.topic], self._resume.get(part.tp, 0), part.records
            if records[0].offset < resume:
                records = [record for record in records if record.offset >= resume]
            try:
                decoded = self._scorer.decode(topic, records)
            except RegistryUnavailable as error:
                self._notices.say(f"{part.tp.topic}[{part.tp.partition}] waits", str(error))
                self._intake.park(part, 0)
                continue
            self.position[part.tp] = part.records[-1].offset + 1
            self._metrics.events.labels(part.tp.topic).inc(len(records))
            if records:
                parts.append((topic, records, decoded))
        if not parts:
            return None
        decoded_at = time.perf_counter()
        work = self._scorer.prepare(parts, time.time_ns() // 1_000_000)
        if self._traces is not None:
            work.trace = self._traces.begin(work, time.perf_counter() - started)
        for number, name in enumerate(self._scorer.names.inputs):
            if (of_topic := work.batch.topic == number).any():
                self.newest[name] = max(self.newest.get(name, 0), int(work.batch.time[of_topic].max()))
        self._metrics.decode.observe(decoded_at - started)
        self._metrics.absorb.observe(time.perf_counter() - decoded_at)
        self._metrics.batch_events.observe(len(batch))
        return work

    async def _finish(self, batch: MicroBatch, work: Work) -> None:
        try:
            started = time.perf_counter()
            first, second = self._scorer.outputs.waves(work)
            encoded = time.perf_counter()
            self._metrics.encode.observe(encoded - started)
            await self._send(work, first, second, lambda: self._scored(work, encoded), lambda: self._reached(batch))
            batch.done()
            self._metrics.ack.observe(time.perf_counter() - encoded)
            self._shadows.after(work)
            self._scorer.compare(work)
        finally:
            self._free.release()

    def _reached(self, batch: MicroBatch) -> dict[TP, int]:
        """Never less than `resume`: what recovery has said is read."""
        return {tp: max(offset, self._resume.get(tp, 0)) for tp, offset in batch.reached().items()}

    async def _send(
        self,
        work: Work,
        first: list[Outgoing],
        second: list[Outgoing],
        scored: Callable[[], None],
        positions: Positions,
    ) -> None:
        """Alerts are explained while the scores are on their way: no score waits for that."""
        if not any(map(raised, work.jobs)):
            await self._sender.send(first, second, scored, None, positions)
        else:
            alerts = asyncio.ensure_future(self._alerts(work))
            try:
                await self._sender.send(first, second, scored, alerts, positions)
            finally:
                alerts.cancel()
        if work.trace is not None:
            work.trace.end()

    async def _alerts(self, work: Work) -> list[Outgoing]:
        started = time.perf_counter()
        for explanation in self._scorer.explanations(work):
            await self._engines.run_aside(explanation)
        self._metrics.explain.observe(lasted := time.perf_counter() - started)
        if work.trace is not None:
            work.trace.stage("explain", lasted)
        return self._scorer.outputs.alerts(work)

    def _scored(self, work: Work, sent_at: float) -> None:
        """The scores are acknowledged: how long that took, and how old the events are now."""
        self._metrics.produce.observe(lasted := time.perf_counter() - sent_at)
        if work.trace is not None:
            work.trace.stage("send", lasted)
            work.trace.scored()
        now = time.time_ns() // 1_000_000
        for job in work.jobs:
            stamped = np.fromiter((work.raw[at].timestamp for at in job.index.tolist()), np.int64, len(job.index))
            self._metrics.latency.observe(job.task.name, (now - stamped) / 1000)
