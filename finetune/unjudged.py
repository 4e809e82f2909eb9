"""What the gate could not look at, and why: a check that was not run is in the report, and is no check that passed.
Pure, and no judgement: whether a candidate may pass without it is said by `finetune.gate`.
"""

from collections.abc import Iterator, Mapping

from finetune.bounds import Bounds
from finetune.checks import SHORT
from finetune.evidence import Evidence

OF_LABELS = ("burst of a source", "burst of a user", "label rate", "shifted features")
"""Checks of what was taught that compare with earlier labels."""
FIGURES: Mapping[str, tuple[str, ...]] = {"pr_auc": ("pr_auc", "recall")}


def unjudged(evidence: Evidence, bounds: Bounds, *, compared: bool, slices: int) -> dict[str, str]:
    """By name of the check, why it was not run. compared: whether the window could be; slices: how many were judged."""
    return dict(_found(evidence, bounds, compared, slices))


def _found(evidence: Evidence, bounds: Bounds, compared: bool, slices: int) -> Iterator[tuple[str, str]]:
    name = SHORT.get(evidence.metric, evidence.metric)
    figures = FIGURES.get(name, (name,))
    if not compared:
        why = "the two sides cannot be compared: too few labels, or scores that are no numbers"
        for each in (*figures, "calibration", "calibration by decile", "slices", "changed decisions", "leakage"):
            if not each.startswith("calibration") or name != "ndcg":
                yield each, why
    elif not slices:
        yield "slices", f"no slice has {bounds.slice_labels} labels, and {bounds.slice_positives} positives of them"
    if evidence.old is None or not compared:
        why = evidence.why_no_old if evidence.old is None else "the newest window cannot be compared"
        yield from ((f"old {each}", why) for each in figures)
    if evidence.known is None or not len(evidence.known.value):
        yield from ((each, "no labels of earlier trainings are kept to compare with") for each in OF_LABELS)
    if evidence.taught.served is None:
        yield "training-serving skew", "the rows that trained are the served ones: none was made anew to compare"
