"""Policies as people and programs may write them, tried on orders of all kinds, through the code that serves.
A text is refused with a PolicyError or decides every order that the checks let through: nothing else may happen.
"""

from random import Random
from typing import Any, NamedTuple

import numpy as np

from schemas import catalog
from schemas.errors import BadRecord, PolicyError
from streams.batch import ORDERS
from streams.events import EVENT_TYPES, check
from streams.policy.decide import Policy
from streams.policy.lists import Lists
from streams.tasks.fraud import FIELDS
from tests import records
from tests.fuzz import drawing
from tests.fuzz.rules_text import condition
from tests.fuzz.target import Wrong

DECISIONS = ("approve", "review", "block")
ORDERS_EACH = 3
LONGEST_ERROR = 20_000
WHOLE = """name = "shop"
[thresholds]
review = 0.3
block = 0.8
[money]
currency = "GBP"
rates = { USD = 0.8, JPY = 0.005 }
[budget]
alerts_per_day = 100
"""


class Try(NamedTuple):
    text: str
    orders: list[tuple[Any, list[float], float]]
    """Order, its columns, probability."""


class Policies:
    def __init__(self) -> None:
        self._schema = catalog.load("order")
        self._lists = Lists()

    def draw(self, random: Random) -> Try:
        rules = [
            f'[[rules]]\nid = "r{n}"\nwhen = {_toml(condition(random))}\nthen = "{random.choice(DECISIONS)}"\n'
            for n in range(random.choice((1, 1, 2, 4)))
        ]
        text = WHOLE + "".join(rules)
        if random.random() < 0.15:
            text = drawing.spoilt(random, text.encode(), WHOLE.encode()).decode(errors="replace")
        elif random.random() < 0.01:
            depth = random.choice((10, 2_000, 100_000))
            text += f"deep = {'[' * depth}{']' * random.choice((0, depth))}"
        return Try(text, [self._order(random) for _ in range(ORDERS_EACH)])

    def _order(self, random: Random) -> tuple[Any, list[float], float]:
        order, drawn = records.order(), drawing.value(random, self._schema, {})
        for name in random.sample(sorted(order), random.choice((0, 1, 4, len(order)))):
            order[name] = drawn[name]
        fields = [float(random.choice((-1, 0, 1, random.uniform(0, 30), 43.0))) for _ in FIELDS]
        return order, fields, random.choice((0.0, 1.0, random.random()))

    def look(self, given: Try) -> str:
        try:
            policy = Policy.parse(given.text, self._lists, "fuzz")
        except PolicyError as error:
            if len(str(error)) > LONGEST_ERROR:
                raise Wrong(f"a refusal of {len(str(error))} characters") from None
            return "refused"
        for order, fields, probability in given.orders:
            try:
                check(order, EVENT_TYPES[ORDERS], drawing.NOW_MS)
            except BadRecord:
                continue
            columns = np.array(fields, np.float32)
            verdict, again = (policy.decide(order, probability, columns) for _ in range(2))
            if verdict.decision not in DECISIONS or repr(verdict) != repr(again):
                raise Wrong(f"{verdict} and then {again}")
        return "failed" if policy.take_failures() else "decided"

    def close(self) -> None: ...


def _toml(text: str) -> str:
    """As a basic string: what is inside may be anything."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 32 else c for c in plain) + '"'
