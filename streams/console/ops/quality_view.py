"""How good the live releases are, by the learner's figures: measured on matured labels, and estimated before they come.
Pure. Bounds are 95 %: of the area under the ROC curve by Hanley and McNeil (1982), of the calibration by its positives.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streams.console.ops.charts import LineChart, Series
from streams.console.ops.rates import History
from streams.console.ops.row_charts import Row
from streams.console.ops.scales import known

POINTS, MINUTES = 60, 30
Z = 1.96
SHOWN = 4
Translate = Callable[..., str]


@dataclass(frozen=True, slots=True)
class ReleaseQuality:
    """Of a release that serves or has served: figures that are not known are None."""

    task: str
    release: str
    live: bool
    auc: float | None
    auc_bounds: tuple[float, float] | None
    calibration: float | None
    calibration_bounds: tuple[float, float] | None
    estimated: float | None
    labels: float | None
    positives: float | None


def auc_bounds(auc: float, positives: float, negatives: float) -> tuple[float, float] | None:
    """None where there are too few of either to say anything."""
    if positives < 1 or negatives < 1 or not 0 <= auc <= 1:
        return None
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc * auc) + (negatives - 1) * (q2 - auc * auc)
    error = Z * math.sqrt(max(spread, 0.0) / (positives * negatives))
    return max(0.0, auc - error), min(1.0, auc + error)


def calibration_bounds(ratio: float, positives: float) -> tuple[float, float] | None:
    """Predictions over positives, where the positives are a count: a factor either way."""
    if positives < 1 or not ratio > 0:
        return None
    factor = math.exp(Z / math.sqrt(positives))
    return ratio / factor, ratio * factor


def releases(learners: History, task: str, live: str | None) -> list[ReleaseQuality]:
    """Those that the learner speaks of, the live one first."""
    figures = {what: learners.now(what) for what in ("auc", "calibration", "estimated", "labels", "positives")}
    names = sorted({key for found in figures.values() for key in found if key.startswith(f"{task} ")})
    found = [_one(task, key, figures, live) for key in names]
    return sorted(found, key=lambda one: (one.live, one.release), reverse=True)


def _one(task: str, key: str, figures: dict[str, dict[str, float]], live: str | None) -> ReleaseQuality:
    auc, calibration = figures["auc"].get(key), figures["calibration"].get(key)
    labels, positives = figures["labels"].get(key), figures["positives"].get(key)
    release = version_of(key)
    counted = labels is not None and positives is not None
    return ReleaseQuality(
        task, release, release == live, auc,
        auc_bounds(auc, positives or 0, (labels or 0) - (positives or 0)) if auc is not None and counted else None,
        calibration,
        calibration_bounds(calibration, positives or 0) if calibration is not None and counted else None,
        figures["estimated"].get(key), labels, positives,
    )  # fmt: skip


def version_of(key: str) -> str:
    """The learner names a release as `task/version`; its figures are kept as "task release"."""
    return key.partition(" ")[2].rpartition("/")[2]


def auc_rows(found: Sequence[ReleaseQuality], t: Translate) -> list[Row]:
    rows = []
    for one in found:
        low, high = one.auc_bounds or (None, None)
        rows.append(Row(t("{release}, measured", release=one.release), one.auc, low, high, "good" if one.live else ""))
        if known(one.estimated):
            rows.append(Row(t("{release}, estimated", release=one.release), one.estimated, note=t("no label yet")))
    return rows


def calibration_rows(found: Sequence[ReleaseQuality]) -> list[Row]:
    rows = []
    for one in found:
        low, high = one.calibration_bounds or (None, None)
        rows.append(Row(one.release, one.calibration, low, high, "good" if one.live else ""))
    return rows


def auc_chart(learners: History, task: str, now_ms: int, t: Translate) -> LineChart:
    """Half an hour of the area under the ROC curve, of each release; with bounds where labels are counted."""
    names = [name for name in learners.names("auc") if name.startswith(f"{task} ")][-SHOWN:]
    end, start = now_ms, now_ms - MINUTES * 60_000
    kinds = ("auc", "labels", "positives", "estimated")
    x, values = learners.series([(kind, name) for name in names for kind in kinds], start, end, POINTS)
    series: list[Series] = []
    for place, name in enumerate(names):
        auc, labels, positives, estimated = values[len(kinds) * place : len(kinds) * (place + 1)]
        bounds = [_bounds(*each) for each in zip(auc, labels, positives, strict=True)]
        banded = any(bounds)
        version = version_of(name)
        series.append(
            Series(
                t("{release}, measured", release=version), auc,
                [each[0] if each else None for each in bounds] if banded else None,
                [each[1] if each else None for each in bounds] if banded else None,
            )
        )  # fmt: skip
        if any(map(known, estimated)):
            series.append(Series(t("{release}, estimated", release=version), estimated))
    return LineChart(
        f"auc-{task}", t("Area under the ROC curve, {task}", task=t(task)), x, series, floor=None,
        note=t("newest 5,000 matured labels; half an hour"), empty=t("No label has matured yet."),
    )  # fmt: skip


def _bounds(auc: float | None, labels: float | None, positives: float | None) -> tuple[float, float] | None:
    if auc is None or labels is None or positives is None:
        return None
    return auc_bounds(auc, positives, labels - positives)
