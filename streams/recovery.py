"""What a crash left half said, and the order in which to say the rest.
A predecessor may have scored events past the committed offsets; their scores are on the topics, each with its cut.
Events are taken again in an order that agrees with every cut, so that what was said is what is said again.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Cut = tuple[int, int, int]


def processing_order(
    users: Sequence[str], topic: Sequence[int], offset: Sequence[int], cuts: Sequence[Cut | None]
) -> NDArray[np.int64]:
    """Positions of N events in an order that reproduces the cuts of those already scored.

    A cut is the user's newest processed offset per topic, the event included, so it grows with every event of the
    user: scored events go by the sum of their cuts. An event without a score goes right before the user's first
    scored event whose cut includes it (it was absorbed, its score was lost), or to the end.
    """
    scored: dict[str, list[Cut]] = defaultdict(list)
    for user, cut in zip(users, cuts, strict=True):
        if cut is not None:
            scored[user].append(cut)
    for known in scored.values():
        known.sort(key=sum)

    def key(number: int) -> tuple[float, int, int, int]:
        cut = cuts[number]
        if cut is not None:
            return sum(cut), 1, topic[number], offset[number]
        after = (sum(known) for known in scored[users[number]] if known[topic[number]] >= offset[number])
        return next(after, np.inf), 0, topic[number], offset[number]

    return np.array(sorted(range(len(users)), key=key), np.int64)


def horizon(cuts: Sequence[Cut]) -> Cut:
    """The newest offset per topic that any of the cuts includes: how far a predecessor had read, at least."""
    if not cuts:
        return (-1, -1, -1)
    newest = np.max(np.array(cuts, np.int64), axis=0).tolist()
    return newest[0], newest[1], newest[2]
