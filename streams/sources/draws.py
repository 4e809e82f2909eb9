"""Random scalars from one numpy generator, drawn in blocks: a numpy call each would cost more than the rest.
The same generator state gives the same values in the same order on any machine.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

BLOCK = 4096
T = TypeVar("T")


def _uniforms(generator: np.random.Generator) -> Iterator[float]:
    while True:
        yield from generator.random(BLOCK).tolist()


class Draws:
    """`uniform()` is in [0, 1). Not for use by two threads."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.uniform: Callable[[], float] = _uniforms(generator).__next__

    def chance(self, probability: float) -> bool:
        return self.uniform() < probability

    def below(self, bound: int) -> int:
        """A whole number from 0 to bound - 1."""
        return int(self.uniform() * bound)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.uniform()

    def one_of(self, values: Sequence[T]) -> T:
        return values[self.below(len(values))]

    def normal(self) -> float:
        """Standard normal, by Box and Muller."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.uniform()))
        return radius * math.cos(2.0 * math.pi * self.uniform())

    def log_normal(self, median: float, sigma: float) -> float:
        return median * math.exp(sigma * self.normal())

    def exponential(self, mean: float) -> float:
        return -mean * math.log(1.0 - self.uniform())

    def token(self, prefix: str) -> str:
        """`prefix` and 48 random bits in hexadecimal."""
        return f"{prefix}{int(self.uniform() * 281_474_976_710_656):012x}"
