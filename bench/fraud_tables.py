"""Foreign tables of fraud, made up: numbers and texts of a shop that Headrace has never seen, half of them missing.
Each world is another way in which columns give fraud away; a table is a stream of orders in time with its labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
START_MS, DAY_MS = 1_650_000_000_000, 86_400_000
DAYS = 120


@dataclass(frozen=True, slots=True)
class Table:
    """columns: by name (N,), numbers with NaN or texts with None where missing. time: UTC ms, rising. label: 0 or 1."""

    name: str
    columns: dict[str, NDArray[Any]]
    user: NDArray[np.int64]
    time: NDArray[np.int64]
    amount: Floats
    label: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.label)

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Orders, and the chargebacks of those that were fraud when all is over: (topic, record)."""
        given = {name: column.tolist() for name, column in self.columns.items()}
        for number in range(len(self)):
            attributes = {name: column[number] for name, column in given.items() if not _missing(column[number])}
            yield (
                "orders",
                order(number, int(self.user[number]), int(self.time[number]), self.amount[number], attributes),
            )
        end = int(self.time[-1]) + DAY_MS
        for number in np.flatnonzero(self.label > 0).tolist():
            yield "labels", label(number, end)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def order(number: int, user: int, time: int, amount: float, attributes: dict[str, Any]) -> dict[str, Any]:
    """An Order of one line, in physical types; what only a table says is in `attributes`."""
    price = round(float(amount) * 10_000).to_bytes(9, "big", signed=True)
    return {
        "event_id": f"e{number}", "event_time": time, "user_id": f"u{user}", "session_id": None, "device": None,
        "attributes": attributes, "order_id": f"o{number}",
        "items": [{"item_id": "any", "quantity": 1, "unit_price": price, "request_id": None}],
        "amount": price, "currency": "EUR",
        "payment": {"method": "card", "instrument": None, "bin": None, "issuer_country": None},
        "email": None, "billing_address": None, "shipping_address": None, "ip": None, "device_id": None,
        "country": None,
    }  # fmt: skip


def label(number: int, observed: int) -> dict[str, Any]:
    """The chargeback of an order."""
    return {
        "label_id": f"l{number}", "task": "fraud", "target_id": f"o{number}", "candidate_id": None, "name": "fraud",
        "value": 1.0, "source": "chargeback", "observed_at": observed, "revision": 0, "user_id": None,
    }  # fmt: skip


class _Maker:
    """Draws columns, and adds up what they say of fraud."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows, self.draw = rows, np.random.default_rng(seed)
        self.columns: dict[str, NDArray[Any]] = {}
        self.odds = np.zeros(rows)
        self.users = self.draw.zipf(1.6, rows) % (rows // 4)
        self.when = np.sort(self.draw.uniform(0, 1, rows))

    def number(self, name: str, kind: str = "normal") -> Floats:
        if kind == "heavy":
            made = self.draw.standard_t(2, self.rows) * 50
        elif kind == "log":
            made = np.exp(self.draw.normal(3, 1.5, self.rows))
        elif kind == "count":
            made = self.draw.poisson(3, self.rows).astype(np.float64)
        else:
            made = self.draw.standard_normal(self.rows)
        self.columns[name] = made
        return np.asarray(made, np.float64)

    def text(self, name: str, size: int, spread: float, slope: float = 1.2) -> NDArray[np.int64]:
        """A text of `size` categories, Zipf-like; each has log-odds of its own with this spread."""
        weight = 1 / np.arange(1, size + 1) ** slope
        code = self.draw.choice(size, self.rows, p=weight / weight.sum())
        self.odds += self.draw.normal(0, spread, size)[code]
        self.columns[name] = np.array([f"{name}-{number:04d}" for number in range(size)], object)[code]
        return code

    def table(self, name: str, rate: float, missing: float = 0.5, informative: float = 0.0) -> Table:
        """Draws the labels at this rate, then hides values: more often of fraud where that is to be informative."""
        shift = _intercept(self.odds, rate)
        label = (self.draw.uniform(size=self.rows) < _sigmoid(self.odds + shift)).astype(np.float32)
        for number, (key, column) in enumerate(self.columns.items()):
            share = np.full(self.rows, missing)
            if number % 4 == 0:
                share += informative * (label - 0.5)
            hidden = self.draw.uniform(size=self.rows) < share
            self.columns[key] = column.copy()
            self.columns[key][hidden] = None if column.dtype == object else np.nan
        time = (START_MS + self.when * DAYS * DAY_MS).astype(np.int64)
        return Table(name, self.columns, self.users, time, np.exp(self.draw.normal(3.5, 1, self.rows)), label)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)), np.float64)


def _intercept(odds: Floats, rate: float) -> float:
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _sigmoid(odds + middle).mean() < rate else (low, middle)
    return low


def mixed(rows: int, seed: int) -> Table:
    """Smooth and bent numbers, a few pairs that work together, texts with rates of their own, and much noise."""
    made = _Maker(rows, seed)
    kinds = ("normal", "heavy", "log", "count")
    numbers = [made.number(f"n{i}", kinds[i % 4]) for i in range(60)]
    ranks = [number.argsort().argsort() / rows - 0.5 for number in numbers]
    for i in range(8):
        made.odds += made.draw.normal(0, 1.5) * ranks[i] + made.draw.normal(0, 4) * (ranks[i] ** 2 - 1 / 12)
    for i in range(8, 16, 2):
        made.odds += made.draw.normal(0, 8) * ranks[i] * ranks[i + 1]
    for i in range(40):
        made.text(f"t{i}", (5, 30, 300, 3000)[i % 4], 0.7 if i < 10 else 0.0)
    return made.table("mixed", 0.03)


def rules(rows: int, seed: int) -> Table:
    """Sharp rules: a number beyond its bound together with a category; whether a value is missing says something."""
    made = _Maker(rows, seed)
    numbers = [made.number(f"n{i}", ("log", "normal", "count")[i % 3]) for i in range(50)]
    codes = [made.text(f"t{i}", (4, 12, 60, 800)[i % 4], 0.3 if i < 6 else 0.0) for i in range(50)]
    for i in range(12):
        bound = np.quantile(numbers[i], made.draw.uniform(0.5, 0.9))
        made.odds += made.draw.uniform(1, 2.5) * ((numbers[i] > bound) & (codes[i] == made.draw.integers(0, 3)))
    return made.table("rules", 0.02, informative=0.1)


def drifting(rows: int, seed: int) -> Table:
    """Weights that move with time, and users some of whom are fraudulent again and again."""
    made = _Maker(rows, seed)
    numbers = [made.number(f"n{i}", ("normal", "heavy")[i % 2]) for i in range(70)]
    for i in range(12):
        rank = numbers[i].argsort().argsort() / rows - 0.5
        made.odds += (made.draw.normal(0, 2) + made.draw.normal(0, 1.5) * made.when) * rank
    made.odds += made.draw.normal(0, 1.0, made.users.max() + 1)[made.users]
    for i in range(30):
        made.text(f"t{i}", (6, 40, 2000)[i % 3], 0.6 if i < 8 else 0.0)
    return made.table("drifting", 0.04)


def smooth(rows: int, seed: int) -> Table:
    """A random network of many weak columns, with hardly any missing: where trees have a hard time."""
    made = _Maker(rows, seed)
    numbers = np.stack([made.number(f"n{i}", "normal") for i in range(80)], axis=1)
    hidden = np.tanh(numbers[:, :30] @ made.draw.normal(0, 0.35, (30, 24)))
    made.odds += hidden @ made.draw.normal(0, 0.8, 24)
    for i in range(20):
        made.text(f"t{i}", (3, 20, 500)[i % 3], 0.4 if i < 6 else 0.0)
    return made.table("smooth", 0.05, missing=0.3)


TABLES = {"mixed": mixed, "rules": rules, "drifting": drifting, "smooth": smooth}
