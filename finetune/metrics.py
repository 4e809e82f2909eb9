"""The figures by which releases are compared, by the field's definitions; higher is better only where it says so.
Classification metrics come from scikit-learn; what the advertising and ranking literature defines is here.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

Floats = NDArray[np.floating]
EPSILON = 1e-7


def roc_auc(label: Floats, score: Floats) -> float:
    """Area under the ROC curve; higher is better. ValueError when there is only one class."""
    return float(roc_auc_score(label, score))


def pr_auc(label: Floats, score: Floats, weight: Floats | None = None) -> float:
    """Average precision; higher is better, and its floor is the base rate."""
    return float(average_precision_score(label, score, sample_weight=weight))


def recall_at_fpr(label: Floats, score: Floats, fpr: float) -> float:
    """Share of positives found where at most `fpr` of the negatives are flagged; higher is better."""
    false_rate, true_rate, _ = roc_curve(label, score, drop_intermediate=False)
    return float(true_rate[false_rate <= fpr].max())


def log_loss(label: Floats, probability: Floats, weight: Floats | None = None) -> float:
    """Mean negative log likelihood in nats; lower is better."""
    p = np.clip(probability, EPSILON, 1 - EPSILON)
    return float(-np.average(label * np.log(p) + (1 - label) * np.log1p(-p), weights=weight))


def normalised_entropy(label: Floats, probability: Floats, weight: Floats | None = None) -> float:
    """Log loss over the log loss of always saying the base rate; lower is better, 1 is worthless.

    He et al. 2014, Practical lessons from predicting clicks on ads at Facebook, section 3.
    """
    base = float(np.average(label, weights=weight))
    return log_loss(label, probability, weight) / log_loss(label, np.full(len(label), base), weight)


def calibration(label: Floats, probability: Floats) -> float:
    """Sum of predictions over number of positives; 1 is right."""
    return float(np.sum(probability)) / max(float(np.sum(label)), EPSILON)


def gauc(label: Floats, score: Floats, group: NDArray[np.integer]) -> float:
    """ROC-AUC within each group (a user, say), weighted by its number of events; groups of one class are left out.

    Zhu et al. 2017, Optimized cost per click in Taobao display advertising, section 4. NaN where no group has both.
    """
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=group[order][:1] - 1))
    total = weight = 0.0
    for part in np.split(order, starts[1:]):
        if 0 < label[part].sum() < len(part):
            total += len(part) * roc_auc(label[part], score[part])
            weight += len(part)
    return total / weight if weight else float("nan")


def expected_calibration_error(label: Floats, probability: Floats, bins: int = 10) -> float:
    """Mean distance of the mean prediction from the share of positives, over bins of equally many events.

    Guo et al. 2017, On calibration of modern neural networks, with the equal-mass bins of Nixon et al. 2019.
    """
    parts = np.array_split(np.argsort(probability, kind="stable"), bins)
    errors = [len(part) * abs(float(np.mean(probability[part]) - np.mean(label[part]))) for part in parts if len(part)]
    return sum(errors) / len(label)


def calibration_by_score(expected: Floats, probability: Floats, bins: int = 10) -> list[float]:
    """Sum of predictions over the sum of what was expected (labels or true probabilities), by decile of prediction."""
    parts = np.array_split(np.argsort(probability, kind="stable"), bins)
    return [float(probability[part].sum()) / max(float(expected[part].sum()), EPSILON) for part in parts if len(part)]


def rank_of(target: NDArray[np.integer], ranked_BK: NDArray[np.integer]) -> NDArray[np.int64]:
    """Position of each target in its ranked list, from 0; K where it is not in it."""
    hits = ranked_BK == target[:, None]
    rank: NDArray[np.int64] = np.where(hits.any(axis=1), hits.argmax(axis=1), ranked_BK.shape[1])
    return rank


def hit_at(rank: NDArray[np.integer], k: int) -> float:
    """Share of targets among the first k; higher is better."""
    return float(np.mean(rank < k))


def ndcg_at(rank: NDArray[np.integer], k: int) -> float:
    """Mean of 1 / log2(rank + 2) over targets among the first k: NDCG with one relevant item."""
    return float(np.mean(np.where(rank < k, 1.0 / np.log2(rank + 2.0), 0.0)))


def bootstrap(
    metric: Callable[[Floats, Floats], float],
    label: Floats,
    score: Floats,
    *,
    draws: int = 200,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval over resampled events (Efron 1979); draws with one class only are drawn again."""
    rng = np.random.default_rng(seed)
    figures: list[float] = []
    while len(figures) < draws:
        index = rng.integers(0, len(label), len(label))
        if 0 < label[index].sum() < len(index):
            figures.append(metric(label[index], score[index]))
    low, high = np.percentile(figures, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_mean(
    metric: Callable[[NDArray[np.integer]], float], values: NDArray[np.integer], *, draws: int = 200, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a figure of one value an event, such as its rank."""
    rng = np.random.default_rng(seed)
    figures = [metric(values[rng.integers(0, len(values), len(values))]) for _ in range(draws)]
    low, high = np.percentile(figures, [2.5, 97.5])
    return float(low), float(high)
