"""Whose turn it is with the engines: inference, flips and new tables, one at a time and in the order asked.
A small batch runs where it is asked for: handing it to a thread and back costs more than it takes."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SHORT_S = 0.002  #: what is expected to take less holds the event loop up
_FIRST_S = 1e-4  # of one event, before any was timed
_NEWEST = 8


class Turns:
    """`submit` from any thread, `run` from one event loop."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "engines")
        self._turn, self._counting = Lock(), Lock()
        self._asking = asyncio.Lock()
        self._submitted = 0
        self._took: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_NEWEST))

    def submit(self, job: Callable[[*Ts], T], *args: *Ts) -> Future[T]:
        """Runs it on the engines' thread, after what was submitted before."""
        with self._counting:
            self._submitted += 1
        return self._thread.submit(self._take, partial(job, *args))

    async def run(self, job: Callable[[*Ts], T], *args: *Ts, events: int) -> T:
        """The result of a job over so many events, in the loop if it is expected to be short there.

        Who finds another job of this loop under way waits for its end, not for the thread: else one long job would
        send the next there, that one the next, and under load all of them, each at the price of two changes of thread.
        """
        async with self._asking:
            if self._submitted or not self._short(events) or not self._turn.acquire(blocking=False):
                return await asyncio.wrap_future(self.submit(self._timed, job, args, events))
            try:
                return self._timed(job, args, events)
            finally:
                self._turn.release()

    async def run_aside(self, job: Callable[[*Ts], T], *args: *Ts) -> T:
        """The result of a job that nobody waits for with an event: on the engines' thread, however short."""
        async with self._asking:
            return await asyncio.wrap_future(self.submit(job, *args))

    def close(self) -> None:
        """Returns when all is done that was submitted."""
        self._thread.shutdown()

    def _short(self, events: int) -> bool:
        """By the quickest of the newest jobs of about this size: the others were kept waiting for the processor."""
        took = self._took.get(events.bit_length())
        return (min(took) if took else events * _FIRST_S) < SHORT_S

    def _timed(self, job: Callable[[*Ts], T], args: tuple[*Ts], events: int) -> T:
        started = self._clock()
        try:
            return job(*args)
        finally:
            self._took[events.bit_length()].append(self._clock() - started)

    def _take(self, job: Callable[[], T]) -> T:
        try:
            with self._turn:
                return job()
        finally:
            with self._counting:
                self._submitted -= 1
