"""What would become of samples under a mapping: how many pass, and what would be a dead letter and why.
The same code as `run` takes: what passes here passes there.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import BadRecord
from schemas.values import to_json
from streams.mapping.mapper import Mapper
from streams.mapping.reading import Item


@dataclass(slots=True)
class Reason:
    """Why some samples would be dead letters, with the first of them."""

    code: str
    where: str
    count: int
    example: str
    place: str


@dataclass(slots=True)
class Report:
    """`filled`: by field of the contract, in how many of the good samples it is there and not empty."""

    samples: int = 0
    good: int = 0
    left_out: int = 0
    guests: int = 0
    users: int = 0
    reasons: dict[tuple[str, str], Reason] = field(default_factory=dict)
    filled: Counter[str] = field(default_factory=Counter)
    example: dict[str, Any] | None = None
    us: float = 0.0
    """CPU µs a sample."""

    @property
    def dead(self) -> int:
        return sum(reason.count for reason in self.reasons.values())

    def refuse(self, item: Item, error: BadRecord) -> None:
        place = f"{item.raw.topic}[{item.raw.partition}] at {item.raw.offset}"
        first = Reason(error.code, error.where, 0, str(error), place)
        self.reasons.setdefault((error.code, error.where), first).count += 1


def check(mapper: Mapper, items: Iterable[Item]) -> Report:
    """Raises RegistryUnavailable."""
    report, users = Report(), set[str]()
    began, now_ms = time.process_time(), time.time_ns() // 1_000_000
    for item in items:
        report.samples += 1
        try:
            mapped = map_item(mapper, item, now_ms)
        except BadRecord as error:
            report.refuse(item, error)
            continue
        if mapped is None:
            report.left_out += 1
            continue
        report.good += 1
        users.add(mapped.key.decode())
        report.filled.update(name for name, value in mapped.record.items() if value not in (None, "", [], {}))
        report.example = report.example or to_json(mapper.contract.contract, mapped.record)
    report.users, report.guests = len(users), sum(user.startswith("anon:") for user in users)
    report.us = (time.process_time() - began) / max(1, report.samples) * 1e6
    return report


def map_item(mapper: Mapper, item: Item, now_ms: int) -> Any:
    """A message, or a row that is decoded already. As Mapper."""
    if isinstance(item.value, BadRecord):
        raise item.value
    return mapper(item.raw, now_ms) if item.value is None else mapper.of_value(item.value, item.raw, now_ms)
