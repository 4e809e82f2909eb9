"""What users did, as one long table cut by user: what pretraining reads, whole or a window at a time.
It is not `served`: nothing here was scored, and there are no labels but the next event itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from schemas.errors import TrainingError
from streams.batch import TOPICS
from streams.catalog import Catalogue
from streams.events import Record, event_batch
from streams.features import MINOR_UNITS

CHUNK = 4096
GAP, VALUE, QUANTITY = 0.1, 0.2, 1 / 3  # scales of log1p, as streams.features has them


@dataclass(frozen=True, slots=True)
class Sequences:
    """U users with E events, each user's own ones in order at `start[u]:start[u + 1]`.

    item (E,) catalogue row, 0 for none. kind (E,) from 1. time (E,) ms. value and quantity (E,) as in feature rows.
    """

    start: NDArray[np.int64]
    item: NDArray[np.int32]
    kind: NDArray[np.uint8]
    time: NDArray[np.int64]
    value: NDArray[np.float32]
    quantity: NDArray[np.float32]

    def __post_init__(self) -> None:
        sizes = {len(column) for column in (self.item, self.kind, self.time, self.value, self.quantity)}
        if sizes != {int(self.start[-1])} or (np.diff(self.start) < 0).any():
            raise TrainingError(f"columns of {sorted(sizes)} events", expected=f"{int(self.start[-1])} each, by user")
        step = np.diff(self.time)
        step[self.start[1:-1][(self.start[1:-1] > 0) & (self.start[1:-1] < len(self.item))] - 1] = 0
        if (step < 0).any():
            raise TrainingError("a user's events are not in order of time", expected="time that never goes back")

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def events(self) -> NDArray[np.int64]:
        """(U,) how many each user has."""
        return np.diff(self.start)

    def before(self, users: NDArray[np.intp], ends: NDArray[np.int64], length: int) -> "Window":
        """The newest `length` of the first `ends` events of each user: padded on the left, as in serving."""
        at_BL = self.start[users][:, None] + ends[:, None] + np.arange(-length, 0)
        real_BL = at_BL >= self.start[users][:, None]
        at_BL = np.where(real_BL, at_BL, 0)
        later_BL = np.minimum(at_BL + 1, len(self.item) - 1)
        scalars = np.zeros((*at_BL.shape, 4), np.float32)
        seconds_BL = self.time[at_BL] / 1000
        gap_BL = np.diff(seconds_BL, axis=1) * (real_BL[:, 1:] & real_BL[:, :-1])
        scalars[:, 1:, 0] = GAP * np.log1p(gap_BL)
        scalars[..., 1] = VALUE * np.log1p(self.value[at_BL])
        scalars[..., 2] = QUANTITY * np.log1p(self.quantity[at_BL])
        scalars[..., 3] = 1
        scalars *= real_BL[..., None]
        return Window(self.item[at_BL] * real_BL, self.kind[at_BL] * real_BL, scalars, self.item[later_BL] * real_BL)


@dataclass(frozen=True, slots=True)
class Window:
    """items (B, L), kinds (B, L), scalars (B, L, 4) of some histories, and each token's next item (B, L)."""

    items: NDArray[np.int32]
    kinds: NDArray[np.uint8]
    scalars: NDArray[np.float32]
    next_items: NDArray[np.int32]


def sequences_of(stream: Iterable[tuple[str, Record]], catalog: Catalogue) -> Sequences:
    """Of a time-ordered stream of events: each user's entries as the state keeps them. What is no event is passed over.

    Raises TrainingError where there are none.
    """
    events = ((topic, record) for topic, record in stream if topic in TOPICS)
    number: dict[str, int] = {}
    parts: list[tuple[NDArray[np.generic], ...]] = []
    while chunk := list(islice(events, CHUNK)):
        records = [record for _, record in chunk]
        nowhere = [0] * len(chunk)  # partition and offset: these events are of no topic
        batch = event_batch(records, [TOPICS.index(topic) for topic, _ in chunk], nowhere, nowhere, catalog)
        users = np.array([number.setdefault(user, len(number)) for user in batch.users])
        of = batch.entry_event
        parts.append(
            (users[of], batch.time[of], batch.entry_item, batch.entry_kind, batch.entry_value, batch.entry_quantity)
        )
    if not parts:
        raise TrainingError("no events", where="sequences", expected="a stream with events")
    user, time, item, kind, value, quantity = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((np.arange(len(user)), time, user))
    return Sequences(
        start=np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(number)))]),
        item=item[order].astype(np.int32),
        kind=kind[order].astype(np.uint8),
        time=time[order].astype(np.int64),
        value=(value[order] / MINOR_UNITS).astype(np.float32),
        quantity=quantity[order].astype(np.float32),
    )
