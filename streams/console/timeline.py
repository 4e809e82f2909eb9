"""What the user had done before the order, as the model saw it: the history tokens of the features row, in words.
Runs of one kind become one step, so that forty views read as what they are: one visit.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from streams.batch import KINDS

NAMES = {number: name for name, number in KINDS.items()}
VISIT_S = 1_800  # after so long a pause a new visit begins
ItemName = Callable[[int], str]


class Step(NamedTuple):
    """One thing the user did, or the same one several `times` on end; of an order, its number of lines.

    Ages in seconds before the order that is judged, `until` that of the newest.
    `items`: names of what it was about, the newest first; `value` in units of currency, of all together.
    """

    kind: str
    age: int
    until: int
    times: int
    value: float
    items: tuple[str, ...]


class Visit(NamedTuple):
    """Steps without a long pause between; `pause`: seconds from its end to the beginning of the next one."""

    steps: list[Step]
    pause: int


def steps(row: np.void, item_name: ItemName = lambda row: "") -> list[Step]:
    """Newest first, without the order itself."""
    found: list[Step] = []
    lines: list[str] = []  # of the order that comes next
    for kind, age, value, quantity, item in _tokens(row):
        name = item_name(item) if item else ""
        if kind == "purchase":
            lines += [name] if name and name not in lines else []
            continue
        if kind == "order":
            found.append(Step(kind, age, age, quantity, value, tuple(reversed(lines))))
            lines = []
        elif found and found[-1].kind == kind and age - found[-1].age < VISIT_S:
            last = found[-1]
            items = last.items if not name or name in last.items else (*last.items, name)
            found[-1] = last._replace(age=age, times=last.times + 1, value=last.value + value, items=items)
        else:
            found.append(Step(kind, age, age, 1, value, (name,) if name else ()))
    return found


def visits(found: list[Step]) -> list[Visit]:
    """Newest first."""
    out: list[Visit] = []
    newer = 0
    for step in found:
        pause = step.until - newer
        if not out or pause >= VISIT_S:
            out.append(Visit([], pause))
        out[-1].steps.append(step)
        newer = step.age
    return out


def _tokens(row: np.void) -> Iterator[tuple[str, int, float, int, int]]:
    """(kind, age, value, quantity, catalogue row), the newest first; padding is left out.

    The row has the oldest first, so an order comes before its lines: turned round, after them.
    """
    columns = (row[name].tolist()[::-1] for name in ("kind", "age", "value", "quantity", "item"))
    for kind, age, value, quantity, item in zip(*columns, strict=True):
        if kind:
            yield NAMES.get(kind, "unknown"), age, value, quantity, item
