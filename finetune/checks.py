"""Checks on scores: is the candidate as good, everywhere and on old events, and does it decide much the same?
Each function gives the checks of one idea, with a sentence each; none raises for what a bad candidate can do.
"""

from collections.abc import Iterator
from math import erfc, log, sqrt

import numpy as np
from numpy.typing import NDArray

from engines.parity import BOUNDS, TOP, Report
from finetune.bootstrap import (
    Difference,
    Statistic,
    average_precision,
    mean_ratio,
    paired,
    ranking,
    recall_at,
    units_of,
)
from finetune.bounds import Bounds
from finetune.evidence import Array, Check, Evidence, Scores, Window
from finetune.metrics import EPSILON
from schemas.errors import EngineError, SettingsError

Floats = NDArray[np.float64]
FPR = 0.01
SHORT = {"pr_auc": "pr_auc", "normalised_entropy": "normalised_entropy", "ndcg@10": "ndcg"}


def at_most(name: str, value: float, bound: float, said: str) -> Check:
    return Check(name, float(value), float(bound), bool(value <= bound), said)


def at_least(name: str, value: float, bound: float, said: str) -> Check:
    return Check(name, float(value), float(bound), bool(value >= bound), said)


def usable(scores: Scores) -> Iterator[Check]:
    """Whether there is anything to compare: numbers, and not always the same."""
    value = np.asarray(scores.value, np.float64)
    broken = int((~np.isfinite(value)).sum())
    yield at_most("finite scores", broken, 0, f"{broken:,} of the candidate's {value.size:,} scores are not finite.")
    if broken:
        return
    if scores.rows is not None:
        kinds = len(np.unique(scores.rows, axis=0))
        yield at_least("varied scores", kinds, min(2, len(value)), f"The candidate gives {kinds:,} different lists.")
        return
    outside = int(((value < 0) | (value > 1)).sum())
    yield at_most("probabilities", outside, 0, f"{outside:,} of the candidate's scores are no probabilities.")
    kinds = len(np.unique(value))
    yield at_least("varied scores", kinds, 2, f"The candidate gives {kinds:,} different scores.")


def enough(window: Window, ranked: bool, bounds: Bounds, where: str = "") -> Iterator[Check]:
    labels = int((window.weight > 0).sum())
    yield at_least(
        f"enough {where}labels", labels, bounds.min_labels,
        f"{labels:,} {where}labels in the window; below {bounds.min_labels:,} is not enough evidence.",
    )  # fmt: skip
    if not ranked:
        positives = int((window.label[window.weight > 0] > 0.5).sum())
        yield at_least(
            f"enough {where}positives", positives, bounds.min_positives,
            f"{positives:,} {where}positives in the window; below {bounds.min_positives:,} is not enough evidence.",
        )  # fmt: skip


def losses(window: Window, scores: Scores) -> Floats:
    """(N,) log loss of each event; where it ranks, 1 minus its NDCG@10. Lower is better."""
    if scores.rows is not None:
        return 1.0 - gains(window.label, scores.rows)
    p = np.clip(np.asarray(scores.value, np.float64), EPSILON, 1 - EPSILON)
    found: Floats = -(window.label * np.log(p) + (1 - window.label) * np.log1p(-p))
    return found


def gains(wanted: Array, rows: Array) -> Floats:
    """(N,) NDCG@10 with one wanted row."""
    hits = rows[:, :TOP] == wanted[:, None]
    found: Floats = np.where(hits.any(axis=1), 1.0 / np.log2(hits.argmax(axis=1) + 2.0), 0.0)
    return found


def differences(evidence: Evidence, window: Window, bounds: Bounds) -> Iterator[tuple[str, Difference]]:
    """The task's metric by paired bootstrap, under the names of the margins; raises SettingsError for another."""
    name = SHORT.get(evidence.metric)
    if name is None:
        raise SettingsError(f"no gate for the metric {evidence.metric!r}", expected=f"one of {', '.join(SHORT)}")
    unit = drawn(evidence, window)
    units, weight = int(unit.max()) + 1, np.asarray(window.weight, np.float64)

    def compare(statistic: Statistic, per_draw: int, relative: bool) -> Difference:
        return paired(
            statistic, units, per_draw, relative=relative, lower_is_better=name == "normalised_entropy",
            confidence=bounds.confidence, draws=bounds.draws, seed=evidence.seed,
        )  # fmt: skip

    if name == "pr_auc":
        label = np.asarray(window.label, np.float64)
        champion, candidate = (np.asarray(each.value, np.float64) for each in (window.champion, window.candidate))
        for figure, statistic in (("pr_auc", average_precision), ("recall", recall_at(FPR))):
            yield figure, compare(ranking(unit, label, weight, champion, candidate, statistic), len(label), False)
    elif name == "normalised_entropy":
        base = float(np.clip(np.average(window.label, weights=weight), EPSILON, 1 - EPSILON))
        entropy = weight * -(base * log(base) + (1 - base) * log(1 - base))
        champion, candidate = (weight * losses(window, each) for each in (window.champion, window.candidate))
        yield name, compare(mean_ratio(unit, champion, candidate, entropy), units, True)
    else:
        champion, candidate = (weight * (1.0 - losses(window, each)) for each in (window.champion, window.candidate))
        yield name, compare(mean_ratio(unit, champion, candidate, weight), units, True)


def drawn(evidence: Evidence, window: Window) -> NDArray[np.intp]:
    """(N,) number of the user, or of the event: what the bootstrap draws."""
    return units_of(window.user) if evidence.unit == "user" else np.arange(len(window.label))


def kept(name: str, found: Difference, margin: float, where: str, confidence: float) -> Check:
    """Whether the lower bound of the difference is above the loss that is allowed."""
    share = "" if name in ("pr_auc", "recall") else " as a share of it"
    return at_least(
        f"{where}{name}", found.low, -margin,
        f"{where}{name} is {found.candidate:.4f} against the champion's {found.champion:.4f}; with {confidence:.0%} "
        f"confidence the gain{share} is at least {found.low:+.4f} (a loss of {margin:.4g} is allowed).",
    )  # fmt: skip


def calibrated(window: Window, bounds: Bounds) -> Iterator[Check]:
    """Predictions against what came: in sum, by decile of the score, and against the champion's error."""
    label, weight = np.asarray(window.label, np.float64), np.asarray(window.weight, np.float64)
    p = np.asarray(window.candidate.value, np.float64)
    positives = weight @ label
    ratio = float(weight @ p / max(float(positives), EPSILON))
    noise = 1.645 / sqrt(max(float((label > 0.5).sum()), 1.0))
    yield at_most(
        "calibration", abs(log(max(ratio, EPSILON))) - noise, log(bounds.calibration),
        f"The candidate predicts {ratio:.2f} times as many positives as came (allowed: a factor of "
        f"{bounds.calibration:.2f} beyond noise).",
    )  # fmt: skip
    worst, where = -1.0, ""
    for number, part in enumerate(np.array_split(np.argsort(p, kind="stable"), 10), 1):
        hits = float((label[part] > 0.5).sum())
        if hits >= bounds.decile_positives:
            off = float(weight[part] @ p[part] / max(float(weight[part] @ label[part]), EPSILON))
            excess = abs(log(max(off, EPSILON))) - 2.58 / sqrt(hits)  # ten looks: 1 % each
            if excess > worst:
                worst, where = excess, f"decile {number} predicts {off:.2f} times what came"
    said = where or f"no decile has {bounds.decile_positives} positives"
    yield at_most("calibration by decile", worst, log(bounds.decile), f"In the worst case, {said}.")
    base = float(positives / max(float(weight.sum()), EPSILON))
    mine, theirs = (ece(label, np.asarray(each.value, np.float64), weight) / max(base, EPSILON)
                    for each in (window.candidate, window.champion))  # fmt: skip
    yield at_most(
        "calibration error", mine - theirs, bounds.ece,
        f"The expected calibration error is {mine:.3f} of the base rate against the champion's {theirs:.3f}.",
    )  # fmt: skip


def ece(label: Floats, p: Floats, weight: Floats) -> float:
    """Expected calibration error over ten bins of equal size (Naeini et al. 2015)."""
    parts = np.array_split(np.argsort(p, kind="stable"), 10)
    return float(sum(abs(weight[each] @ (p[each] - label[each])) for each in parts) / max(float(weight.sum()), EPSILON))


def sliced(evidence: Evidence, bounds: Bounds) -> tuple[Check, dict[str, float]]:
    """Loss of each slice against the champion's, tested one-sided with errors clustered by unit, Holm (1979) over all.

    Also the relative loss of every slice that was judged.
    """
    window = evidence.window
    weight = np.asarray(window.weight, np.float64)
    champion, candidate = (weight * losses(window, each) for each in (window.champion, window.candidate))
    if window.champion.rows is not None:  # as a share of what is gained, not of what is missed
        champion, candidate = weight - champion, weight - candidate
    unit = drawn(evidence, window)
    sign = -1.0 if window.champion.rows is not None else 1.0
    lost, chance = dict[str, float](), dict[str, float]()
    for kind, values in window.slices.items():
        for value in np.unique(values):
            inside = (values == value) & (weight > 0)
            judged = window.champion.rows is not None or (window.label[inside] > 0.5).sum() >= bounds.slice_positives
            total = champion[inside].sum()
            if inside.sum() < bounds.slice_labels or not judged or total <= 0:
                continue
            name = f"{kind}={value}"
            harm = float(sign * (candidate - champion)[inside].sum() / total)
            off = sign * (candidate - champion)[inside] - harm * champion[inside]
            error = float(np.sqrt((np.bincount(unit[inside], off) ** 2).sum()) / total)
            lost[name] = harm
            excess = harm - bounds.slice_loss
            chance[name] = 0.5 * erfc(excess / error / sqrt(2)) if error > 0 else float(excess <= 0)
    wrong = holm(chance, bounds.slice_alpha)
    worst = max(lost.values(), default=0.0)
    said = (
        f"Worse than the champion in {', '.join(f'{name} by {lost[name]:.0%}' for name in wrong)}."
        if wrong
        else f"None of {len(lost)} slices is shown to lose more than {bounds.slice_loss:.0%}; the largest loss is "
        f"{max(worst, 0):.1%}, chance included."
    )
    return Check("slices", worst, bounds.slice_loss, not wrong, said), lost


def holm(chance: dict[str, float], alpha: float) -> list[str]:
    """Names whose hypothesis is rejected, at most `alpha` of wrong rejections in all."""
    rejected: list[str] = []
    for number, name in enumerate(sorted(chance, key=chance.__getitem__)):
        if chance[name] > alpha / (len(chance) - number):
            break
        rejected.append(name)
    return rejected


def decisions(evidence: Evidence, bounds: Bounds, *, gained: bool) -> Iterator[Check]:
    """How many events end otherwise, and how many alerts there would be. gained: whether something is, for certain."""
    before, after = evidence.window.champion, evidence.window.candidate
    if after.rows is not None and before.rows is not None:
        same = (after.rows[:, :TOP, None] == before.rows[:, None, :TOP]).any(axis=1).mean()
        yield at_most(
            "changed decisions", 1 - same, bounds.changes["ranked"],
            f"{1 - same:.0%} of the items in the top {TOP} are other ones than the champion's.",
        )  # fmt: skip
    elif evidence.thresholds is not None:
        old, new = (np.searchsorted(np.sort(each), side.value, side="right")
                    for each, side in zip(evidence.thresholds, (before, after), strict=True))  # fmt: skip
        changed, alerts, usual = float((old != new).mean()), float((new > 0).mean()), float((old > 0).mean())
        yield at_most(
            "changed decisions", changed, bounds.changes["decided"], f"{changed:.2%} of events are decided otherwise."
        )
        yield at_most(
            "alerts", alerts, max(bounds.alerts, bounds.alert_times * usual),
            f"{alerts:.2%} of events would be reviewed or blocked; by the champion {usual:.2%}.",
        )  # fmt: skip
    else:
        ratio = np.maximum(after.value, EPSILON) / np.maximum(before.value, EPSILON)
        moved = float((np.abs(np.log(ratio)) > log(2)).mean())
        yield at_most(
            "changed decisions",
            moved,
            bounds.changes["chances_gained" if gained else "chances"],
            f"{moved:.1%} of probabilities move by a factor of 2.",
        )


def engine(certificate: Report | None, p99_ms: float, budget_ms: float) -> Iterator[Check]:
    """The compiled engine beside torch, and how long it takes."""
    said, fine = "The engine has no certificate.", False
    if certificate is not None:
        said, fine = f"The engine agrees with torch on {certificate.rows:,} rows.", certificate.precision in BOUNDS
        try:
            certificate.check(BOUNDS[certificate.precision])
        except EngineError as error:
            said, fine = f"The compiled engine is outside its certificate: {error.what}.", False
        except KeyError:
            said = f"There are no bounds for precision {certificate.precision!r}."
    yield Check("certificate", float(fine), 1.0, fine, said)
    yield at_most("p99", p99_ms, budget_ms, f"The engine's p99 is {p99_ms:.1f} ms; the budget is {budget_ms:.1f} ms.")


def roc_auc(label: Floats, score: Floats) -> float:
    """By ranks; NaN with one class only."""
    _, group, size = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(size) - (size - 1) / 2)[group]
    positive = label > 0.5
    ones, zeros = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros)) if ones and zeros else float("nan")


def leakage(window: Window, bounds: Bounds) -> Check:
    """Nearly perfect, and far from where the champion is: the label has found a way into the features."""
    if window.champion.rows is not None and window.candidate.rows is not None:
        before, after = (float(gains(window.label, each.rows).mean()) for each in (window.champion, window.candidate)
                         if each.rows is not None)  # fmt: skip
    else:
        before, after = (roc_auc(window.label, each.value) for each in (window.champion, window.candidate))
    closed = (after - before) / max(1 - before, EPSILON)
    suspicious = after > bounds.leak_level and closed > bounds.leak_gain
    said = f"The candidate's {after:.4f} of 1 closes {max(closed, 0):.0%} of the champion's gap to perfect."
    return Check("leakage", after, bounds.leak_level, not suspicious, said)
