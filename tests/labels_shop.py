"""What the label join is given in tests: served records and labels of one shop, and rules to go by."""

from typing import Any

from streams.labels.join import Join
from streams.labels.joined import Joined
from streams.labels.rules import Rule
from streams.labels.state import State
from streams.labels.store import MemoryLabelStore
from tests.records import NOON_MS

MINUTE = 60_000
DAY = 1_440 * MINUTE
CTR = Rule("ctr", "click", 30 * MINUTE, 30 * MINUTE, also=(("conversion", 7 * DAY),))
FRAUD = Rule("fraud", "fraud", 28 * DAY, 60 * DAY, at_once=True, unanswered=("block",))
NOW = NOON_MS + 365 * DAY
FOR_EVER = NOW + DAY


def join_of(rule: Rule = CTR, **how: Any) -> Join:
    return Join(rule, State(MemoryLabelStore(), 3), **how)


def order(target: str = "o1", time: int = 0, **fields: Any) -> dict[str, Any]:
    return served(target, time, **({"task": "fraud", "candidates": [], "decision": "approve"} | fields))


def fraud(target: str = "o1", time: int = 0, value: float = 1.0, revision: int = 0, **fields: Any) -> dict[str, Any]:
    made = {"task": "fraud", "name": "fraud", "value": value, "revision": revision, "source": "chargeback"}
    return label(target, None, time, **made | fields)


def close(join: Join, time: int, alive: int = FOR_EVER) -> list[Joined]:
    """Event time comes to `time` ms after noon."""
    return join.advance(NOON_MS + time, alive, NOW)


def said(joined: list[Joined]) -> list[tuple[str | None, str, float, int]]:
    return [(one.candidate_id, one.name, one.label, one.revision) for one in joined]


def served(target: str = "t1", time: int = 0, **fields: Any) -> dict[str, Any]:
    """A served record; `time` in ms after noon."""
    return {
        "event_id": target, "task": "ctr", "target_id": target, "user_id": "ann", "event_time": NOON_MS + time,
        "served_at": NOON_MS + time, "release": "ctr/1", "engine": "null", "bucket": 1, "row": 0,
        "features_format": 1, "features": b"row of " + target.encode(), "candidates": ["a", "b", "c"],
        "prediction": [0.125, 0.25, 0.5], "decision": None, "propensity": 1.0, "late": False, "fallback": None,
        "cut": {"clicks": 0, "orders": -1, "impressions": 0},
    } | fields  # fmt: skip


def label(target: str = "t1", candidate: str | None = "a", time: int = 0, **fields: Any) -> dict[str, Any]:
    """A label; `time` in ms after noon. Its id is made of target, candidate, name and revision."""
    made = {
        "label_id": "", "task": "ctr", "target_id": target, "candidate_id": candidate, "name": "click", "value": 1.0,
        "source": "derived", "observed_at": NOON_MS + time, "revision": 0, "withdrawn": False,
    } | fields  # fmt: skip
    made["label_id"] = made["label_id"] or f"{target} {candidate} {made['name']} {made['revision']}"
    return made
