"""Whether what a release is given, says and is told afterwards has changed since it went live: one object a task.
Pure: numbers in, sentences with figures out; nothing here knows a topic or a clock.

Means (the calibration error, the loss) are watched by ADWIN (Bifet and Gavalda 2007, Learning from time-changing data
with adaptive windowing; river's), which finds by itself how long a window to compare. Distributions (inputs, scores)
are compared window by window with those just after the release went live, by the two-sample Kolmogorov-Smirnov test.
Many looks at many streams would find something by chance, so the chance is shared out: among the kinds of streams,
among the columns, and among the looks (the k-th gets 6 / (pi k)^2 of it, which sums to one), and a change must also
be large enough to matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import pi
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from river.drift import ADWIN
from scipy.stats import ks_2samp

from finetune.metrics import EPSILON

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DriftBounds:
    # Chance that a steady task's distributions ever raise an alarm, however long it runs; half each for scores and
    # inputs. It takes values for independent.
    alpha: float = 0.01
    # ADWIN's, for each look at a mean. Its bound is loose: at 0.01, one of 450 steady streams of 20,000 was an alarm.
    delta: float = 1e-4
    # Values that stand for "as it was", and that are compared with them at a time. A shop with a daily course needs
    # windows that hold a day of what is watched, or the night is a drift.
    reference: int = 4_000
    window: int = 2_000
    # Largest difference of the two distribution functions below which it does not matter.
    distance: float = 0.1
    # Nats of log loss that one label may weigh.
    cap: float = 5.0
    # Labels before the means are looked at.
    labels: int = 300
    # Labels after a change from which its size is measured.
    confirm: int = 1_000
    # Share of the old loss by which the new one must be worse.
    worse: float = 0.05
    # Share of the positives, expected or come, by which the calibration must have moved.
    moved: float = 0.15


DEFAULT = DriftBounds()
UNKNOWN = -1e100
"""Stands for NaN, below all values."""


@dataclass(slots=True)
class _Distribution:
    """One stream of numbers against its own beginning."""

    bounds: DriftBounds
    alpha: float
    _reference: list[float] = field(default_factory=list)
    _window: list[float] = field(default_factory=list)
    _looks: int = 0

    def add(self, values: Floats) -> tuple[float, float, float] | None:
        """Distance and both medians, where a window that is full with `values` differs."""
        found, given = None, values.tolist()
        if missing := self.bounds.reference - len(self._reference):
            self._reference += given[:missing]
            given = given[max(missing, 0) :]
        while given:
            room = self.bounds.window - len(self._window)
            self._window += given[:room]
            given = given[room:]
            if len(self._window) == self.bounds.window:
                found = self._look() or found
                self._window = []
        return found

    def _look(self) -> tuple[float, float, float] | None:
        self._looks += 1
        told = ks_2samp(self._reference, self._window, method="asymp")
        allowed = self.alpha * 6 / (pi * self._looks) ** 2
        if told.pvalue >= allowed or told.statistic < self.bounds.distance:
            return None
        return float(told.statistic), float(np.median(self._reference)), float(np.median(self._window))


class _Mean:
    """ADWIN over values of [low, high].

    It says that the mean has changed, and forgets: the window that it keeps then is mostly of before. So how far the
    mean went, and which way, is measured on the values that follow.
    """

    def __init__(self, low: float, high: float, bounds: DriftBounds) -> None:
        self._low, self._scale, self._confirm = low, high - low, bounds.confirm
        make: Any = ADWIN  # river says that it has types, and gives none here
        self._adwin = make(delta=bounds.delta, grace_period=bounds.labels, min_window_length=30)
        self._usual: float | None = None
        self._asked = False

    def add(self, values: Floats) -> tuple[float, float, int] | None:
        """The mean before any change, that of the values after the last one and their count, once they say it."""
        found, adwin = None, self._adwin
        for value in np.clip((values - self._low) / self._scale, 0.0, 1.0).tolist():
            total, width = adwin.total, adwin.width
            adwin.update(value)
            if adwin.drift_detected:
                self._asked = True
                self._usual = total / width if self._usual is None else self._usual
            elif self._asked and adwin.width >= self._confirm:
                assert self._usual is not None
                found = self._unscaled(self._usual), self._unscaled(adwin.estimation), int(adwin.width)
                self._asked = False
        return found

    def _unscaled(self, value: float) -> float:
        return value * self._scale + self._low


class Drift:
    """Of one task, used from one thread. What was found stays found until `reset`."""

    def __init__(self, bounds: DriftBounds = DEFAULT) -> None:
        self.bounds = bounds
        self.reset()

    def reset(self) -> None:
        """Another release is live: what comes now is what it is compared with."""
        bounds = self.bounds
        self._found: dict[str, str] = {}
        self._inputs: dict[str, _Distribution] = {}
        self._scores = _Distribution(bounds, bounds.alpha / 2)
        self._labels, self._sums = 0, np.zeros(2)
        self._calibration = _Mean(-1.0, 1.0, bounds)
        self._loss, self._missed = _Mean(0.0, bounds.cap, bounds), _Mean(0.0, 1.0, bounds)

    def inputs(self, rows: NDArray[Any], names: Sequence[str]) -> None:
        """Columns of served rows: a matrix (N, F) with their F names, or structured rows with fields (N,) so named.

        A value that is not known (NaN) counts as smaller than all others. All calls have the same names.
        """
        columns = [rows[name] for name in names] if rows.dtype.names else list(rows.T)
        for name, column in zip(names, columns, strict=True):
            if name not in self._inputs:
                self._inputs[name] = _Distribution(self.bounds, self.bounds.alpha / 2 / len(names))
            values = np.nan_to_num(np.asarray(column, np.float64), nan=UNKNOWN)
            if (told := self._inputs[name].add(values)) is not None:
                distance, before, now = told
                self._say(
                    f"input {name}",
                    f"Input {name} is spread otherwise than when the release went live: "
                    f"its median went from {_shown(before)} to {_shown(now)}, distance {distance:.2f}.",
                )

    def scored(self, predictions: ArrayLike) -> None:
        """Chances that were served, with labels or without."""
        values = np.asarray(predictions, np.float64).reshape(-1)
        if (told := self._scores.add(values[np.isfinite(values)])) is not None:
            distance, before, now = told
            self._say(
                "scores",
                f"Scores are spread otherwise than when the release went live: "
                f"their median went from {before:.4f} to {now:.4f}, distance {distance:.2f}.",
            )

    def labelled(self, predictions: ArrayLike, labels: ArrayLike) -> None:
        """Chances that were served (N,) with what became of them (N,), 0 to 1, in the order in which it was known.

        The share of positives must not depend on how long the release is live: where they are known earlier than
        negatives, the caller holds them back until negatives of their time have matured.
        """
        chance, label = (np.asarray(each, np.float64).reshape(-1) for each in (predictions, labels))
        fine = np.isfinite(chance) & np.isfinite(label)
        p, y = np.clip(chance[fine], EPSILON, 1 - EPSILON), label[fine]
        self._labels += len(y)
        self._sums += y.sum(), p.sum()
        if (told := self._calibration.add(y - p)) is not None:
            before, now, count = told
            if abs(now - before) > self.bounds.moved * self._sums.max() / self._labels:
                self._say(
                    "calibration",
                    f"The newest {count:,} labels came true {_signed(now)} points more often than predicted, "
                    f"those before the change {_signed(before)} points.",
                )
        if (told := self._loss.add(-(y * np.log(p) + (1 - y) * np.log1p(-p)))) is not None:
            self._worse("log loss of labels", *told)

    def ranked(self, gains: ArrayLike) -> None:
        """NDCG or hits (N,) of served lists, 0 to 1, as they are known."""
        values = np.asarray(gains, np.float64).reshape(-1)
        if (told := self._missed.add(1 - values[np.isfinite(values)])) is not None:
            self._worse("loss (1 - gain) of lists", *told)

    def reasons(self) -> tuple[str, ...]:
        """A sentence for each thing that has changed."""
        return tuple(self._found.values())

    def _worse(self, what: str, before: float, now: float, count: int) -> None:
        if now > before * (1 + self.bounds.worse):
            self._say(what, f"The {what} rose from {before:.4f} to {now:.4f} over the newest {count:,}.")

    def _say(self, what: str, sentence: str) -> None:
        self._found.setdefault(what, sentence)


def _signed(share: float) -> str:
    return f"{100 * share:+.2f}"


def _shown(value: float) -> str:
    return "unknown" if value == UNKNOWN else f"{value:.4g}"
