"""What absorbing a micro-batch found: who is new, who is late, and what was known just before each event."""

from dataclasses import dataclass

import numpy as np

from streams.state.history import NOTHING
from streams.state.runs import Flags, Ints
from streams.state.tokens import PER_ORDER


@dataclass(slots=True)
class Absorbed:
    """What absorbing N events found, in the batch's order. All but `cut` is empty where `fresh` is False."""

    fresh: Flags  # (N,) absorbed: its event_id was new to its user and topic
    late: Flags  # (N,) older than an event of the user that was absorbed before
    cut: Ints  # (N, 3) the user's newest processed offset per topic, this event's included; -1 if none
    totals: Ints  # (N, 5) batch.INCREMENTS summed over the user's earlier events, as far as the history tells
    first_time: Ints  # (N,) event_time of the user's first event, 0 if this is the first
    known: Flags  # (N, 5) an order's card, device, address, email, ip: the user had used it earlier
    window: Ints  # (N,) where the history is that the event sees
    batch: int  # which absorb this was

    @classmethod
    def nothing(cls, count: int, batch: int) -> "Absorbed":
        """Of events of which nothing has been said yet."""
        return cls(
            np.zeros(count, np.bool_),
            np.zeros(count, np.bool_),
            np.full((count, 3), -1, np.int64),
            np.zeros((count, 5), np.int64),
            np.zeros(count, np.int64),
            np.zeros((count, PER_ORDER), np.bool_),
            np.full(count, NOTHING, np.int64),
            batch,
        )
