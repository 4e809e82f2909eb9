"""How far event time has come, and until when the sources of labels are known to be alive.
No clock is read: the broker's time is an argument, and no wrong clock of a shop can push event time past it.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

AHEAD_MS: Final = 300_000
"""How far ahead of the broker's clock a time may be and still be believed."""


@dataclass(slots=True)
class _Part:
    newest: int  # event time, -1 before the first record
    heard: int  # broker's time of the last record, or of the assignment
    ended: int = -1  # broker's time at which nothing was left to read


class Watermark:
    """All events up to it have come, but for those that are more than `lateness_ms` out of order.

    It is the least over the parts, which are partitions by any name, of the newest time less the lateness. It
    never goes back. A part is idle, and holds nobody up, where it has been read to its end for `idle_ms`: one
    that is behind is not idle, and neither is one that nobody looks at. Where all are idle it stands.
    """

    def __init__(self, *, lateness_ms: int, idle_ms: int, start: int = 0) -> None:
        """`start`: where it stood before, for one that goes on."""
        self._lateness, self._idle = lateness_ms, idle_ms
        self._parts: dict[Hashable, _Part] = {}
        self._reached = start
        self.disbelieved = 0

    def assign(self, parts: Iterable[Hashable], now: int) -> None:
        """Exactly these count from now on; one that is new holds all up until its first record, or until idle."""
        self._parts = {part: self._parts.get(part, _Part(-1, now)) for part in parts}

    def observe(self, part: Hashable, time: int, now: int) -> None:
        """A record of that event time; `now` is the broker's timestamp of it. Too far ahead: counted, and no more."""
        known = self._parts[part]
        known.heard = max(known.heard, now)
        if time > now + AHEAD_MS:
            self.disbelieved += 1
        else:
            known.newest = max(known.newest, time)

    def at_end(self, part: Hashable, now: int) -> None:
        """At the broker's time `now` all records of the part had been observed."""
        known = self._parts[part]
        known.ended = max(known.ended, now)

    def at(self, now: int) -> int:
        """The watermark, UTC ms, at the broker's time `now`; never more than AHEAD_MS past that."""
        parts = self._parts.values()
        times = [part.newest for part in parts if not self._is_idle(part, now)]
        # All idle: it stands where those that ever spoke have come to. One that never did holds nobody up for ever.
        times = times or [part.newest for part in parts if part.newest >= 0]
        if times and min(times) >= 0:
            self._reached = max(self._reached, min(times) - self._lateness)
        return min(self._reached, now + AHEAD_MS)

    def _is_idle(self, part: _Part, now: int) -> bool:
        return part.ended - part.heard >= self._idle and now - part.ended <= self._idle


class SourceLife:
    """The last sign of life of each source of labels: the newest time of a label or heartbeat of it."""

    def __init__(self, times: Mapping[str, int] | None = None) -> None:
        """`times`: what `times` said before, for one that goes on."""
        self._times = dict(times or {})

    @property
    def times(self) -> Mapping[str, int]:
        """UTC ms by source."""
        return self._times

    def seen(self, source: str, time: int, now: int) -> None:
        """A label or heartbeat with that observed_at, at the broker's time `now`. Too far ahead: it says nothing."""
        if time <= now + AHEAD_MS:
            self._times[source] = max(time, self._times.get(source, 0))

    def until(self, sources: Sequence[str]) -> int:
        """Until when all of these were alive, UTC ms; 0 if one was never heard of."""
        return min((self._times.get(source, 0) for source in sources), default=0)
