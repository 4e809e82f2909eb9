"""Running user state and its oracle in the tests: made small, fed, and read out."""

from collections.abc import Sequence

import numpy as np

from streams.state import Shape, UserState
from streams.state.memory import MemoryStore
from streams.store import UserStore
from tests.state_events import Event, columns
from tests.state_oracle import Seen, seen

SHAPE = Shape()
TINY = Shape(history=4, ring=10, ids=4, tokens=5, page=3)
PARTITIONS = (0, 1)


def make_state(
    shape: Shape = SHAPE, slots: int = 64, per_user: int = 20_000, store: MemoryStore | UserStore | None = None
) -> UserState:
    return UserState(
        slots,
        shape.history,
        shape.ring,
        shape.ids,
        shape.tokens,
        store=store,
        dedupe_per_user=per_user,
        page=shape.page,
    )


def take(state: UserState, batch: Sequence[Event], order: Sequence[int] | None = None) -> list[Seen]:
    forced = None if order is None else np.array(order, np.int64)
    absorbed = state.absorb(columns(batch), forced)
    return seen(absorbed, state.gather(absorbed, np.arange(len(batch))))


def rows_of(state: UserState) -> dict[bytes, bytes]:
    """Packed rows of all that changed since the last snapshot."""
    return dict(state.snapshot(PARTITIONS).rows())
