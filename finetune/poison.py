"""Checks on what was taught: labels and features that somebody, or something broken, has put there.
They compare the training's labels with those of earlier trainings, so they need no scores.
"""

from collections.abc import Iterator
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from finetune.bootstrap import Floats
from finetune.bounds import Bounds
from finetune.checks import at_most
from finetune.evidence import Array, Check, Evidence, Taught
from finetune.metrics import EPSILON

HOUR_MS = 3_600_000
BINS = 10


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
        yield shift(taught.features, known.features, evidence.feature_names, bounds)


def repeats(taught: Taught, bounds: Bounds) -> Iterator[Check]:
    """The same label twice, and two labels that say different things of the same."""
    total = max(len(taught.label_id), 1)
    share = 1 - len(np.unique(taught.label_id)) / total if len(taught.label_id) else 0.0
    yield at_most("repeated labels", share, bounds.repeats, f"{share:.2%} of the labels have an id that came before.")
    order = np.lexsort((taught.value, taught.claim))
    claim, value = taught.claim[order], taught.value[order]
    apart = float(((claim[1:] == claim[:-1]) & (value[1:] != value[:-1])).sum()) / total
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


def per_hour(time: Array) -> NDArray[np.int64]:
    """Counts of each hour from the first to the last, empty ones too."""
    hour = np.asarray(time, np.int64) // HOUR_MS
    return np.bincount(hour - hour.min()) if len(hour) else np.zeros(1, np.int64)


def burst(taught: Taught, known: Taught, bounds: Bounds) -> Check:
    """The most unusual hour of a source: robust z-score (median and MAD, Iglewicz and Hoaglin 1993) of its count, where
    it also outdoes the source's busiest hour by far.
    """
    worst, said = 0.0, "No source sent an unusual number of labels in an hour."
    for source in np.unique(taught.source):
        most = int(per_hour(taught.observed_at[taught.source == source]).max())
        before = per_hour(known.observed_at[known.source == source])
        middle = float(np.median(before))
        # A count cannot vary less than its root; 1 where the source was silent.
        spread = max(1.4826 * float(np.median(np.abs(before - middle))), sqrt(middle + 1))
        z = (most - middle) / spread
        unusual = most >= bounds.burst_labels and most > bounds.burst_times * before.max()
        if unusual and z > worst:
            worst = z
            said = (
                f"Source {source} sent {most:,} labels in an hour; its median is {middle:.0f}, its most {before.max()}."
            )
    return at_most("burst of a source", worst, bounds.burst_z, said)


def one_user(taught: Taught, known: Taught, bounds: Bounds) -> Check:
    """Labels of the user who has most, against the most that one had."""
    most, before = (int(np.unique(each.user, return_counts=True)[1].max(initial=0)) for each in (taught, known))
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


def shift(features: Array, known: Array, names: tuple[str, ...], bounds: Bounds) -> Check:
    """The column whose distribution moved most."""
    found = [psi(features[:, column], known[:, column]) for column in range(features.shape[1])]
    worst = int(np.argmax(found)) if found else 0
    name = names[worst] if worst < len(names) else f"number {worst}"
    value = found[worst] if found else 0.0
    return at_most(
        "shifted features", value, bounds.shift,
        f"Feature {name} moved most against earlier trainings: its population stability index is {value:.2f}.",
    )  # fmt: skip


def psi(now: Array, before: Array) -> float:
    """Population stability index over deciles of `before`; what is not known (NaN) is a bin of its own."""
    if not len(now) or not len(before):
        return 0.0
    fine = before[np.isfinite(before)]
    edges = np.unique(np.quantile(fine, np.linspace(0, 1, BINS + 1)[1:-1])) if len(fine) else np.zeros(0)
    shares: list[Floats] = []
    for values in (now, before):
        # Below, on and above an edge apart: a value that nearly all have is an edge itself.
        place = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")
        count = np.bincount(np.where(np.isnan(values), 2 * len(edges) + 1, place), minlength=2 * len(edges) + 2)
        shares.append((count + 0.5) / (count.sum() + 0.5 * len(count)))
    a, b = shares
    return float(((a - b) * np.log(a / b)).sum())
