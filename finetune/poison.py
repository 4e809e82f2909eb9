"""Checks on what was taught: labels and features that somebody, or something broken, has put there.
They compare the training's labels with those of earlier trainings, so they need no scores.
"""

from collections.abc import Iterator
from math import log, sqrt

import numpy as np

from finetune.bootstrap import Floats
from finetune.bounds import Bounds
from finetune.checks import at_most
from finetune.evidence import Array, Check, Evidence, Taught
from finetune.metrics import EPSILON

HOUR_MS = 3_600_000
BINS = 10
SILENCE = ""


def poisoned(evidence: Evidence, bounds: Bounds) -> Iterator[Check]:
    """All checks of the labels; those that need earlier ones only where there are some."""
    taught, known = evidence.taught, evidence.known
    yield from repeats(taught, bounds)
    yield early(taught, bounds)
    if taught.served is not None:
        yield skew(taught.features, taught.served, bounds)
    if known is not None and len(known.value):
        yield burst(taught, known, bounds)
        yield one_user(taught, known, bounds)
        yield rate(taught, known, bounds)
        yield shift(taught.features, known, evidence.window_features, evidence.feature_names, bounds)


def repeats(taught: Taught, bounds: Bounds) -> Iterator[Check]:
    """The same label twice, and two labels that say different things of the same."""
    total = max(len(taught.label_id), 1)
    share = 1 - len(np.unique(taught.label_id)) / total if len(taught.label_id) else 0.0
    yield at_most("repeated labels", share, bounds.repeats, f"{share:.2%} of the labels have an id that came before.")
    order = np.lexsort((taught.value, taught.claim))
    claim, value = taught.claim[order], taught.value[order]
    here = int(((claim[1:] == claim[:-1]) & (value[1:] != value[:-1])).sum())
    apart = (here + taught.contradictions) / total
    yield at_most(
        "contradictions", apart, bounds.contradictions,
        f"{apart:.2%} of the labels contradict another one of the same target, name and revision.",
    )  # fmt: skip


def early(taught: Taught, bounds: Bounds) -> Check:
    """Time travel: nothing is observed before it happens."""
    share = float((taught.observed_at < taught.event_time - bounds.clock_ms).mean()) if len(taught.value) else 0.0
    return at_most("time travel", share, bounds.early, f"{share:.2%} of the labels were observed before their event.")


def skew(features: Array, served: Array, bounds: Bounds) -> Check:
    """Share of rows that did not train on what was served."""
    same = (features == served) | (np.isnan(features) & np.isnan(served))
    share = float((~same.all(axis=1)).mean()) if len(features) else 0.0
    return at_most(
        "training-serving skew",
        share,
        bounds.skew,
        f"{share:.2%} of the rows trained on other features than were served.",
    )


def per_hour(time: Array, stands_for: Array | None = None) -> Floats:
    """Counts of each hour from the first to the last, empty ones too."""
    hour = np.asarray(time, np.int64) // HOUR_MS
    return np.bincount(hour - hour.min(), stands_for).astype(np.float64) if len(hour) else np.zeros(1)


def burst(taught: Taught, known: Taught, bounds: Bounds) -> Check:
    """The most unusual hour of a source: robust z-score (median and MAD, Iglewicz and Hoaglin 1993) of its count, where
    it also outdoes the source's busiest hour by far. Silence is no source: it comes as the events do.
    """
    worst, said = 0.0, "No source sent an unusual number of labels in an hour."
    for source in np.unique(taught.source[taught.source != SILENCE]):
        most = int(per_hour(taught.observed_at[taught.source == source]).max())
        same = known.source == source
        before = per_hour(known.observed_at[same], None if known.stands_for is None else known.stands_for[same])
        middle = float(np.median(before))
        # A count cannot vary less than its root; 1 where the source was silent.
        spread = max(1.4826 * float(np.median(np.abs(before - middle))), sqrt(middle + 1))
        z = (most - middle) / spread
        unusual = most >= bounds.burst_labels and most > bounds.burst_times * before.max()
        if unusual and z > worst:
            worst = z
            said = (
                f"Source {source} sent {most:,} labels in an hour; its median is {middle:.0f}, "
                f"its most {before.max():.0f}."
            )
    return at_most("burst of a source", worst, bounds.burst_z, said)


def of_one_user(taught: Taught) -> int:
    """The most labels that one user has."""
    if not len(taught.user):
        return 0
    return round(float(np.bincount(np.unique(taught.user, return_inverse=True)[1], taught.stands_for).max()))


def one_user(taught: Taught, known: Taught, bounds: Bounds) -> Check:
    """Labels of the user who has most, against the most that one had."""
    most, before = of_one_user(taught), of_one_user(known)
    bound = max(bounds.user_labels, bounds.user_times * before)
    return at_most("burst of a user", most, bound, f"One user has {most:,} labels; earlier the most was {before:,}.")


def rate(taught: Taught, known: Taught, bounds: Bounds) -> Check:
    """Share of positives by weight, beyond the noise of both."""
    now, before = (
        float(each.weight @ (each.value > 0.5) / max(float(each.weight.sum()), EPSILON)) for each in (taught, known)
    )
    few = max(min(int((each.value > 0.5).sum()) for each in (taught, known)), 1)
    apart = abs(log(max(now, EPSILON) / max(before, EPSILON))) - 1.645 * sqrt(2 / few)
    return at_most(
        "label rate", apart, log(bounds.rate), f"{now:.2%} of the labels are positive; earlier {before:.2%} were."
    )


def shift(features: Array, known: Taught, window: Array | None, names: tuple[str, ...], bounds: Bounds) -> Check:
    """The column whose distribution moved most, against earlier trainings and against the newest events too.

    What has moved as the events themselves have is no poison: a shop grows older, and sells other things in December.
    """
    columns = range(features.shape[1])
    found = [indexed(features[:, at], known.features[:, at], known.stands_for) for at in columns]
    if window is not None and len(window):
        found = [min(moved, indexed(features[:, at], window[:, at])) for at, moved in zip(columns, found, strict=True)]
    worst = int(np.argmax(found)) if found else 0
    name = names[worst] if worst < len(names) else f"number {worst}"
    return at_most(
        "shifted features", found[worst] if found else 0.0, bounds.shift,
        f"Feature {name} moved most, against earlier trainings and against the window: its population stability index "
        f"is {found[worst] if found else 0.0:.2f}.",
    )  # fmt: skip


def indexed(now: Array, before: Array, stands_for: Array | None = None) -> float:
    """The index, less what chance alone adds to it on average: BINS / N each."""
    chance = (BINS - 1) * (1 / max(len(now), 1) + 1 / max(len(before), 1))
    return max(psi(now, before, stands_for) - chance, 0.0)


def psi(now: Array, before: Array, stands_for: Array | None = None) -> float:
    """Population stability index over deciles of `before`; what is not known (NaN) is a bin of its own.

    stands_for: how many each of `before` counts for.
    """
    if not len(now) or not len(before):
        return 0.0
    fine = np.isfinite(before)
    edges = np.unique(deciles(before[fine], None if stands_for is None else stands_for[fine]))
    shares: list[Floats] = []
    for values, each in ((now, None), (before, stands_for)):
        # Below, on and above an edge apart: a value that nearly all have is an edge itself.
        place = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")
        bins = np.where(np.isnan(values), 2 * len(edges) + 1, place)
        count = np.bincount(bins, None if each is None else each * (len(each) / each.sum()), 2 * len(edges) + 2)
        shares.append((count + 0.5) / (count.sum() + 0.5 * len(count)))
    a, b = shares
    return float(((a - b) * np.log(a / b)).sum())


def deciles(values: Array, stands_for: Array | None) -> Floats:
    """The values below which a tenth, two tenths, … lie; none of none."""
    tenths = np.linspace(0, 1, BINS + 1)[1:-1]
    if not len(values):
        return np.zeros(0)
    if stands_for is None:
        return np.asarray(np.quantile(values, tenths), np.float64)
    order = np.argsort(values, kind="stable")
    below = np.cumsum(stands_for[order])
    at = np.minimum(np.searchsorted(below, below[-1] * tenths), len(values) - 1)
    return np.asarray(values[order][at], np.float64)
