"""Is a worker alive, and is it ready? Decisions on what it says of itself, with the time as an argument.
Alive means that offsets advance while there is lag: a worker that hangs is ended, to be restarted."""

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

log = logging.getLogger(__name__)

STUCK_EXIT = 70  # EX_SOFTWARE: a supervisor starts the worker again
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Track:
    """Something that must advance: `position` is the next offset to finish, `end` the newest known plus one.

    `end` is None where it is not known, and then nothing is concluded. A parked track waits on purpose (for
    the registry): it is reported, and is no hang.
    """

    name: str
    position: int
    end: int | None
    parked: bool = False

    @property
    def lag(self) -> int:
        return max(0, self.end - self.position) if self.end is not None else 0


@dataclass(frozen=True, slots=True)
class Status:
    """What a worker says of itself at one moment. Empty tuples mean that nothing is missing.

    Recovery belongs into `tracks` too: a restore of state that stands still is a hang like any other.
    """

    assigned: bool = False
    recovering: tuple[int, ...] = ()  # partitions whose state is not restored yet
    cold: tuple[str, ...] = ()  # tasks whose engine is not warm
    unreachable: tuple[str, ...] = ()  # services that do not answer, in words
    stopping: bool = False
    tracks: tuple[Track, ...] = ()
    releases: Mapping[str, str] = field(default_factory=dict)  # task -> what scores now
    refused: Mapping[str, str] = field(default_factory=dict)  # policy -> why it cannot be used


class Provider(Protocol):
    """The worker, as seen from here. Called from the watchdog's thread: it must not block."""

    def status(self) -> Status: ...


def missing(status: Status) -> list[str]:
    """What a worker still lacks to be ready, in words; empty: it is ready."""
    lacks = []
    if status.stopping:
        lacks.append("the worker is stopping")
    lacks += status.unreachable
    if not status.assigned:
        lacks.append("no partitions are assigned yet")
    if status.recovering:
        lacks.append(f"state of partitions {', '.join(map(str, status.recovering))} is being recovered")
    if status.cold:
        lacks.append(f"the engines of {', '.join(status.cold)} are not warm")
    return lacks


@dataclass(slots=True)
class _Stand:
    position: int
    since: float


class Watchdog:
    """Says which tracks have had lag, without any advance, for `limit_s` seconds.

    A gap between two observations of more than half the limit (the whole process was stopped, or the machine
    slept) starts the count anew: nobody can have advanced in that time.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._stands: dict[str, _Stand] = {}
        self._observed: float | None = None

    def observe(self, now: float, tracks: tuple[Track, ...]) -> list[Track]:
        """The tracks that are stuck at `now` (seconds of a monotonic clock, rising from call to call)."""
        if self._observed is not None and now - self._observed > self.limit_s / 2:
            self._stands.clear()
        self._observed = now
        stands = self._stands
        self._stands = {}
        return [track for track in tracks if self._stood(now, track, stands.get(track.name))]

    def _stood(self, now: float, track: Track, before: _Stand | None) -> bool:
        if track.parked or track.lag == 0:
            return False
        if before is None or before.position != track.position:  # a rewind is a change too: a rebalance
            before = _Stand(track.position, now)
        self._stands[track.name] = before
        return now - before.since >= self.limit_s


class Pulse:
    """Whether an event loop still turns, as a track: beats asked for from outside, answered inside."""

    def __init__(self, ask: Callable[[Callable[[], None]], object]) -> None:
        """`ask` schedules a call on the loop from another thread, such as `loop.call_soon_threadsafe`."""
        self._ask = ask
        self._asked = self._answered = 0

    def track(self) -> Track:
        if self._asked == self._answered:
            self._asked += 1
            self._ask(self._answer)
        return Track("event loop", self._answered, self._asked)

    def _answer(self) -> None:
        self._answered = self._asked


def end_process(stuck: list[Track]) -> None:
    """Ends the process at once, uncommitted: what was not committed is read again after the restart."""
    names = "; ".join(f"{track.name} stands at {track.position} of {track.end}" for track in stuck)
    log.critical("nothing advances although there is lag, the worker ends: %s", names)
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    logging.shutdown()
    os._exit(STUCK_EXIT)


class Watch(threading.Thread):
    """Asks the watchdog again and again, from a thread, since a hung event loop could not.

    `on_stuck` is called once, in this thread. RuntimeError from `pulse` (its loop is closed) ends the watch.
    """

    def __init__(
        self,
        provider: Provider,
        watchdog: Watchdog,
        clock: Clock,
        pulse: Pulse | None = None,
        on_stuck: Callable[[list[Track]], None] = end_process,
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.provider, self.watchdog, self.clock, self.pulse = provider, watchdog, clock, pulse
        self.on_stuck = on_stuck
        self._stopping = threading.Event()

    def step(self) -> list[Track]:
        tracks = self.provider.status().tracks
        if self.pulse is not None:
            tracks += (self.pulse.track(),)
        return self.watchdog.observe(self.clock(), tracks)

    def run(self) -> None:
        while not self._stopping.wait(min(1.0, self.watchdog.limit_s / 10)):
            try:
                stuck = self.step()
            except RuntimeError:
                return
            if stuck:
                self.on_stuck(stuck)
                return

    def stop(self) -> None:
        self._stopping.set()
