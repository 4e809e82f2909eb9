"""What the labels of one order come to: the answer that counts, by the same rule as the learner's join.
Of each source its highest revision speaks, of equal ones the first on the topic; a chargeback outranks an analyst.
"""

import secrets
from collections.abc import Iterable
from typing import NamedTuple

import xxhash

from streams.labels.rules import rank

ANALYST, CHARGEBACK = "analyst", "chargeback"
WITHDRAWN = "-withdrawn"
"""The end of a label_id that takes the analysts' last verdict back: it says what they had said before, or nothing."""
MOST_CHARACTERS = 200  # of an order_id in a label_id, which must have room for more


class Label(NamedTuple):
    label_id: str
    value: float
    source: str
    observed_at: int
    revision: int
    withdrawn: bool = False
    """Its source says nothing any more."""

    @property
    def withdraws(self) -> bool:
        return self.withdrawn or self.label_id.endswith(WITHDRAWN)


def verdicts(labels: Iterable[Label]) -> list[Label]:
    """Of an order's labels, in the order in which they came, the analysts' that stand; the last is what they say."""
    stack: list[Label] = []
    newest = -1
    for label in sorted(labels, key=lambda label: label.revision):
        if label.source != ANALYST or label.revision == newest:
            continue
        newest = label.revision
        if label.withdrawn:
            stack.clear()
        elif label.withdraws:
            stack[-1:] = []
        else:
            stack.append(label)
    return stack


def answer(labels: Iterable[Label]) -> Label | None:
    """The label that counts; None: nobody has said anything, or it was taken back."""
    known = list(labels)
    newest: dict[int, Label] = {}
    for label in known:
        place = rank(label.source)
        if label.source != ANALYST and (place not in newest or label.revision > newest[place].revision):
            newest[place] = label
    standing = [label for label in newest.values() if not label.withdrawn] + verdicts(known)[-1:]
    return min(standing, key=lambda label: rank(label.source), default=None)


def overruled(labels: Iterable[Label]) -> Label | None:
    """The analysts' verdict, where another source counts more and says otherwise: for a person to know."""
    known = list(labels)
    current, said = answer(known), verdicts(known)
    if current is None or not said or said[-1].value == current.value:
        return None
    return said[-1]


def next_verdict(order_id: str, value: float, labels: Iterable[Label]) -> Label:
    """An analyst's verdict, above all that is known of the order; observed_at is for the caller to say. Of two
    consoles that judge at once each makes a label of its own, and the first one on the topic counts.
    """
    revision = 1 + max((label.revision for label in labels), default=-1)
    name = order_id if len(order_id) <= MOST_CHARACTERS else xxhash.xxh3_128_hexdigest(order_id.encode())
    return Label(f"{name}-{ANALYST}-{revision}-{secrets.token_hex(4)}", value, ANALYST, 0, revision)


def withdrawal(order_id: str, labels: Iterable[Label]) -> Label | None:
    """The label that takes the analysts' last verdict back; None if none stands."""
    known = list(labels)
    stack = verdicts(known)
    if not stack:
        return None
    before = stack[-2].value if len(stack) > 1 else 0.0
    label = next_verdict(order_id, before, known)
    return label._replace(label_id=label.label_id + WITHDRAWN, withdrawn=len(stack) == 1)
