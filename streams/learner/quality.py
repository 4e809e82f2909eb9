"""How good the releases are that serve now: measured on matured labels, and estimated where labels are not there yet.
The estimate takes the calibrated chances at their word (confidence-based performance estimation, NannyML 2022).
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEWEST = 5_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figures:
    """NaN where there is nothing to say it from. calibration: predictions over positives; 1 is right."""

    labels: int
    positives: int
    roc_auc: float
    pr_auc: float
    calibration: float
    estimated_roc_auc: float


class Quality:
    """Of one release of a task that gives chances, over its newest examples and predictions."""

    def __init__(self, newest: int = NEWEST) -> None:
        self._labelled = deque[tuple[float, float, float]](maxlen=newest)
        self._said = deque[float](maxlen=newest)

    def labelled(self, prediction: float, label: float, weight: float) -> None:
        self._labelled.append((prediction, label, weight))

    def said(self, prediction: float) -> None:
        """A prediction, whether or not a label will come."""
        self._said.append(prediction)

    def figures(self) -> Figures:
        known = np.array(self._labelled, np.float64).reshape(-1, 3)
        p, label, weight = known.T
        said = np.array(self._said, np.float64)
        positives = float(weight @ label)
        return Figures(
            len(known),
            int((label > 0.5).sum()),
            roc_auc(p, label * weight, (1 - label) * weight),
            pr_auc(p, label * weight, (1 - label) * weight),
            float(weight @ p) / positives if positives > 0 else float("nan"),
            roc_auc(said, said, 1 - said),
        )


def roc_auc(score: Floats, positive: Floats, negative: Floats) -> float:
    """Area under the ROC curve where each score stands for so much of a positive and of a negative; NaN without both.

    The chance that a positive has the higher score, ties counted half (Hanley and McNeil 1982).
    """
    total = float(positive.sum()) * float(negative.sum())
    if not total > 0:
        return float("nan")
    _, place = np.unique(score, return_inverse=True)
    up, down = np.bincount(place, positive), np.bincount(place, negative)
    below = np.cumsum(down) - down
    return float(up @ (below + down / 2) / total)


def pr_auc(score: Floats, positive: Floats, negative: Floats) -> float:
    """Average precision where each score stands for so much of a positive and of a negative; NaN without positives.

    Precision at each score that is given, weighted by the positives that have it: the step-wise area under the
    precision-recall curve, ties as one step (as scikit-learn has it).
    """
    total = float(positive.sum())
    if not total > 0:
        return float("nan")
    _, place = np.unique(-score, return_inverse=True)
    up, down = np.bincount(place, positive), np.bincount(place, negative)
    found, all_ = np.cumsum(up), np.cumsum(up + down)
    return float(up @ (found / np.maximum(all_, 1e-300)) / total)
