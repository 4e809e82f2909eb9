"""What a fraud team asks of a score: how much it finds within what can be looked at, in orders and in money.
Each by its definition in the field, with a 95 % interval by bootstrap over orders.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from finetune.metrics import Floats, bootstrap, pr_auc, recall_at_fpr, roc_auc

BUDGET = 0.01
"""The share of orders that analysts look at."""
Metric = Callable[[Floats, Floats], float]


def value_weighted_recall(label: Floats, score: Floats, value: Floats, budget: float = BUDGET) -> float:
    """Share of the frauds' money that is in the budgeted share of orders with the highest scores; NaN without."""
    lost = np.asarray(label) * value
    return float(lost[flagged(score, budget)].sum() / lost.sum()) if lost.sum() > 0 else float("nan")


def precision_at_budget(label: Floats, score: Floats, budget: float = BUDGET) -> float:
    """Share of frauds among the budgeted share of orders with the highest scores."""
    return float(np.mean(label[flagged(score, budget)]))


def flagged(score: Floats, budget: float) -> NDArray[np.intp]:
    """Numbers of the best-scored orders; at least one, and the earlier of equals."""
    order: NDArray[np.intp] = np.argsort(-score, kind="stable")
    return order[: max(1, round(budget * len(score)))]


def fraud_figures(label: Floats, score: Floats, value: Floats, *, draws: int = 200) -> dict[str, float]:
    """All of them by name, each with `_low` and `_high`."""
    place = np.arange(len(label), dtype=np.float64)

    def worth(some: Floats, at: Floats) -> float:
        where = at.astype(np.intp)
        return value_weighted_recall(some, score[where], value[where])

    named: dict[str, tuple[Metric, Floats]] = {
        "roc_auc": (roc_auc, score),
        "pr_auc": (pr_auc, score),
        "recall_at_fpr_0_1_percent": (lambda some, at: recall_at_fpr(some, at, 0.001), score),
        "recall_at_fpr_1_percent": (lambda some, at: recall_at_fpr(some, at, 0.01), score),
        "precision_at_budget_1_percent": (precision_at_budget, score),
        "value_weighted_recall_at_budget_1_percent": (worth, place),
    }
    made: dict[str, float] = {}
    for name, (metric, given) in named.items():
        low, high = bootstrap(metric, label, given, draws=draws)
        made |= {name: metric(label, given), f"{name}_low": low, f"{name}_high": high}
    return made


def paired_bootstrap(
    metric: Metric, label: Floats, ours: Floats, theirs: Floats, *, draws: int = 500, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of ours less theirs, over resampled orders. ours, theirs: (seeds, N); a mean over seeds is taken in
    each draw, so that the interval is of what the figures say.
    """
    rng = np.random.default_rng(seed)
    found: list[float] = []
    while len(found) < draws:
        index = rng.integers(0, len(label), len(label))
        some = label[index]
        if 0 < some.sum() < len(some):
            mean = [np.mean([metric(some, each[index]) for each in side]) for side in (ours, theirs)]
            found.append(float(mean[0] - mean[1]))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)
