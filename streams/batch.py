"""A micro-batch of decoded events as columns, and the numbering of topics and entry kinds.
It is data only: decoding is in events, absorbing in state. The numbering is part of saved state.

Legend: N events in arrival order (offsets ascend within a topic-partition), M history entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

TOPICS: Final = ("clicks", "orders", "impressions")
CLICKS: Final = 0
ORDERS: Final = 1
IMPRESSIONS: Final = 2

# What a history entry says, by the number that is stored; 0 pads a short history.
KINDS: Final[dict[str, int]] = {
    "padding": 0,
    "view": 1,
    "click": 2,
    "cart": 3,
    "uncart": 4,
    "wish": 5,
    "search": 6,
    "order": 7,  # one per order: item 0, value = amount, quantity = lines
    "purchase": 8,  # one per order line, at most 15
    "impression": 9,
    "unknown": 10,
}

INCREMENTS: Final = ("clicks", "orders", "impressions", "amount", "quantity")
MAX_ENTRIES: Final = 16  # entries of one event

# Times and offsets share 64 bits with a run number while a batch is put in order (see state/runs.py).
LIMIT: Final = 1 << 43  # exclusive bound of event_time in ms (the year 2248) and of an offset


@dataclass(slots=True)
class EventBatch:
    """N events and their M history entries. Money is int64 of 1/10,000 of the currency unit ("minor units").

    Bounds that the maker keeps: 0 < time < LIMIT; 0 <= offset < LIMIT; every event has 1 to 16 entries;
    increments[:, :3] fit a byte, increments[:, 4] fits int32; quantities are 0 or more; an order's token hashes are
    distinct.
    """

    users: list[str]  # N
    topic: NDArray[np.uint8]  # N, index into TOPICS
    partition: NDArray[np.int32]  # N
    offset: NDArray[np.int64]  # N
    time: NDArray[np.int64]  # N, event_time, UTC epoch ms
    event_hash: NDArray[np.uint64]  # N, xxh3_64 of event_id
    increments: NDArray[np.int64]  # (N, 5), what the event adds to the totals, columns as INCREMENTS
    tokens: NDArray[np.uint64]  # (N, 5), hashes of an order's card, device, address, email, ip; 0 where none
    entry_event: NDArray[np.int32]  # M, index of the event an entry belongs to; ascending
    entry_kind: NDArray[np.uint8]  # M, a number of KINDS
    entry_item: NDArray[np.int32]  # M, catalogue row, 0 unknown
    entry_value: NDArray[np.int64]  # M, minor units
    entry_quantity: NDArray[np.int32]  # M

    def __len__(self) -> int:
        return len(self.users)

    def first_entry(self, index: NDArray[np.intp]) -> NDArray[np.intp]:
        """Where the entries of these events begin."""
        if len(self.entry_event) == len(self.users):  # one entry an event
            return index
        return self.entry_event.searchsorted(index)
