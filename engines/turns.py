"""Whose turn it is with the engines: inference, flips and new tables, one at a time and in the order asked.
A small batch runs where it is asked for: handing it to a thread and back costs more than it takes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Turns:
    """`submit` from any thread, `run` from one event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "engines")
        self._turn, self._counting = Lock(), Lock()
        self._waiting = 0

    def submit(self, job: Callable[[*Ts], T], *args: *Ts) -> Future[T]:
        """Runs it on the engines' thread, after what was submitted before."""
        with self._counting:
            self._waiting += 1
        return self._thread.submit(self._take, partial(job, *args))

    async def run(self, job: Callable[[*Ts], T], *args: *Ts, here: bool) -> T:
        """The job's result. `here`: on the loop's own thread, which it holds up, unless others wait for their turn."""
        if here and not self._waiting and self._turn.acquire(blocking=False):
            try:
                return job(*args)
            finally:
                self._turn.release()
        return await asyncio.wrap_future(self.submit(job, *args))

    def close(self) -> None:
        """Returns when all is done that was submitted."""
        self._thread.shutdown()

    def _take(self, job: Callable[[], T]) -> T:
        try:
            with self._turn:
                return job()
        finally:
            with self._counting:
                self._waiting -= 1
