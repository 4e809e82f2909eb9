"""What the labels of one order come to: the answer that counts, by the same rule as the learner's join.
The highest revision speaks, of equal ones the first to come; a withdrawn verdict gives way to the one before it.
"""

from collections.abc import Iterable
from typing import NamedTuple

import xxhash

ANALYST, CHARGEBACK = "analyst", "chargeback"
WITHDRAWN = "-withdrawn"
"""The end of a label_id that takes the analyst's last verdict back; its value is what stood before, or 0."""
MOST_CHARACTERS = 200  # of an order_id in a label_id, which must have room for more


class Label(NamedTuple):
    label_id: str
    value: float
    source: str
    observed_at: int
    revision: int

    @property
    def withdraws(self) -> bool:
        return self.label_id.endswith(WITHDRAWN)


def standing(labels: Iterable[Label]) -> list[Label]:
    """Of an order's labels, in the order in which they came, those that stand; the last of them is the answer."""
    stack: list[Label] = []
    newest = -1
    for label in sorted(labels, key=lambda label: label.revision):
        if label.revision == newest:
            continue
        newest = label.revision
        if not label.withdraws:
            stack.append(label)
        elif stack and stack[-1].source == ANALYST:
            stack.pop()
    return stack


def answer(labels: Iterable[Label]) -> Label | None:
    stack = standing(labels)
    return stack[-1] if stack else None


def contradicted(labels: Iterable[Label]) -> Label | None:
    """A chargeback that does not count, because a higher revision spoke, and says otherwise: for a person to see."""
    known = list(labels)
    current = answer(known)
    if current is None or current.source != ANALYST:
        return None
    against = (label for label in known if label.source == CHARGEBACK and label.value != current.value)
    return max((one for one in against if one.observed_at >= current.observed_at), default=None)


def next_verdict(order_id: str, value: float, labels: Iterable[Label]) -> tuple[str, int, float]:
    """(label_id, revision, value) of an analyst's verdict: above all that is known of the order."""
    revision = 1 + max((label.revision for label in labels), default=-1)
    name = order_id if len(order_id) <= MOST_CHARACTERS else xxhash.xxh3_128_hexdigest(order_id.encode())
    return f"{name}-{ANALYST}-{revision}", revision, value


def withdrawal(order_id: str, labels: Iterable[Label]) -> tuple[str, int, float] | None:
    """The label that takes the analyst's last verdict back; None if none stands."""
    known = list(labels)
    stack = standing(known)
    if not stack or stack[-1].source != ANALYST:
        return None
    before = stack[-2].value if len(stack) > 1 else 0.0
    label_id, revision, value = next_verdict(order_id, before, known)
    return label_id + WITHDRAWN, revision, value
