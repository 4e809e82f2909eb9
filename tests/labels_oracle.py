"""What the label join must have said in the end, written from its rules: two logs in, the last word on each out.
It knows no window's closing, no step and no row: only which label counts for which served record.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streams.labels.rules import Rule, shown

Record = Mapping[str, Any]
Last = dict[tuple[str, str, str], tuple[float, float]]
"""By target, candidate and name: label and weight of the newest example."""


def last_word(rule: Rule, served_log: Sequence[Record], labels: Iterable[Record]) -> Last:
    """What the newest examples must say once every window has closed, whatever came when."""
    first: dict[str, Record] = {}
    for record in served_log:
        first.setdefault(record["target_id"], record)
    newest: dict[tuple[str, str, str], Record] = {}
    for one in labels:
        target, candidate = one["target_id"], one["candidate_id"] or ""
        if target not in first or candidate not in (first[target]["candidates"] or [""]):
            continue
        if one["observed_at"] - first[target]["event_time"] > rule.limit_ms(one["name"]):
            continue
        key = target, candidate, one["name"]
        if key not in newest or one["revision"] > newest[key]["revision"]:
            newest[key] = one
    said = {}
    for target, record in first.items():
        weight = 1 / record["propensity"]
        silence = rule.negatives > 0 and record["decision"] not in rule.unanswered
        for candidate, seen in zip(record["candidates"] or [""], shown(record), strict=True):
            for name in rule.names:
                if known := newest.get((target, candidate, name)):
                    said[target, candidate, name] = (known["value"], weight)
                elif name == rule.name and seen and silence and rule.samples(target, candidate):
                    said[target, candidate, name] = (0.0, weight / rule.negatives)
    return said
