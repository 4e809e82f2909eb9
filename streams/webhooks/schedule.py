"""Which delivery of an endpoint is attempted next: orders in turn, pauses kept, no more at once than may be.
Pure: time and chance are arguments; who asks does the sending and says what came of it.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from streams.webhooks.breaker import NEVER, Breaker
from streams.webhooks.policy import Answer, Chance, Policy

Outcome = Literal["delivered", "again", "failed"]
Place = tuple[str, int, int]  # topic, partition, offset


@dataclass(slots=True, eq=False)
class Delivery:
    """One alert on its way to one endpoint."""

    id: str
    alert_id: str
    order_id: str
    decision: str
    body: bytes
    alert: bytes
    """As it is on the topic."""
    place: Place = ("", 0, 0)
    appended_ms: int = 0
    """The broker's time of the alert."""
    attempts: int = 0
    first_at: float = 0.0
    """Of the first attempt, by the schedule's clock."""
    first_ms: int = 0
    """The same in UTC ms, for people."""


class Schedule:
    """Deliveries of one order are attempted in the order they were added, each when the one before it is finished.
    Those of different orders overtake each other: one that waits for its next attempt holds up nobody else.
    """

    def __init__(self, policy: Policy, breaker: Breaker, in_flight: int, chance: Callable[[], Chance]) -> None:
        self._policy, self._breaker, self._most, self._chance = policy, breaker, in_flight, chance
        self._lanes: dict[str, deque[Delivery]] = {}
        self._fresh: deque[tuple[float, Delivery]] = deque()  # not attempted yet, by when they came
        self._again: list[tuple[float, int, Delivery]] = []
        self._number = 0  # of two that are due at once, the one that was put off first
        self._flying: set[Delivery] = set()
        self.unfinished = 0

    @property
    def flying(self) -> int:
        """Attempts that run."""
        return len(self._flying)

    def add(self, delivery: Delivery, now: float) -> None:
        lane = self._lanes.setdefault(delivery.order_id, deque())
        lane.append(delivery)
        self.unfinished += 1
        if len(lane) == 1:
            self._fresh.append((now, delivery))

    def next(self, now: float) -> Delivery | None:
        """A delivery to attempt now, if there is one; `answered` or `abandon` must follow."""
        if self.wakes_at() > now:
            return None
        delivery = self._first(now)
        self._breaker.began()
        self._flying.add(delivery)
        if not delivery.attempts:
            delivery.first_at = now
        delivery.attempts += 1
        return delivery

    def wakes_at(self) -> float:
        """When `next` will have something, if nothing is added or answered meanwhile; NEVER: it will not."""
        if len(self._flying) >= self._most:
            return NEVER
        fresh = self._fresh[0][0] if self._fresh else NEVER
        again = self._again[0][0] if self._again else NEVER
        return max(min(fresh, again), self._breaker.ready_at())

    def answered(self, delivery: Delivery, answer: Answer, now: float) -> Outcome:
        """What that means for it. Where it is not `again`, `finish` must follow, once the outcome is on record."""
        self._flying.discard(delivery)
        if answer.meaning != "again":
            self._breaker.succeeded()
            return "delivered" if answer.meaning == "delivered" else "failed"
        self._breaker.failed(delivery.id, now)
        if hold_s := self._policy.hold(answer):
            self._breaker.hold(now + hold_s)
        next_at = now + self._policy.pause(delivery.attempts, answer, self._chance())
        if self._policy.is_last(delivery.first_at, next_at):
            return "failed"
        self._number += 1
        heapq.heappush(self._again, (next_at, self._number, delivery))
        return "again"

    def abandon(self, delivery: Delivery) -> None:
        """The attempt was cut off; it is made again, in some later life of the delivery."""
        self._flying.discard(delivery)
        self._breaker.abandoned()

    def finish(self, delivery: Delivery, now: float) -> None:
        """Nothing more is to be done for it: the next of its order may go."""
        lane = self._lanes[delivery.order_id]
        lane.popleft()
        self.unfinished -= 1
        if lane:
            self._fresh.append((now, lane[0]))
        else:
            del self._lanes[delivery.order_id]

    def _first(self, now: float) -> Delivery:
        """The one that is due for longest; of an endpoint that takes nothing, one that it has refused before: the
        time of the others does not begin."""
        again = self._again[0][0] if self._again else NEVER
        if again <= now and (self._breaker.open or not self._fresh or again <= self._fresh[0][0]):
            return heapq.heappop(self._again)[2]
        return self._fresh.popleft()[1]
