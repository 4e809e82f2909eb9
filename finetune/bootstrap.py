"""The paired bootstrap: how far a candidate is from the champion on the same events, and how sure that is.
Each draw weighs every unit (a user, or an event) by a Poisson(1) count, the same for both sides, so what the two
share cancels out (Koehn 2004, Statistical significance tests for machine translation evaluation, paired; Efron and
Tibshirani 1993, chapter 13, percentiles; Chamandy et al. 2012, Estimating uncertainty for massive data streams,
Poisson counts in place of the multinomial).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.metrics import EPSILON

Floats = NDArray[np.float64]
Figures = tuple[Floats, Floats]
"""(draws,) of the champion and of the candidate."""
Statistic = Callable[[Floats], Figures]
"""From (draws, units) counts to the figures of both."""
CELLS = 2_000_000  # of draws x events that are held at a time: 16 MB


@dataclass(frozen=True, slots=True)
class Difference:
    """champion, candidate: the figures as they are. difference, low, high: how much better the candidate is, oriented
    so that more is better; low and high bound it with one-sided confidence each.
    """

    champion: float
    candidate: float
    difference: float
    low: float
    high: float


def units_of(user: NDArray[np.generic]) -> NDArray[np.intp]:
    """(N,) numbers from 0 of the distinct values."""
    found: NDArray[np.intp] = np.unique(user, return_inverse=True)[1].reshape(-1)
    return found


def counts(units: int, draws: int, seed: int, per_draw: int) -> Iterator[Floats]:
    """Poisson(1) counts (b, units), `draws` rows in all, in chunks for `per_draw` cells a draw."""
    rng = np.random.default_rng(seed)
    chunk = max(1, CELLS // max(per_draw, 1))
    for start in range(0, draws, chunk):
        yield rng.poisson(1.0, (min(chunk, draws - start), units)).astype(np.float64)


def paired(
    statistic: Statistic, units: int, per_draw: int, *, relative: bool, lower_is_better: bool = False,
    confidence: float = 0.95, draws: int = 1000, seed: int = 0,
) -> Difference:  # fmt: skip
    """relative: differences are shares of the champion's figure. Draws in which a figure has no value are left out."""
    sign = -1.0 if lower_is_better else 1.0

    def gain(figures: Figures) -> Floats:
        champion, candidate = figures
        return sign * (candidate - champion) / (np.maximum(np.abs(champion), EPSILON) if relative else 1.0)

    now = statistic(np.ones((1, units)))
    drawn = np.concatenate([gain(statistic(chunk)) for chunk in counts(units, draws, seed, per_draw)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [1 - confidence, confidence]) if len(drawn) else (-np.inf, np.inf)
    return Difference(float(now[0][0]), float(now[1][0]), float(gain(now)[0]), float(low), float(high))


def mean_ratio(unit: NDArray[np.intp], champion: Floats, candidate: Floats, under: Floats) -> Statistic:
    """Sum of a value of each event over the sum of `under` (N,): a weighted mean, or a loss over the base's."""
    units = int(unit.max()) + 1
    sums = np.stack([np.bincount(unit, each, units) for each in (champion, candidate, under)], axis=1)

    def statistic(count: Floats) -> Figures:
        totals = count @ sums
        with np.errstate(divide="ignore", invalid="ignore"):
            return totals[:, 0] / totals[:, 2], totals[:, 1] / totals[:, 2]

    return statistic


def ranking(
    unit: NDArray[np.intp], label: Floats, weight: Floats, champion: Floats, candidate: Floats,
    figure: Callable[[Floats, Floats, Floats], Floats],
) -> Statistic:  # fmt: skip
    """`figure` of the curve of each side: its arguments are `Curve.points`."""
    sides = [Curve(unit, label, weight, each) for each in (champion, candidate)]
    return lambda count: (figure(*sides[0].points(count)), figure(*sides[1].points(count)))


class Curve:
    """Events in order of their score, cut after each group of equal scores that holds a positive: only there does a
    curve over thresholds rise.
    """

    def __init__(self, unit: NDArray[np.intp], label: Floats, weight: Floats, score: Floats) -> None:
        order = np.argsort(-score, kind="stable")
        ranked, positive = score[order], label[order] > 0.5
        end = np.append(ranked[1:] != ranked[:-1], True)
        group = np.concatenate([[0], np.cumsum(end)[:-1]])
        ends = np.flatnonzero(end)[np.unique(group[positive])]
        self._unit, self._weight = unit[order], weight[order]
        self._starts = np.concatenate([[0], ends + 1])[: len(ends)]
        self._cut = int(ends[-1]) + 1 if len(ends) else 0
        self._hits = np.flatnonzero(positive)
        self._hit_starts = np.searchsorted(self._hits, self._starts)

    def points(self, count: Floats) -> tuple[Floats, Floats, Floats]:
        """True positives and flagged (b, cuts) by weight, and the weight of all (b,)."""
        weighed = count[:, self._unit] * self._weight
        if not len(self._starts):
            empty = np.zeros((len(count), 0))
            return empty, empty, weighed.sum(axis=1)
        flagged = np.cumsum(np.add.reduceat(weighed[:, : self._cut], self._starts, axis=1), axis=1)
        true = np.cumsum(np.add.reduceat(weighed[:, self._hits], self._hit_starts, axis=1), axis=1)
        return true, flagged, weighed.sum(axis=1)


def average_precision(true: Floats, flagged: Floats, all_: Floats) -> Floats:
    """(b,) PR-AUC as scikit-learn has it; NaN without positives."""
    gained = np.diff(true, axis=1, prepend=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(flagged > 0, true / flagged, 0.0)
        found: Floats = (gained * precision).sum(axis=1) / (true[:, -1] if true.shape[1] else np.nan)
    return found


def recall_at(fpr: float) -> Callable[[Floats, Floats, Floats], Floats]:
    """Share of positives found where at most `fpr` of the negatives are flagged; NaN without positives."""

    def figure(true: Floats, flagged: Floats, all_: Floats) -> Floats:
        if not true.shape[1]:
            return np.full(len(all_), np.nan)
        false = flagged - true
        allowed = false <= fpr * (all_ - true[:, -1])[:, None] + 1e-9
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = np.where(allowed, true, 0.0).max(axis=1) / true[:, -1]
        return found

    return figure
