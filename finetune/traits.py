"""What can be read from a served row: numbers whose distribution is watched, and kinds of events that are compared.
A row holds no country and no account; what it holds of the user is the history, of the event its sizes and its place.
"""

import numpy as np
from numpy.typing import NDArray

from finetune.examples import SLATE, Examples
from streams.catalog import Catalogue
from streams.features import HISTORY_LENGTH, Rows
from streams.tasks.base import Task
from streams.tasks.fraud import COLUMN, FIELDS

CLOCK = frozenset({"hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "account_hours"})
"""Columns that say when it was: new examples are always of another time than old ones."""
HOUR_MS = 3_600_000
Texts = NDArray[np.str_]


def columns(task: Task, catalog: Catalogue, rows: Rows) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names (F) and values (N, F), NaN where unknown."""
    found = {"price": price(task, catalog, rows)}
    names = task.features.names or ()
    if "fields" in names:
        fields = rows["fields"].astype(np.float64)
        found |= {name: fields[:, COLUMN[name]] for name in FIELDS if name not in CLOCK}
    if SLATE in names:
        real = rows[SLATE] > 0
        found["ads"] = rows["ads"].astype(np.float64)
        found["mean bid"] = (rows["bid"] * real).sum(axis=1) / np.maximum(real.sum(axis=1), 1)
    return tuple(found), np.stack(list(found.values()), axis=1)


def slices(
    task: Task, catalog: Catalogue, examples: Examples, example: NDArray[np.intp], place: NDArray[np.intp]
) -> dict[str, Texts]:
    """By kind the value (n,) of each label: of the examples of numbers `example` (n,), at `place` (n,) in them."""
    rows = examples["features"]
    found = {
        "history": history(rows)[example],
        "price": bands(price(task, catalog, rows))[example],
        "hour": hours(examples["time"])[example],
    }
    names = task.features.names or ()
    if "fields" in names:
        foreign = rows["fields"][:, COLUMN["foreign_card"]] > 0.5
        found["card"] = np.where(foreign, "foreign", "domestic")[example]
    if SLATE in names:
        found["position"] = rows["position"][example, place].astype(np.str_)
    return found


def history(rows: Rows) -> Texts:
    """(N,) how new the user is: by the number of events that were known."""
    count = (rows["kind"] > 0).sum(axis=1)
    names: Texts = np.array(["none", "1-7", "8-63", f"{HISTORY_LENGTH}"])
    return np.asarray(names[np.digitize(count, [1, 8, HISTORY_LENGTH])])


def price(task: Task, catalog: Catalogue, rows: Rows) -> NDArray[np.float64]:
    """(N,) units of currency of the order, or of the item in view; NaN where unknown."""
    names = task.features.names or ()
    if "fields" in names:
        return np.asarray(np.expm1(rows["fields"][:, COLUMN["amount"]].astype(np.float64)))
    item = rows["context_item" if "context_item" in names else "now_item"]
    known, at = np.unique(item, return_inverse=True)
    found = np.array([catalog.price(row) for row in known.tolist()], np.float64)[at.reshape(-1)]
    return np.where(found > 0, found, np.nan)


def bands(price: NDArray[np.float64]) -> Texts:
    """(N,) low, middle or high: a third of what is known each."""
    known = price[np.isfinite(price)]
    borders = np.quantile(known, [1 / 3, 2 / 3]) if len(known) else np.zeros(2)
    named = np.array(["low", "middle", "high"])[np.digitize(price, borders)]
    return np.where(np.isfinite(price), named, "unknown")


def hours(time: NDArray[np.int64]) -> Texts:
    """(N,) a quarter of the day, UTC."""
    quarters: Texts = np.array(["0-5", "6-11", "12-17", "18-23"])
    return np.asarray(quarters[time // HOUR_MS % 24 // 6])
