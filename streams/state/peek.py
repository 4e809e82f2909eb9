"""What would be known of events just before them if they came now: for answers that may not change the state.
Rows of their users are copied into a small state of its own, which absorbs the events and forgets them again.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streams.batch import EventBatch
from streams.state import Absorbed, History, UserState

MOST = 64
"""Most events of one look."""


class _Nothing:
    """Holds no rows: whoever is known was put into memory."""

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        return [None] * len(keys)


class Peek:
    """Looks at one state, on the state's thread."""

    def __init__(self, state: UserState, most: int = MOST) -> None:
        shape = state.shape
        self._state, self.most = state, most
        self._scratch = UserState(
            most, shape.history, shape.ring, shape.ids, shape.tokens, _Nothing(), state.dedupe_per_user, shape.page
        )
        self._used: set[int] = set()

    def look(self, batch: EventBatch) -> Absorbed:
        """What UserState.absorb would say of at most `most` events, each alone. The state stays as it is.

        `cut` is what the event sees, of its own topic too: its own offset is not known yet. StateError: see absorb.
        """
        self._scratch.drop(self._used)
        names = [str(number) for number in range(len(batch))]  # a user twice: neither event sees the other
        for name, row in zip(names, self._state.packed(batch.users, batch.partition), strict=True):
            if row is not None:
                self._scratch.load(name.encode(), row)
        self._used = {*batch.partition.tolist()}
        cut = self._scratch.cut(names)
        absorbed = self._scratch.absorb(replace(batch, users=names))
        absorbed.cut = cut
        return absorbed

    def gather(self, absorbed: Absorbed, rows: NDArray[np.intp]) -> History:
        """UserState.gather, of the newest look."""
        return self._scratch.gather(absorbed, rows)
