"""The shop's own attributes in a feature row: pairs of a name's hash and a value, as many as fit.
Which of them are columns of a model is decided when it is trained; a row knows nothing of that, so any name may come.
"""

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from streams.features import Rows
from streams.tasks.codes import encoded

CAPACITY = 96
LARGEST = 1e37
"""Numbers beyond, and infinite ones, count as this: differences of two still fit float32."""
HASH_BITS = 22
"""Of names and of texts. With the bit that tells their kinds apart they are whole numbers that float32 holds."""
NAMES_KEPT, TEXTS_KEPT = 4096, 65_536
LONGEST = 1024
"""Characters of a text that count."""

ATTRIBUTE_FIELDS: list[tuple[str, str, tuple[int]]] = [
    ("attribute_id", "<u4", (CAPACITY,)),  # 0: nothing more is given
    ("attribute_value", "<f4", (CAPACITY,)),
]


@lru_cache(NAMES_KEPT)
def number_id(name: str) -> int:
    """Of a name whose value is a number or a flag: even and positive."""
    return max(2 * _hash(name), 2)


@lru_cache(NAMES_KEPT)
def text_id(name: str) -> int:
    """Of a name whose value is a text: odd, so that a name with values of both kinds makes two columns."""
    return 2 * _hash(name) + 1


@lru_cache(TEXTS_KEPT)
def text_value(text: str) -> float:
    """A text as the whole number above 0 that stands for it."""
    return float(max(_hash(text[:LONGEST]), 1))


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) >> (64 - HASH_BITS)


def pairs(attributes: Mapping[str, Any]) -> list[tuple[int, float]]:
    """By id. Null and NaN are "not given"; an infinite number counts as the largest."""
    found = []
    for name, value in attributes.items():
        if isinstance(value, str):
            found.append((text_id(name), text_value(value)))
        elif isinstance(value, float | int) and not math.isnan(value):
            found.append((number_id(name), min(max(float(value), -LARGEST), LARGEST)))
    return sorted(found)[:CAPACITY]


def fill(rows: Rows, given: Iterable[Mapping[str, Any]]) -> None:
    """Writes one mapping of attributes a row. Of more than CAPACITY those with the largest ids are left out: the same
    ones in each row.
    """
    ids: NDArray[np.uint32] = rows["attribute_id"]
    values: NDArray[np.float32] = rows["attribute_value"]
    for number, attributes in enumerate(given):
        if attributes and (found := pairs(attributes)):
            ids[number, : len(found)], values[number, : len(found)] = zip(*found, strict=True)


def codes(rows: Rows) -> NDArray[np.int32]:
    """(B, CAPACITY) values as engines read them: codes of numbers, and what stands for a text as it is."""
    values: NDArray[np.float32] = rows["attribute_value"]
    text = rows["attribute_id"] & 1 > 0
    return np.where(text, np.where(text, values, 0).astype(np.int32), encoded(values))
