"""What is blocked never gets a label: a few of the orders that would be are let through, at a chance that is known.
Each then counts by the inverse of its chance (Horvitz and Thompson 1952), so that all together stand for all of them.

The chance follows how uncertain the label is: proportional to its standard deviation sqrt(p (1 - p)) (Neyman 1934,
optimal allocation), so highest at the threshold and low where the model is sure. It is a function of the event's id
and score alone: a score that was said before a crash says what its chance was.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import xxhash

KEY = 0x6C6561726E
"""Of the draw, so that it is none of the other draws by event id."""
LEAST = 0.25
"""Of `share`: the chance of what the model is surest of. It bounds the weight of one order, at 4 / share."""


@dataclass(frozen=True, slots=True)
class Exploration:
    """share: bounds the chance of each, and so the share of the blocked that is let through; 0 lets none through."""

    share: float

    def chance(self, probability: float) -> float:
        """That something with this score, which would be blocked, is let through; from share / 4 to share.

        Of the score as its record holds it, in float32.
        """
        p = max(float(np.float32(probability)), 0.5)
        return self.share * max(LEAST, 2 * sqrt(p * (1 - p)))

    def lets_through(self, event_id: str, probability: float) -> bool:
        """Always the same answer."""
        drawn = xxhash.xxh3_64_intdigest(event_id.encode(), KEY)
        return drawn < self.chance(probability) * 2**64

    def propensity(self, probability: float, *, let_through: bool) -> float:
        """Chance with which that became of something that would be blocked, in float32 as `served` has it."""
        chance = self.chance(probability)
        return float(np.float32(chance if let_through else 1 - chance))
