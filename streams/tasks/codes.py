"""Numbers as whole numbers of 24 bits in the same order, for engines: float32 to int32, less its last eight bits.
Engines round floats to bfloat16 where they like, but not whole numbers that float32 holds exactly: a split between two
amounts then falls the same way on each of them. What remains of a number is its first five digits.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.signatures import MISSING

_LOST = 8
MOST = -MISSING


def encoded(values: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
    """Codes above MISSING and below MOST: equal values have equal codes, larger ones larger codes, or equal ones where
    they differ by less than 1 in 32,768. NaN is MISSING; infinite values count as the largest.
    """
    plain = np.ascontiguousarray(values, np.float32) + np.float32(0)  # -0.0 is 0.0
    bits = plain.view(np.int32)
    codes = (bits ^ ((bits >> 31) & 0x7FFF_FFFF)) >> _LOST
    return np.where(np.isnan(plain), np.int32(MISSING), np.clip(codes, MISSING + 1, MOST - 1)).astype(np.int32)
