"""From logits to probabilities, and from probabilities to decisions, on events that training has not seen.
What is found goes into the release's manifest.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

REVIEW_BUDGET = 0.03  # share of orders that may go to an analyst, unless precision allows fewer
BLOCK_PRECISION = 0.9
RANKS = 21  # of the review budget, from none of it to twice as much
NEWTON_STEPS = 12
ANY_LEVEL = 1.0  # standard deviation of a level of which nothing is known, of a logit
SHARES = np.linspace(0, 0.5, 6)  # networks keep half at least: a fine-tune learns in them alone


def platt(
    logit: NDArray[np.floating], label: NDArray[np.float32], weight: NDArray[np.float32] | None = None
) -> dict[str, float]:
    """a, b of sigmoid(a * logit + b) by maximum likelihood (Platt 1999); a = 1, b = 0 where one class is missing."""
    if not 0 < label.sum() < label.size:
        return {"a": 1.0, "b": 0.0}
    inputs = logit.reshape(-1, 1).astype(np.float64)
    model = LogisticRegression(C=1e4).fit(inputs, label.reshape(-1), sample_weight=weight)
    return {"a": float(model.coef_[0, 0]), "b": float(model.intercept_[0])}


def blend(networks: NDArray[np.float32], trees: NDArray[np.float32], label: NDArray[np.float32]) -> float:
    """The share of the trees' logit in the score that has the least log loss when it is calibrated; a half where one
    class is missing. All arrays (n,), of examples that neither has seen.
    """
    if not 0 < label.sum() < label.size:
        return 0.5
    lost = []
    for share in SHARES:
        logit = (1 - share) * networks.astype(np.float64) + share * trees
        found = platt(logit, label)
        lost.append(np.logaddexp(0, (1 - 2 * label) * (found["a"] * logit + found["b"])).mean())
    return float(SHARES[int(np.argmin(lost))])


def shrunk_platt(
    logit: NDArray[np.floating], label: NDArray[np.floating], weight: NDArray[np.floating] | None = None, *,
    slope: float = 0.1, level: float = 0.05, shift: float = 0.3,
) -> dict[str, float]:  # fmt: skip
    """As `platt`, with normal priors: of the slope around 1, and of the level, at the mean logit, around no change.

    For a model that was trained by likelihood on far more than what is held out: of 600 clicks a level is only known
    to 4 %. Unless the world has moved since: the level's prior is a mixture of two, of a level that is right and of one
    that is not, as likely as each other before the labels are seen (a spike and a slab: Mitchell and Beauchamp 1988).
    slope, level, shift: standard deviations of the priors, of a logit.
    """
    x, y = np.asarray(logit, np.float64).reshape(-1), np.asarray(label, np.float64).reshape(-1)
    counts = np.ones_like(x) if weight is None else np.asarray(weight, np.float64).reshape(-1)
    centre = float(np.average(x, weights=counts))
    inputs = np.stack([x - centre, np.ones_like(x)], axis=1)

    def fitted(level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Slope and level by Newton's method, and their covariance."""
        prior, wanted, found = np.array([slope, level]) ** -2.0, np.array([1.0, 0.0]), np.array([1.0, 0.0])
        for _ in range(NEWTON_STEPS):
            chance = 1.0 / (1.0 + np.exp(-np.clip(inputs @ found + centre, -50, 50)))
            gradient = inputs.T @ (counts * (chance - y)) + prior * (found - wanted)
            curvature = (inputs * (counts * chance * (1 - chance))[:, None]).T @ inputs + np.diag(prior)
            found = found - np.linalg.solve(curvature, gradient)
        return found, np.linalg.inv(curvature)

    free, spread = fitted(ANY_LEVEL)
    right, moved = (norm.logpdf(free[1], scale=np.hypot(each, spread[1, 1] ** 0.5)) for each in (level, shift))
    share = expit(moved - right)
    a, b = ((1 - share) * fitted(level)[0] + share * fitted(shift)[0]).tolist()
    return {"a": a, "b": b + (1 - a) * centre}


def thresholds(
    label: NDArray[np.float32], chance: NDArray[np.float64], budget: float = REVIEW_BUDGET
) -> dict[str, Any]:
    """`review`: the score above which the budgeted share lies; `block`: where precision above it is at least 0.9.
    `review_ranks`: the scores above which 0, a tenth, … and twice the budget lies, for those nearest to its boundary.

    budget: the share of orders that analysts look at; it is part of the settings, for the fine-tunes after this one.
    """
    review = float(np.quantile(chance, 1 - budget))
    ranks = np.quantile(chance, np.maximum(1 - budget * np.linspace(0, 2, RANKS), 0))
    order = np.argsort(-chance)
    precision = np.cumsum(label[order]) / np.arange(1, len(order) + 1)
    precise = np.flatnonzero(precision >= BLOCK_PRECISION)
    block = float(chance[order[precise[-1]]]) if len(precise) else 0.95
    return {
        "review": min(review, block), "block": max(block, review), "review_budget": budget,
        "review_ranks": ranks.tolist(),
    }  # fmt: skip


def ordinary(fields: NDArray[np.float32], label: NDArray[np.float32], earlier: int) -> list[float]:
    """The good order in the middle of them all: (F,) of `fields` (N, F), the one nearest to the columns' medians.

    What an explanation of a score compares with. Of a customer who has ordered before, where there is one (column
    `earlier` counts that): to a first order every device and address is new, and nothing would be said by that. An
    order that there was, since medians of each column alone make one that cannot be: no card and no other way of
    payment either. Distance: absolute, in standard deviations.
    """
    good = fields[label < 0.5]
    returning = good[good[:, earlier] > 0]
    of = returning if len(returning) else good
    spread = of.std(axis=0, dtype=np.float64)
    distance = np.abs(of - np.median(of, axis=0)) / np.where(spread > 0, spread, 1.0)
    return [float(value) for value in of[int(distance.sum(axis=1).argmin())]]
