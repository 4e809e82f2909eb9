"""What the policy page shows: which documents decide and shadow now, what was applied before, and how two differ.
Pure: records of the topic in, rows and lines for the templates out.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streams.events import Record
from streams.policies import TASK
from streams.policy_topic import STANDINGS, Applied

MOST_LINES = 2_000


@dataclass(frozen=True, slots=True)
class Policies:
    """kept: what was applied, the newest first. live, shadow: None where none decides or is shadowed."""

    live: Applied | None
    shadow: Applied | None
    kept: Sequence[Applied]

    def get(self, name: str) -> Applied | None:
        """live, shadow, or a version."""
        if name == "live":
            return self.live
        if name == "shadow":
            return self.shadow
        return next((one for one in self.kept if one.version == name), None)

    def standing(self, version: str) -> str:
        """live, shadow, both, or empty."""
        names = [
            name for name, one in (("live", self.live), ("shadow", self.shadow))
            if one is not None and one.version == version
        ]  # fmt: skip
        return " and ".join(names)


def policies(records: Mapping[str, Record]) -> Policies:
    """records: by the topic's keys, `fraud/live`, `fraud/shadow`, `fraud/VERSION`."""
    found = {key.partition("/")[2]: Applied.of(each) for key, each in records.items() if key.startswith(f"{TASK}/")}
    standing = {name: one for name, one in found.items() if name in STANDINGS and one.document}
    kept = sorted((one for name, one in found.items() if name not in STANDINGS), key=lambda one: -one.applied_at)
    return Policies(standing.get("live"), standing.get("shadow"), kept)


@dataclass(frozen=True, slots=True)
class Line:
    """kind: add, del, same, or gap between parts that are far from each other."""

    kind: str
    text: str


def diff(old: str, new: str, context: int = 3) -> list[Line]:
    """The lines that differ with some around them; empty where none do."""
    lines: list[Line] = []
    for text in difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=context):
        if text.startswith(("---", "+++")) and not lines:
            continue
        kind = {"+": "add", "-": "del", "@": "gap"}.get(text[:1], "same")
        lines.append(Line(kind, text))
    return lines[:MOST_LINES]


def counted(lines: Sequence[Line]) -> tuple[int, int]:
    """How many lines come and how many go."""
    return sum(line.kind == "add" for line in lines), sum(line.kind == "del" for line in lines)
