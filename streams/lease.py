"""Whether this process may still speak for its partitions, as far as it can know by itself.
One that was stopped for longer than its session lost them without being told, so it asks before it sends."""

import time
from collections.abc import Callable

from schemas.errors import Fenced


def elapsed() -> float:
    """Seconds that also pass while the process or the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """Membership of the group, good for `seconds` from when the last answered heartbeat was sent.

    Renewed and lost from the consumer's thread, asked from any. What is sent while it is held must be on the
    broker, or given up, before the session ends: `seconds` and the producer's delivery timeout together make
    at most the session timeout.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = elapsed) -> None:
        self.seconds, self.clock = seconds, clock
        #: Rises when a membership ends: what was known of partitions before may be out of date.
        self.epoch = 0
        self._until: float | None = None
        self._lost = ""

    def renew(self, sent_at: float) -> None:
        """The broker answered a heartbeat that was sent then, or took us into the group."""
        self._until, self._lost = sent_at + self.seconds, ""

    def lose(self, why: str) -> None:
        """The broker does not know us as a member. Only joining again ends this."""
        self.epoch += 1
        self._until, self._lost = None, why

    def held(self) -> bool:
        """True: send. False: not confirmed lately (a slow broker, or before the first join): ask again later.

        Raises Fenced when the membership is known to be over.
        """
        if self._lost:
            raise Fenced(
                f"the broker ended this worker's membership: {self._lost}",
                expected="heartbeats within session_timeout_s",
                todo="start the worker again; another one has its partitions meanwhile",
            )
        return self._until is not None and self.clock() < self._until
