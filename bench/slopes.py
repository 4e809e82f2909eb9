"""Whether a curve is flat: a slope that a few outliers do not move, and quarters set beside each other.
It knows points alone; what is flat enough is for whoever asks.
"""

from collections.abc import Sequence

import numpy as np

MOST_POINTS = 500
"""Pairs are taken among so many, evenly chosen: 125,000 slopes."""


def theil_sen(x: Sequence[float], y: Sequence[float]) -> float:
    """The median of the slopes of all pairs of points (Theil 1950, Sen 1968), in units of y over x.

    Up to 29 % of the points may be anything. 0 of fewer than two distinct x.
    """
    chosen = np.unique(np.linspace(0, max(0, len(x) - 1), min(len(x), MOST_POINTS)).astype(np.intp))
    xs, ys = np.asarray(x, np.float64)[chosen], np.asarray(y, np.float64)[chosen]
    one, other = np.triu_indices(len(xs), 1)
    apart = xs[other] - xs[one]
    distinct = apart != 0
    return float(np.median((ys[other] - ys[one])[distinct] / apart[distinct])) if distinct.any() else 0.0


def quarter(values: Sequence[float], number: int) -> float:
    """The median of the first (1) to last (4) quarter of the values; NaN where there are fewer than four.
    What is not finite does not count."""
    if len(values) < 4:
        return float("nan")
    of_it = np.array_split(np.asarray(values, np.float64), 4)[number - 1]
    return float(np.median(of_it[np.isfinite(of_it)])) if np.isfinite(of_it).any() else float("nan")
