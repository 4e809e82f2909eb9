"""A time-ordered stream at a chosen pace: as it happened but faster, at a steady rate, or as fast as Kafka
takes it. `OpenLoop` keeps to its clock whatever the system does, so that a slow system shows as latency and
not as a slower test.
"""

import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.errors import SettingsError
from streams.sources.publisher import Message, Publisher
from streams.sources.telling import Timed

LONGEST_WAIT_S = 1.0
TICK_S = 0.001


@dataclass(frozen=True, slots=True)
class Counts:
    """What was published: events by topic, the seconds it took, the span of event time (ms; -1 if there was
    none), and whether it was cut short.
    """

    sent: dict[str, int]
    seconds: float
    first_time: int
    last_time: int
    stopped: bool

    @property
    def total(self) -> int:
        return sum(self.sent.values())

    def __str__(self) -> str:
        each = ", ".join(f"{count:,} {topic}" for topic, count in self.sent.items())
        rate = self.total / self.seconds if self.seconds else 0.0
        return f"{self.total:,} events in {self.seconds:.1f} s ({rate:,.0f}/s): {each or 'none'}"


class Pace:
    """When each event is due, in seconds since the first. Neither setting: at once.

    `speed` is event time over real time; a gap longer than `longest_wait_s` of real time (a night) is
    shortened to it.
    """

    def __init__(
        self,
        *,
        speed: float | None = None,
        rate: float | None = None,
        longest_wait_s: float = LONGEST_WAIT_S,
    ) -> None:
        if speed is not None and rate is not None:
            raise SettingsError("speed and rate are both set", expected="one of them")
        for name, value in (("speed", speed), ("rate", rate)):
            if value is not None and value <= 0:
                raise SettingsError(f"{name} is {value}", expected="more than 0")
        self._speed, self._rate, self._longest = speed, rate, longest_wait_s
        self._last: int | None = None
        self._due = 0.0

    def due(self, event_time: int) -> float:
        """Of the next event in order."""
        if self._last is not None:
            if self._rate is not None:
                self._due += 1 / self._rate
            elif self._speed is not None:
                self._due += min(max(event_time - self._last, 0) / 1000 / self._speed, self._longest)
        self._last = event_time
        return self._due


def replay(
    events: Iterable[Timed],
    publisher: Publisher,
    pace: Pace | None = None,
    *,
    stop: threading.Event | None = None,
    on_event: Callable[[Timed], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Counts:
    """Publishes in order, and returns when all is acknowledged. `stop`, or Ctrl-C, ends it early and cleanly.

    `on_event` sees each event just before it is sent, and may fill in what is known only now (a request_id).
    Heartbeats are not paced: they come with the event that follows them, so that a night is one gap.
    """
    pace, stop = pace or Pace(), stop or threading.Event()
    sent: dict[str, int] = {}
    first, last, begun, stopped = -1, -1, clock(), False
    try:
        for group in _with_heartbeats(events):
            wait = pace.due(group[-1].time) - (clock() - begun)
            if wait > TICK_S:
                publisher.serve()
                stop.wait(wait)
            if stop.is_set():
                stopped = True
                break
            for event in group:
                if on_event:
                    on_event(event)
                publisher.publish(event)
                sent[event.topic] = sent.get(event.topic, 0) + 1
                first, last = event.time if first < 0 else first, event.time
    except KeyboardInterrupt:
        stopped = True
    publisher.flush()
    return Counts(sent, clock() - begun, first, last, stopped)


def _with_heartbeats(events: Iterable[Timed]) -> Iterator[list[Timed]]:
    """Each event behind the heartbeats before it; at the end those that nothing follows."""
    group: list[Timed] = []
    for event in events:
        group.append(event)
        if not event.is_heartbeat:
            yield group
            group = []
    if group:
        yield group


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How well the load kept to its clock. Message i was due at `began_at + i / rate` (seconds since the
    epoch).

    `lag` is how late a message was handed to the client, in ms: the generator's own fault, to be read before
    any latency is believed.
    """

    sent: int
    rate: float
    began_at: float
    seconds: float
    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float

    def __str__(self) -> str:
        return (
            f"{self.sent:,} messages in {self.seconds:.1f} s for {self.rate:,.0f}/s; behind its clock by "
            f"{self.lag_p50_ms:.2f} ms (p50), {self.lag_p99_ms:.2f} ms (p99), {self.lag_max_ms:.1f} ms (most)"
        )


class OpenLoop:
    """Sends message i at i / rate seconds, never later because the system is slow, never skipping one."""

    def __init__(
        self,
        rate: float,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if rate <= 0:
            raise SettingsError(f"rate is {rate}", expected="messages per second, more than 0")
        self.rate, self._clock, self._sleep = rate, clock, sleep

    def run(
        self, messages: Sequence[Message], publisher: Publisher, *, stop: threading.Event | None = None
    ) -> LoadReport:
        """`messages` are encoded beforehand, so that the load costs as little as it can."""
        clock, period, lags = self._clock, 1 / self.rate, array("d")
        began_at, begun = time.time(), clock()
        for number, message in enumerate(messages):
            due = begun + number * period
            while (early := due - clock()) > 0:
                self._sleep(min(early, TICK_S))
            if stop is not None and stop.is_set():
                break
            publisher.send(message)
            lags.append(clock() - due)
        seconds = clock() - begun
        publisher.flush()
        late = np.maximum(np.frombuffer(lags), 0.0) * 1000 if lags else np.zeros(1)
        p50, p99 = np.percentile(late, [50, 99]).tolist()
        return LoadReport(len(lags), self.rate, began_at, seconds, p50, p99, float(late.max()))
