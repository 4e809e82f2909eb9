"""The history of a case, in words: raised, labels that came, and what people did, from the audit log.
A verdict whose label never reached its topic shows as such.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from streams.console.answers import ANALYST
from streams.console.cases import Case
from streams.console.rows import (
    ASSIGNMENT,
    NOTE,
    NOTE_REMOVED,
    OPINION,
    OPINION_WITHDRAWN,
    VERDICT,
    WITHDRAWAL,
    Change,
)
from streams.console.together import TOGETHER

Translate = Callable[..., str]
PLAIN = {
    WITHDRAWAL: "Verdict taken back",
    OPINION_WITHDRAWN: "Opinion taken back",
    NOTE: "Note written",
    NOTE_REMOVED: "Note removed",
}


class Event(NamedTuple):
    """`words` in English, with names that `verdict` and `more` fill. who: a pseudonym, empty for what no person did."""

    at: int
    words: str
    tone: str = ""
    who: str = ""
    verdict: str = ""
    more: str = ""

    def values(self, t: Translate) -> dict[str, str]:
        return {name: t(value) for name, value in (("verdict", self.verdict), ("more", self.more)) if value}


def history(case: Case) -> list[Event]:
    """Newest first."""
    alert = case.alert
    raised = f"{100 * alert['probability']:.0f}%"
    events = [Event(alert["raised_at"], "Raised at {more}: {verdict}", verdict=alert["decision"], more=raised)]
    known = {label.label_id for label in case.labels}
    told: set[str] = set()
    for change in case.changes:
        events.append(_done(change, known))
        told.add(str(json.loads(change.detail).get("label_id", "")))
    for label in case.labels:
        if label.label_id not in told:
            source = "Analyst" if label.source == ANALYST else label.source.capitalize()
            verdict, tone = _said(label.value)
            words, tone = ("{more}: taken back", "") if label.withdrawn else ("{more}: {verdict}", tone)
            events.append(Event(label.observed_at, words, tone, "", verdict, source))
    return sorted(events, key=lambda event: event.at, reverse=True)


def _done(change: Change, known: set[str]) -> Event:
    detail: dict[str, Any] = json.loads(change.detail or "{}")
    if change.action == ASSIGNMENT:
        return Event(change.at, "Taken on" if detail.get("to") else "Given back", "", change.who)
    if change.action in (VERDICT, OPINION):
        verdict, tone = _said(float(detail.get("value", 0)))
        name = "Opinion" if change.action == OPINION else "Verdict"
        lost = change.action == VERDICT and detail.get("label_id") not in known
        whole = ", for the whole case" if detail.get(TOGETHER) else ""
        words = f"{name}: {{verdict}}{whole}" + (", not published" if lost else "")
        return Event(change.at, words, "" if lost else tone, change.who, verdict)
    whole = ", for the whole case" if detail.get(TOGETHER) else ""
    return Event(change.at, PLAIN.get(change.action, change.action) + whole, "", change.who)


def _said(value: float) -> tuple[str, str]:
    """(the word, the tone) of a label's value."""
    return ("fraud", "bad") if value > 0 else ("genuine", "good")
