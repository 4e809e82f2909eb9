"""What the label join must have said in the end, written from its rules: two logs in, the last word on each out.
It knows no window's closing, no step and no row: only which label counts for which served record.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streams.labels.rules import Rule, shown

Record = Mapping[str, Any]
ORDER = ["chargeback", "refund", "analyst", "shop", "derived"]
"""Whose word counts, the first of them that speaks; whoever else speaks is heard last, all as one."""
Last = dict[tuple[str, str, str], tuple[float, float]]
"""By target, candidate and name: label and weight of the newest example."""


def last_word(rule: Rule, served_log: Sequence[Record], labels: Iterable[Record]) -> Last:
    """What the newest examples must say once every window has closed, whatever came when."""
    first: dict[str, Record] = {}
    for record in served_log:
        first.setdefault(record["target_id"], record)
    newest: dict[tuple[str, str, str], dict[int, Record]] = {}
    for one in labels:
        target, candidate = one["target_id"], one["candidate_id"] or ""
        if target not in first or candidate not in (first[target]["candidates"] or [""]):
            continue
        if one["observed_at"] - first[target]["event_time"] > rule.limit_ms(one["name"]):
            continue
        by_source = newest.setdefault((target, candidate, one["name"]), {})
        place = ORDER.index(one["source"]) if one["source"] in ORDER else len(ORDER)
        if place not in by_source or one["revision"] > by_source[place]["revision"]:
            by_source[place] = one
    standing = {
        key: min((place, one["value"]) for place, one in by_source.items() if not one["withdrawn"])[1]
        for key, by_source in newest.items()
        if not all(one["withdrawn"] for one in by_source.values())
    }
    said = {}
    for target, record in first.items():
        drawn = record.get("otherwise")
        both = drawn is not None and not {drawn, record["decision"]} & set(rule.unanswered)
        weight = 1.0 if both else 1 / record["propensity"]
        silence = rule.negatives > 0 and record["decision"] not in rule.unanswered
        for candidate, seen in zip(record["candidates"] or [""], shown(record), strict=True):
            for name in rule.names:
                if (target, candidate, name) in standing:
                    said[target, candidate, name] = (standing[target, candidate, name], weight)
                elif name == rule.name and seen and silence and rule.samples(target, candidate):
                    said[target, candidate, name] = (0.0, weight / rule.negatives)
    return said
