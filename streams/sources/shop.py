"""A shop as arrays: what it sells and what was ordered, the same for the real shop and for a generated one.
Money is int64 of 1/10,000 of the currency unit ("minor units"), time is int64 UTC milliseconds.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

CURRENCY = "GBP"
MINOR_UNITS = 10_000
DAY_MS = 86_400_000


def to_decimal(minor: int) -> bytes:
    """A decimal(18, 4) in Avro's physical form: two's complement, big endian, as short as it goes."""
    return minor.to_bytes((minor.bit_length() >> 3) + 1, "big", signed=True)


@dataclass(frozen=True, slots=True)
class Items:
    """N items. `category` and `style` number into taxonomy.CATEGORIES and STYLES; `price` is in minor
    units.
    """

    ids: list[str]
    texts: list[str]
    category: NDArray[np.int16]
    style: NDArray[np.int16]
    price: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Orders:
    """R orders in time order; the lines of order r are `offsets[r]:offsets[r + 1]` of item, quantity and
    price.

    `customer` and `country` number into `customers` and `countries`; a country is ISO 3166-1 alpha-2 or None.
    """

    ids: list[str]
    time: NDArray[np.int64]
    customer: NDArray[np.int32]
    country: NDArray[np.int16]
    offsets: NDArray[np.int64]
    item: NDArray[np.int32]
    quantity: NDArray[np.int32]
    price: NDArray[np.int64]
    customers: list[str]
    countries: list[str | None]

    def __len__(self) -> int:
        return len(self.ids)

    def lines(self, order: int) -> slice:
        return slice(int(self.offsets[order]), int(self.offsets[order + 1]))

    def take(self, chosen: NDArray[np.intp]) -> "Orders":
        """The chosen orders (ascending numbers) with their lines; customers keep their numbers."""
        lengths = np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        lines = np.repeat(self.offsets[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return replace(
            self,
            ids=[self.ids[order] for order in chosen],
            time=self.time[chosen],
            customer=self.customer[chosen],
            country=self.country[chosen],
            offsets=offsets,
            item=self.item[lines],
            quantity=self.quantity[lines],
            price=self.price[lines],
        )


@dataclass(frozen=True, slots=True)
class Shop:
    """`real`: catalogue, baskets and times are a real shop's; else they are generated."""

    name: str
    real: bool
    items: Items
    orders: Orders
