"""Fits the columns of a fraud model: which attributes it has, what their texts have meant so far, and their scalings.
What training reads of a text is what was known of it before each order: a table of all tells an order its own label.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines.columns import Scaling
from engines.fraud_head import FraudHead
from engines.signatures import MISSING
from streams.features import Rows
from streams.tasks.codes import encoded

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]
MOST_COLUMNS, LEAST_GIVEN = 256, 20
PRIOR = 20.0
"""Orders at the average rate that are added to a category's own."""
FLAGS, LEAST_SHARE = 6, 0.01
"""So many categories of a text, each of at least this share of the orders, are flags too."""
ROOM = 4
LARGEST_TABLE = 1 << 16


@dataclass(slots=True)
class Fitted:
    """`buffers` of `Columns` by name; `sizes` of the config. odds, counts (N, T): of the training rows, as of then."""

    buffers: dict[str, NDArray[Any]]
    sizes: dict[str, int]
    odds: NDArray[np.int32]
    counts: NDArray[np.int32]


def fit(rows: Rows, label: Floats) -> Fitted:
    """Of (N,) training rows in time order."""
    ids, values = rows["attribute_id"].astype(np.int32), rows["attribute_value"]
    names = _names(ids, values)
    numbers, texts = [name for name in names if name % 2 == 0], [name for name in names if name % 2]
    start: list[int] = []
    size: list[int] = []
    tables: list[Codes] = []
    flag_of: list[int] = []
    flag: list[float] = []
    odds, counts = np.zeros((2, len(rows), len(texts)), np.int32)
    for number, name in enumerate(texts):
        text = _column(ids, values, name)
        odds[:, number], counts[:, number] = map(encoded, so_far(text, label))
        table = _table(text, label)
        start.append(sum(size))
        size.append(len(table))
        tables.append(table)
        frequent = _frequent(text)
        flag_of += [number] * len(frequent)
        flag += frequent
    categories = np.concatenate(tables) if tables else np.zeros((1, 3), np.int32)
    buffers = {
        "names": np.array(numbers + texts, np.int32), "start": np.array(start, np.int32),
        "size": np.array(size, np.int32), "categories": categories,
        "flag_of": np.array(flag_of, np.int32), "flag": np.array(flag, np.int32),
    }  # fmt: skip
    sizes = {
        "attribute_pairs": ids.shape[1], "attribute_numbers": len(numbers), "attribute_texts": len(texts),
        "categories": len(categories), "flags": len(flag),
    }  # fmt: skip
    return Fitted(buffers, sizes, odds, counts)


def _names(ids: NDArray[np.int32], values: Floats) -> list[int]:
    """Of attributes given at least LEAST_GIVEN times, and not always alike; the most frequent ones, by id."""
    found, count = np.unique(ids, return_counts=True)
    order = np.argsort(-count, kind="stable")
    chosen: list[int] = []
    for name, given in zip(found[order].tolist(), count[order].tolist(), strict=True):
        if name and given >= LEAST_GIVEN and len(chosen) < MOST_COLUMNS:
            value = values[ids == name]
            if given < len(ids) or value.min() < value.max():
                chosen.append(name)
    return sorted(chosen)


def _column(ids: NDArray[np.int32], values: Floats, name: int) -> Floats:
    """(N,) values of one attribute, NaN where not given."""
    out = np.full(len(ids), np.nan, np.float32)
    row, place = np.nonzero(ids == name)
    out[row] = values[row, place]
    return out


def so_far(text: Floats, label: Floats) -> tuple[Floats, Floats]:
    """(N,) log-odds of each row's category above the average, and log1p of its count, both of earlier rows only."""
    _, group = np.unique(text, return_inverse=True)
    order = np.argsort(group, kind="stable")
    first = np.r_[True, np.diff(group[order]) > 0]
    start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    before = np.arange(len(order)) - start
    total = np.r_[0.0, np.cumsum(label[order], dtype=np.float64)]
    frauds = total[:-1] - total[start]
    count, positives = np.zeros((2, len(order)))
    count[order], positives[order] = before, frauds
    missing = np.isnan(text)
    odds = _odds(positives, count, float(label.mean()))
    return np.where(missing, np.nan, odds).astype(np.float32), np.where(missing, np.nan, np.log1p(count)).astype(
        np.float32
    )


def _odds(positives: NDArray[np.float64], count: NDArray[np.float64], average: float) -> NDArray[np.float64]:
    """Log-odds of the smoothed rate above those of the average; 0 for what was never seen."""
    rate = (positives + PRIOR * average) / (count + PRIOR)
    odds: NDArray[np.float64] = np.log(rate / (1 - rate)) - np.log(average / (1 - average))
    return odds


def _table(text: Floats, label: Floats) -> NDArray[np.int32]:
    """(size, 3) codes of one attribute. Where two of its texts meet at one entry, the more frequent one has it."""
    known = ~np.isnan(text)
    found, group, count = np.unique(text[known], return_inverse=True, return_counts=True)
    frauds = np.bincount(group, label[known], len(found)).astype(np.float64)
    size = 1
    while size < min(ROOM * len(found), LARGEST_TABLE):
        size *= 2
    table = np.zeros((size, 3), np.int32)
    rare_first = np.argsort(count, kind="stable")
    odds = _odds(frauds, count.astype(np.float64), float(label.mean()))
    entries = np.stack([found.astype(np.int32), encoded(odds), encoded(np.log1p(count))], axis=1)
    table[entries[rare_first, 0] % size] = entries[rare_first]
    return table


def _frequent(text: Floats) -> list[float]:
    found, count = np.unique(text[~np.isnan(text)], return_counts=True)
    best = np.argsort(-count, kind="stable")[:FLAGS]
    return [float(found[at]) for at in best if count[at] >= LEAST_SHARE * len(text)]


def put(module: torch.nn.Module, buffers: dict[str, NDArray[Any]]) -> None:
    """Into the module's buffers of these names."""
    with torch.no_grad():
        for name, array in buffers.items():
            getattr(module, name).copy_(torch.from_numpy(np.ascontiguousarray(array)))


def as_trained(head: FraudHead, columns: Codes, fitted: Fitted) -> Codes:
    """(N, M) columns with what was known of texts at the time, in place."""
    texts = fitted.odds.shape[1]
    if texts:
        first = head.plain - 2 * texts
        columns[:, first : first + texts], columns[:, first + texts : head.plain] = fitted.odds, fitted.counts
    return columns


def fit_scaling(scaling: Scaling, columns: Codes) -> None:
    """Knots at the quantiles of (N, C) columns, missing values left out; distinct values, where they are few."""
    count, knots = scaling.knots.shape
    starts, middle = np.zeros((count, knots), np.int32), np.zeros(count, np.int32)
    width = np.zeros((count, knots), np.float32)
    for number in range(count):
        known = columns[:, number][columns[:, number] != MISSING]
        if len(known):
            starts[number], width[number] = _stretches(known, knots)
            middle[number] = np.quantile(known, 0.5, method="lower")
    misses = (columns == MISSING).any(axis=0).astype(np.float32)
    put(scaling, {"knots": starts, "width": width, "middle": middle, "misses": misses})


def _stretches(known: Codes, knots: int) -> tuple[Codes, Floats]:
    """Where each stretch begins, and one over its length; a stretch that is not there has 0, and stays silent."""
    edges = np.unique(np.quantile(known, np.linspace(0, 1, knots + 1), method="nearest"))
    distinct = np.unique(known[:: max(1, len(known) // 10_000)])
    if len(distinct) <= knots + 1:
        edges = np.unique(known)[: knots + 1].astype(np.float64)
    start: Codes = np.zeros(knots, np.int32)
    width: Floats = np.zeros(knots, np.float32)
    lengths = np.diff(edges.astype(np.float64))
    start[: len(lengths)], width[: len(lengths)] = edges[:-1], 1 / lengths
    return start, width
