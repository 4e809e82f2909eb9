"""Backtests that were asked for from a page: one at a time, in a thread of its own, the newest results in memory.
The same as `headrace policy backtest`; what runs long does not hold a page up, which looks again by itself.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from schemas.errors import DataUnavailable, HeadraceError
from schemas.registry import Registry
from streams.clients import require_broker
from streams.config import Settings

KEPT = 8


@dataclass(frozen=True, slots=True)
class Backtest:
    """state: running, done, failed. report: as `streams.policy.trial` says it. start, end: UTC ms of event time."""

    number: int
    name: str
    start: int
    end: int
    begun_at: int
    state: str = "running"
    chunks: int = 0
    report: dict[str, Any] | None = None
    missing: int = 0
    problem: str = ""


class _Stopped(Exception):
    """The console ends."""


class Backtests:
    """Safe from any thread."""

    def __init__(self, settings: Settings, registry: Registry, clock: Callable[[], int]) -> None:
        self._settings, self._registry, self._clock = settings, registry, clock
        self._lock = threading.Lock()
        self._found: OrderedDict[int, Backtest] = OrderedDict()
        self._numbers, self._stopping = 0, False
        self._thread: threading.Thread | None = None

    def get(self, number: int) -> Backtest | None:
        with self._lock:
            return self._found.get(number)

    def all(self) -> list[Backtest]:
        """The newest first."""
        with self._lock:
            return list(reversed(self._found.values()))

    def begin(self, text: str, name: str, span: tuple[int, int]) -> Backtest | None:
        """None while another one runs."""
        with self._lock:
            if any(one.state == "running" for one in self._found.values()):
                return None
            self._numbers += 1
            made = Backtest(self._numbers, name, *span, self._clock())
            self._found[made.number] = made
            while len(self._found) > KEPT:
                self._found.popitem(last=False)
        self._thread = threading.Thread(target=self._run, args=(made, text), name="backtest", daemon=True)
        self._thread.start()
        return made

    def stop(self) -> None:
        self._stopping = True
        if self._thread is not None:
            self._thread.join(5)

    def _run(self, made: Backtest, text: str) -> None:
        from streams.tracing.trials import tried  # with all that it takes to decide anew; most consoles never ask

        try:
            require_broker(self._settings)
            trial, missing = tried(
                self._settings, self._registry, text, made.name, (made.start, made.end), lambda: self._tick(made.number)
            )
            report = trial.report()
            if not report["orders"]:
                raise DataUnavailable(
                    "no order was served in this span, or none of them is still on its topic",
                    where=self._settings.topics.served("fraud"),
                    expected="event times within the span",
                )
            self._put(made.number, state="done", report=report, missing=missing)
        except HeadraceError as error:
            self._put(made.number, state="failed", problem=str(error))
        except _Stopped:
            self._put(made.number, state="failed", problem="the console was stopped")
        except Exception as error:  # a fault must not leave it running for ever
            self._put(made.number, state="failed", problem=f"{type(error).__name__}: {error}")
            raise

    def _tick(self, number: int) -> None:
        if self._stopping:
            raise _Stopped
        with self._lock:
            if (one := self._found.get(number)) is not None:
                self._found[number] = replace(one, chunks=one.chunks + 1)

    def _put(self, number: int, **changed: Any) -> None:
        with self._lock:
            if (one := self._found.get(number)) is not None:
                self._found[number] = replace(one, **changed)
