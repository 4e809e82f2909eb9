"""What is blocked never gets a label, and what is approved gets one late: a few decisions are drawn, at known chances.
The draw is a keyed hash of the event's id: who has not the key can choose no id that passes, and each worker with the
key draws the same. The chance, and what else it could have been, are in the score: nothing has to draw again to know.

Of what would be blocked a small share is reviewed instead, more often the less certain its label is: in proportion to
its standard deviation sqrt(p (1 - p)) (Neyman 1934, optimal allocation). Each of them counts by the inverse of its
chance (Horvitz and Thompson 1952), so that all together stand for all of them.

Of the review budget a share goes to the orders nearest to the boundary between approve and review (uncertainty
sampling, Lewis and Gale 1994): by rank as many above it as below, twice as many as the share has room for, each drawn
with a chance of a half. Both outcomes get a label, so each of them counts once.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np

LEAST = 0.25
"""Of `share`: the chance of what the model is surest of. It bounds the weight of one order, at 4 / share."""
HALF = 0.5
RANKS = "review_ranks"
"""Setting of a release: the scores above which 0, 1/N, … 2 times the review budget lies."""
BLOCKED, NEAR = b"blocked", b"near"


@dataclass(frozen=True, slots=True)
class Exploration:
    """share: bounds the chance of each that would be blocked, and so the share of them that is let through.
    uncertain: of the review budget, what goes to the orders nearest to its boundary. 0: nothing is drawn.
    key: at most 64 bytes; equal on all workers.
    """

    share: float = 0.0
    uncertain: float = 0.0
    key: bytes = field(default=b"", repr=False)

    def chance(self, probability: float) -> float:
        """That something with this score, which would be blocked, is let through; from share / 4 to share.

        Of the score as its record holds it, in float32.
        """
        p = max(float(np.float32(probability)), 0.5)
        return self.share * max(LEAST, 2 * sqrt(p * (1 - p)))

    def lets_through(self, event_id: str, probability: float) -> bool:
        """Always the same answer."""
        chance = self.chance(probability)
        return chance > 0 and self._drawn(event_id, BLOCKED) < chance

    def propensity(self, probability: float, *, let_through: bool) -> float:
        """Chance with which that became of something that would be blocked, in float32 as `served` has it."""
        chance = self.chance(probability)
        return float(np.float32(chance if let_through else 1 - chance))

    def is_near(self, probability: float, settings: Mapping[str, Any]) -> bool:
        """Whether an order is one of those nearest to the boundary, by the settings of the release that scored it.

        A release that does not know its ranks has none.
        """
        ranks: Sequence[float] = settings.get(RANKS, ())
        if self.uncertain <= 0 or len(ranks) < 2:
            return False
        places = np.linspace(0, 2, len(ranks))
        high, low = np.interp((1 - self.uncertain, 1 + self.uncertain), places, ranks)
        return bool(low <= float(np.float32(probability)) < high)

    def reviews(self, event_id: str) -> bool:
        """Of what is near, one of two. Always the same answer."""
        return self._drawn(event_id, NEAR) < HALF

    def _drawn(self, event_id: str, purpose: bytes) -> float:
        """From 0 to 1, by a pseudo-random function: without the key nothing is known of it."""
        told = event_id.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(told, digest_size=8, key=self.key, person=purpose).digest()
        return int.from_bytes(digest, "little") / 2**64


NOTHING = Exploration()
