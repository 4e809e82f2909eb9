"""Labels in the order in which their windows close, whatever the order in which they are known.
A fraud that is told at once waits until orders of its time have matured as innocent: who asks about the quality of a
release would otherwise be asked about frauds alone.
"""

import heapq
from collections.abc import Iterator
from typing import NamedTuple

from streams.events import Record

KEPT = 200_000


class Matured(NamedTuple):
    """What became of one candidate of one served event. prediction: None where it was not recorded."""

    event_time: int
    number: int
    target: str
    candidate: str | None
    label: float
    weight: float
    prediction: float | None
    release: str


class Maturing:
    """Of one task, used from one thread. Holds at most KEPT labels: one that finds no room is passed over."""

    def __init__(self, name: str, silence: bool) -> None:
        """name: the outcome that counts. silence: whether it is an answer; else all has matured that has come."""
        self._name, self._silence = name, silence
        self._waiting: list[Matured] = []
        self._mature = -(2**62)
        self._heard = 0

    def add(self, record: Record) -> None:
        """A TrainingExample. What revises an answer that was given is passed over."""
        if record["name"] != self._name or record["revision"] > 0:
            return
        self._heard += 1
        if len(self._waiting) < KEPT:
            heapq.heappush(
                self._waiting,
                Matured(
                    record["event_time"], self._heard, record["target_id"], record["candidate_id"], record["label"],
                    record["weight"], record["prediction"], record["release"],
                ),
            )  # fmt: skip
        if not (self._silence and record["source"]):
            self._mature = max(self._mature, record["event_time"])

    @property
    def until(self) -> int:
        """UTC ms: of events up to then all has been given that will be; lately heard ones apart."""
        return self._mature

    def take(self) -> Iterator[Matured]:
        """What has matured since the last call, oldest first."""
        while self._waiting and self._waiting[0].event_time <= self._mature:
            yield heapq.heappop(self._waiting)
