"""One shop under care: started, started again when it ends, ended when that is asked for.
No process and no clock is in here: both are arguments, and `step` is called again and again.
"""

import logging
import signal
from collections.abc import Callable
from typing import Literal, Protocol

from schemas.errors import SettingsError
from streams.shops.plan import Shop

log = logging.getLogger(__name__)

FIRST_S, MOST_S = 1.0, 60.0
"""Pauses before a start: the first, doubled by each end that follows, and the longest."""
STEADY_S = 60.0
"""Who ran so long is not one that fails at its start: the pauses begin anew."""
REFUSED_EXIT = 2  # settings, topics or schemas that cannot be used: nothing that a quick second try would mend
State = Literal["runs", "waits", "refused", "ended"]


class Child(Protocol):
    """A process. `poll` is its exit code, or None while it runs; a signal's is negative."""

    pid: int

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Kept:
    """All times are seconds of one steady clock that rises from call to call."""

    def __init__(self, name: str, read: Callable[[str], Shop], start: Callable[[Shop], Child], now: float) -> None:
        """`read` raises SettingsError where the shop cannot be served as it is set; `start` OSError."""
        self.name, self._read, self._start = name, read, start
        self.shop: Shop | None = None
        """As it was read last."""
        self.restarts = 0
        self.why = ""
        """Why it does not run, in words."""
        self._child: Child | None = None
        self._refused = self._stopping = False
        self._due, self._pause, self._since = now, FIRST_S, now
        self._killed_at = float("inf")

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    @property
    def state(self) -> State:
        if self._child is not None:
            return "runs"
        if self._stopping:
            return "ended"
        return "refused" if self._refused else "waits"

    def step(self, now: float) -> None:
        """Takes note of an end, starts what is due, and kills what was asked to end and does not."""
        if self._child is not None and (code := self._child.poll()) is not None:
            self._ended(code, now)
        if self._child is None and not self._stopping and now >= self._due:
            self._begin(now)
        if self._child is not None and now >= self._killed_at:
            self._say(logging.ERROR, "it did not end in time, and is killed: what it had not committed is read again")
            self._killed_at = float("inf")
            self._child.kill()

    def stop(self, now: float) -> None:
        """It is asked to end, and not started any more. A second time changes nothing."""
        if self._stopping:
            return
        self._stopping = True
        if self._child is not None:
            assert self.shop is not None
            self._killed_at = now + self.shop.patience_s
            self._child.terminate()

    def _begin(self, now: float) -> None:
        try:
            shop = self._read(self.name)
            child = self._start(shop)
        except (SettingsError, OSError) as error:
            again = str(error) == self.why
            self._wait(now, str(error), refused=isinstance(error, SettingsError))
            if not again:
                self._say(logging.ERROR, f"it is not served: {error}; tried again in {self._due - now:.0f} s")
            return
        self.shop, self._child, self._since = shop, child, now
        self._refused, self.why = False, ""
        self._say(logging.INFO, f"process {child.pid} serves it")

    def _ended(self, code: int, now: float) -> None:
        self._child = None
        ran_s = now - self._since
        if self._stopping:
            self._say(logging.INFO, f"its process ended with {words(code)}")
            return
        self.restarts += 1
        if ran_s >= STEADY_S:
            self._pause = FIRST_S
        self._wait(now, f"its process ended with {words(code)} after {ran_s:.0f} s", refused=code == REFUSED_EXIT)
        self._say(logging.ERROR, f"{self.why}; it is started again in {self._due - now:.0f} s")

    def _wait(self, now: float, why: str, *, refused: bool) -> None:
        self.why, self._refused = why, refused
        self._due = now + (MOST_S if refused else self._pause)
        self._pause = min(MOST_S, 2 * self._pause)

    def _say(self, level: int, what: str) -> None:
        log.log(level, "shop %s: %s", self.name, what, extra={"shop": self.name})


def words(code: int) -> str:
    """An exit code for people."""
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"
