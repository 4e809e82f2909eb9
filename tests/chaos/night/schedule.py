"""Which fault strikes what, when and for how long, drawn from a seed: a pure function, so a night can be had again.
What it draws is a plan: a broker that is slow to come back delays the faults that touch brokers, and nothing else.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

LONGEST_WAIT_S = 40.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a kind of fault may strike, and how long it lasts, seconds.

    `targets`: each a name and what it touches meanwhile. Two faults that touch the same thing are never on at once,
    nor before `settle_s` have passed: two of three brokers away would stop all writing, which proves nothing.
    """

    targets: Mapping[str, frozenset[str]]
    least_s: float
    most_s: float
    settle_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault: from `start_s` to `end_s` after the beginning. `luck` seeds what it draws itself."""

    kind: str
    target: str
    start_s: float
    end_s: float
    touches: frozenset[str]
    luck: int

    def __str__(self) -> str:
        return f"{self.kind}: {self.target}, {self.end_s - self.start_s:.0f} s"


def draw(seed: int, seconds: float, kinds: Mapping[str, Bounds], pause_s: tuple[float, float]) -> list[Strike]:
    """The faults of `seconds`, by their start: one is drawn every `pause_s` (least, most); it waits its turn.

    Each kind comes once before any comes again, in an order of its own each time. One that would have to wait for more
    than LONGEST_WAIT_S, or for the end, is passed over until its next turn.
    """
    rng = random.Random(seed)
    free: dict[str, float] = {}
    found: list[Strike] = []
    deck = _deck(rng, list(kinds))
    now = rng.uniform(*pause_s)
    while now < seconds:
        kind = next(deck)
        bounds = kinds[kind]
        target = rng.choice(sorted(bounds.targets))
        touches = bounds.targets[target]
        lasts, luck = rng.uniform(bounds.least_s, bounds.most_s), rng.randrange(1 << 30)
        start = max([now, *(free.get(thing, 0.0) for thing in touches)])
        if start <= now + LONGEST_WAIT_S and start + lasts <= seconds:
            found.append(Strike(kind, target, start, start + lasts, touches, luck))
            free |= dict.fromkeys(touches, start + lasts + bounds.settle_s)
        now += rng.uniform(*pause_s)
    return sorted(found, key=lambda strike: (strike.start_s, strike.kind))


def _deck(rng: random.Random, kinds: list[str]) -> Iterator[str]:
    while True:
        rng.shuffle(kinds)
        yield from kinds
