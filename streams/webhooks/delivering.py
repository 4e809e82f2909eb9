"""One endpoint's alerts, from the topic to its answer: read, posted, tried again, committed, until stopped.
Nothing here waits for another endpoint.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from schemas.errors import BadRecord, HeadraceError
from schemas.wire import Decoder
from streams.config import Settings
from streams.config_sections import Endpoint
from streams.notices import Notices
from streams.patience import RETRY_S
from streams.webhooks.body import delivery, wanted
from streams.webhooks.breaker import Breaker
from streams.webhooks.failures import FailureWriter, failure_record
from streams.webhooks.metrics import WebhookMetrics
from streams.webhooks.policy import Answer, Policy
from streams.webhooks.schedule import Delivery, Schedule
from streams.webhooks.sender import Sender
from streams.webhooks.source import Source, Taken

log = logging.getLogger(__name__)

DRAIN_S = 5.0  # how long attempts that run may take when partitions go
READ_AT_ONCE = 200
LOOK_S = 60.0
LAG_S = 5.0


class Delivering:
    """Used from one event loop: `run` until `stop`."""

    def __init__(
        self,
        settings: Settings,
        endpoint: Endpoint,
        secrets: Sequence[bytes],
        decode: Decoder,
        failures: FailureWriter,
        metrics: WebhookMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = endpoint.name
        self._settings, self._endpoint, self._decode = settings, endpoint, decode
        self._failures, self._metrics, self._clock = failures, metrics, clock
        webhooks = settings.webhooks
        self._policy = Policy(webhooks.retry_for_s, webhooks.retry_most_s)
        self._breaker = Breaker()
        self._sender = Sender(endpoint, secrets, webhooks.timeout_s, webhooks.in_flight)
        self._notices = Notices(log)
        self._wake, self._room, self._stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._attempts: set[asyncio.Task[None]] = set()
        self._fault: BaseException | None = None
        self._leaving = False
        self._schedule = self._new_schedule()
        self._source: Source | None = None
        self._last = ""
        metrics.begin(self.name)

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Raises SettingsError; what passes by itself is waited for."""
        try:
            while not self._stopping.is_set():
                try:
                    await self._membership()
                except HeadraceError as error:
                    if not error.retriable:
                        raise
                    self._notices.say(self.name, f"waits: {error}")
                    await self._pause(RETRY_S)
        finally:
            await self._sender.aclose()

    def state(self) -> dict[str, Any]:
        """For people and probes."""
        return {
            "endpoint": self.name,
            "partitions": self._source.partitions if self._source else 0,
            "waiting": self._schedule.unfinished,
            "in_flight": self._schedule.flying,
            "open": self._breaker.open,
            "last_answer": self._last,
        }

    # -- one membership of the group

    async def _membership(self) -> None:
        group = f"{self._settings.app_id}-webhooks-{self.name}"
        source = self._source = Source(self._settings, group, self._decode, self._leave)
        parts: list[asyncio.Task[Any]] = []
        try:
            await source.start()
            loops = self._stopping.wait(), self._reading(source), self._sending(source), self._committing(source)
            parts = [asyncio.create_task(each) for each in loops]
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await self._leave()
            try:
                await source.commit()
            except HeadraceError as error:
                log.warning("%s: not committed, so some is posted again: %s", self.name, error)
            await source.stop()

    async def _leave(self) -> None:
        """No more attempts; what runs may end, or is cut off and made again by who has the partitions next."""
        self._leaving = True
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=DRAIN_S)
        for attempt in self._attempts:
            attempt.cancel()
        await asyncio.gather(*self._attempts, return_exceptions=True)
        self._schedule, self._leaving = self._new_schedule(), False
        self._room.set()
        self._wake.set()

    async def _reading(self, source: Source) -> None:
        while True:
            room = self._settings.webhooks.waiting - self._schedule.unfinished
            if room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            for taken in await source.take(min(room, READ_AT_ONCE)):
                self._accept(taken, source)

    def _accept(self, taken: Taken, source: Source) -> None:
        if taken.alert is None:  # an alert that was deleted
            source.finished(taken.place)
            return
        if isinstance(taken.alert, BadRecord):
            self._notices.say(f"{self.name}, an alert is passed over", f"{taken.alert} ({taken.place})")
        elif wanted(self._endpoint, taken.alert):
            found = delivery(self.name, taken.alert, taken.value, taken.place, taken.appended_ms)
            self._schedule.add(found, self._clock())
            self._wake.set()
            return
        source.finished(taken.place)
        self._metrics.passed_over.labels(self.name).inc()

    async def _sending(self, source: Source) -> None:
        while True:
            self._wake.clear()
            if self._fault is not None:
                raise self._fault
            now = self._clock()
            while not self._leaving and (due := self._schedule.next(now)) is not None:
                attempt = asyncio.create_task(self._attempt(due, source))
                self._attempts.add(attempt)
                attempt.add_done_callback(self._ended)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, max(0.0, self._schedule.wakes_at() - now))):
                    await self._wake.wait()

    def _ended(self, attempt: asyncio.Task[None]) -> None:
        self._attempts.discard(attempt)
        if not attempt.cancelled() and (fault := attempt.exception()) is not None:
            self._fault = fault
        self._wake.set()
        self._room.set()

    async def _attempt(self, due: Delivery, source: Source) -> None:
        due.first_ms = due.first_ms or _now_ms()
        try:
            answer = await self._sender.post(due)
        except asyncio.CancelledError:
            self._schedule.abandon(due)
            raise
        outcome = self._schedule.answered(due, answer, self._clock())
        self._last = answer.reason
        if outcome == "again":
            self._metrics.retried.labels(self.name).inc()
            self._notices.say(f"{self.name}, an attempt failed", f"{answer.reason}; it is made again")
            return
        if outcome == "failed":
            await self._give_up(due, answer)
        else:
            self._metrics.delivered.labels(self.name).inc()
            self._metrics.seconds.labels(self.name).observe(max(0.0, (_now_ms() - due.appended_ms) / 1000))
        self._schedule.finish(due, self._clock())
        source.finished(due.place)

    async def _give_up(self, due: Delivery, answer: Answer) -> None:
        await self._failures.write(failure_record(self.name, due, answer, _now_ms()))
        self._metrics.failed.labels(self.name).inc()
        what = f"order {due.order_id} after {due.attempts} attempts, {answer.reason}; `headrace webhooks failed` has it"
        self._notices.say(f"{self.name}, given up", what)

    async def _committing(self, source: Source) -> None:
        looked = -LAG_S
        while True:
            await source.commit()
            self._metrics.waiting.labels(self.name).set(self._schedule.unfinished)
            self._metrics.open.labels(self.name).set(self._breaker.open)
            if self._clock() - looked >= LAG_S:
                looked = self._clock()
                self._metrics.lag.labels(self.name).set(await source.lag())
                self._notices.flush()
            await asyncio.sleep(self._settings.commit_interval_s)

    def _new_schedule(self) -> Schedule:
        return Schedule(self._policy, self._breaker, self._settings.webhooks.in_flight, random.random)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
