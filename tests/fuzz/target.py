"""What a fuzzing target is, and how one is made by its name.
Every input is drawn from (seed, number) alone, so that those two numbers are all that a finding needs to be kept.
"""

import importlib
from random import Random
from typing import Any, Protocol

from tests.fuzz import TARGETS


class Target(Protocol):
    """`draw` and `look` are called in turn, from one thread; a target may keep state between inputs, bounded."""

    def draw(self, random: Random) -> Any:
        """An input. Its repr is what a finding shows."""

    def look(self, given: Any) -> str:
        """A word for how it ended, one of a few. Whatever it raises is a finding."""

    def close(self) -> None: ...


class Wrong(Exception):
    """An answer that came, and may not have: another record than was written, a status that is not stated."""


def make(name: str) -> Target:
    module, _, kind = TARGETS[name].partition(":")
    made: Target = getattr(importlib.import_module(module), kind)()
    return made


def random_of(seed: int, number: int) -> Random:
    """The same for the same two numbers, on any machine."""
    return Random(f"{seed}/{number}")
