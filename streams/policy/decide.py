"""A policy made ready to decide: its rules compiled, its lists and costs beside them.
Rules come before money; what decided, what fired and what it may cost are part of the answer.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from streams.events import Record
from streams.policy import document
from streams.policy.costs import amount_in, cheapest, expected
from streams.policy.document import Document, Rule
from streams.policy.facts import Order
from streams.policy.lists import Lists
from streams.policy.rules import Rules
from streams.tasks.base import Verdict

NOTE = "note"


class Policy:
    """Decides as its document says. The same order, probability and lists have the same answer, at any time."""

    def __init__(self, document: Document, version: str, lists: Lists, where: str = "") -> None:
        """Raises PolicyError where a rule cannot be compiled."""
        self.document, self.version, self.lists = document, version, lists
        self._rules = Rules(document.rules, where or version)

    @classmethod
    def parse(cls, text: str, lists: Lists, where: str) -> Self:
        """Raises PolicyError."""
        parsed = document.parse(text, where)
        return cls(parsed, document.version(parsed, text), lists, where)

    def take_failures(self) -> Mapping[str, int]:
        """Orders that a rule could not judge, by its id, since this was last asked."""
        found, self._rules.failures = self._rules.failures, Counter()
        return found

    def decide(self, event: Record, probability: float, fields: NDArray[np.float32]) -> Verdict:
        """fields: the order's row of streams.tasks.fraud.FIELDS."""
        terms = self.document.money
        amount = None if terms is None else amount_in(event, terms)
        costs = None if terms is None or amount is None else expected(probability, amount, terms)
        loss = None if costs is None else costs["approve"]
        fired = self._rules.fired(Order(event, fields, probability, loss or 0.0, self.lists))
        decisive = next((rule for rule in fired if rule.then != NOTE), None)
        return Verdict(
            decisive.then if decisive else cheapest(costs) if costs else self._by_threshold(probability),
            decided_by=decisive.id if decisive else "",
            rules=tuple(rule.id for rule in fired),
            because=tuple(_said(rule) for rule in fired),
            version=self.version,
            expected_loss=loss,
        )

    def _by_threshold(self, probability: float) -> str:
        thresholds = self.document.thresholds
        if probability >= thresholds.block:
            return "block"
        return "review" if probability >= thresholds.review else "approve"


def _said(rule: Rule) -> str:
    return rule.because.get("en") or f"rule {rule.id}"
