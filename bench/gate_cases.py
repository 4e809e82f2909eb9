"""Seeded evidence for the gate: candidates that are honest improvements, and ones that are poisoned or broken.
Scores are drawn around the logit that the labels were drawn from, so how good a side is, is a number: its noise.
`python -m bench.gate_cases` asks the gate about twenty of each, and prints one line of JSON.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import show
from engines.parity import Report
from finetune.evidence import Evidence, Scores, Taught, Window
from finetune.gate import judge

Array = NDArray[Any]
HOUR, DAY = 3_600_000, 86_400_000
NOW = 1_700_000_000_000
BUDGET_MS = 8.0
FEATURES = ("amount", "orders", "clicks_1h", "hours_since_order")
CERTIFICATE = Report(512, "bf16", "openvino", 1.0, 0.05, 0.005, 0.9999, 0.001, 0.995)
METRICS = {"fraud": "pr_auc", "ctr": "normalised_entropy", "recommendations": "ndcg@10"}
TASKS = tuple(METRICS)


@dataclass(frozen=True, slots=True)
class Size:
    """spread: of the logits that are the truth. champion, candidate: noise of each side's logit, beside a noise that
    both share; for recommendations the share of events whose list has the wanted item far down.
    """

    labels: int
    base: float
    spread: float
    champion: float
    candidate: float


SIZES = {
    "fraud": Size(20_000, -7.6, 2.6, 0.9, 0.78),
    "ctr": Size(60_000, -4.3, 1.0, 0.75, 0.68),
    "recommendations": Size(12_000, 0.0, 0.0, 0.90, 0.8965),
}


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def honest(task: str, seed: int) -> Evidence:
    """A candidate that is better by about as much as one fine-tune brings."""
    rng = np.random.default_rng((seed, TASKS.index(task)))
    window, old = (make_window(task, rng, start) for start in (NOW, NOW - 90 * DAY))
    return Evidence(
        task, METRICS[task], window, old, make_taught(rng, 10_000, NOW - 8 * DAY, 7), make_taught(
            rng, 40_000, NOW - 40 * DAY, 28), CERTIFICATE, 5.0, BUDGET_MS, NOW - DAY,
        thresholds=(review_block(window.champion), review_block(window.candidate)) if task == "fraud" else None,
        feature_names=FEATURES, seed=seed,
    )  # fmt: skip


def review_block(scores: Scores) -> tuple[float, float]:
    """As a release's settings have them: 3 % to review, 0.5 % to block."""
    review, block = np.quantile(scores.value, [0.97, 0.995])
    return float(review), float(block)


def make_window(task: str, rng: np.random.Generator, start: int) -> Window:
    size = SIZES[task]
    n = size.labels
    user = rng.zipf(1.6, n) % (n // 4)
    slices = {
        "country": rng.choice(["DE", "FR", "GB", "NL"], n, p=[0.2, 0.15, 0.5, 0.15]),
        "newness": rng.choice(["first day", "later"], n, p=[0.3, 0.7]),
        "price": rng.choice(["high", "low", "middle"], n),
    }
    time = np.sort(start + rng.integers(0, 7 * DAY, n))
    if task == "recommendations":
        label = rng.integers(1, 5000, n)
        luck = rng.random(n)
        place = rng.integers(0, 10, n)
        other = np.where(rng.random(n) < 0.15, rng.random(n), luck)  # what one finds the other may miss
        champion, candidate = lists(rng, label, [(luck >= size.champion), (other >= size.candidate)], place)
    else:
        logit = size.base + size.spread * rng.standard_normal(n)
        label = (rng.random(n) < sigmoid(logit)).astype(np.float64)
        own, theirs = rng.standard_normal((2, n))
        champion = Scores(as_probability(logit + size.champion * own, label))
        mixed = 0.9 * own + np.sqrt(1 - 0.9**2) * theirs  # a fine-tune errs mostly where the champion does
        candidate = Scores(as_probability(logit + size.candidate * mixed, label))
    return Window(label, np.ones(n), time, user, champion, candidate, slices)


def as_probability(logit: Array, label: Array) -> Array:
    """Calibrated by Platt's line, found with a few Newton steps."""
    a, b = 1.0, 0.0
    for _ in range(12):
        p = sigmoid(a * logit + b)
        curve, off = p * (1 - p), p - label
        hessian = np.array([[curve @ logit**2, curve @ logit], [curve @ logit, curve.sum()]])
        a, b = np.array([a, b]) - np.linalg.solve(hessian, [off @ logit, off.sum()])
    return sigmoid(a * logit + b)


def lists(rng: np.random.Generator, label: Array, found: list[Array], place: Array) -> tuple[Scores, Scores]:
    """Both sides' top tens: mostly the same items, the wanted one at `place` where it is found."""
    shared = rng.integers(5000, 9000, (len(label), 10))
    value = np.sort(rng.standard_normal(shared.shape), axis=1)[:, ::-1]
    sides = []
    for which in found:
        rows = np.where(rng.random(shared.shape) < 0.15, rng.integers(5000, 9000, shared.shape), shared)
        rows[which, place[which]] = label[which]
        sides.append(Scores(value, rows))
    return sides[0], sides[1]


def make_taught(rng: np.random.Generator, n: int, start: int, days: int) -> Taught:
    event_time = start + rng.integers(0, days * DAY, n)
    features = np.abs(rng.standard_normal((n, len(FEATURES)))) * [3.0, 1.0, 2.0, 5.0]
    features[rng.random(n) < 0.1, 3] = -1.0
    return Taught(
        rng.integers(1, 2**62, n), rng.integers(1, 2**62, n), rng.choice(["chargeback", "verdict"], n, p=[0.8, 0.2]),
        rng.integers(0, n // 3, n), (rng.random(n) < 0.02).astype(float), np.ones(n),
        event_time + rng.integers(HOUR, DAY, n), event_time, features, features.copy(),
    )  # fmt: skip


Break = Callable[[Evidence, np.random.Generator], Evidence]


def with_scores(evidence: Evidence, value: Array, *, old: bool = False) -> Evidence:
    """Another candidate on the window, or on the old one."""
    window = evidence.old if old and evidence.old is not None else evidence.window
    changed = replace(window, candidate=replace(window.candidate, value=value))
    return replace(evidence, old=changed) if old else replace(evidence, window=changed)


def with_rows(evidence: Evidence, rows: Array, *, old: bool = False) -> Evidence:
    window = evidence.old if old and evidence.old is not None else evidence.window
    changed = replace(window, candidate=replace(window.candidate, rows=rows))
    return replace(evidence, old=changed) if old else replace(evidence, window=changed)


def worse(evidence: Evidence, rng: np.random.Generator, which: Array, *, old: bool = False) -> Evidence:
    """Where `which`: logits with much noise, or lists of other items."""
    window = evidence.old if old and evidence.old is not None else evidence.window
    side = window.candidate
    if side.rows is not None:
        rows = np.where(which[:, None] & (rng.random(side.rows.shape) < 0.6), 1 + side.rows, side.rows)
        return with_rows(evidence, rows, old=old)
    logit = np.log(side.value / (1 - side.value))
    noisy = np.where(which, logit + 2.0 * rng.standard_normal(len(logit)), logit)
    return with_scores(evidence, sigmoid(noisy), old=old)


def everywhere(evidence: Evidence) -> Array:
    return np.ones(len(evidence.window.label), np.bool_)


def flipped(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    """A tenth of the negatives was taught as positives."""
    taught = evidence.taught
    value = np.where(rng.random(len(taught.value)) < 0.1, 1 - taught.value, taught.value)
    return worse(replace(evidence, taught=replace(taught, value=value)), rng, everywhere(evidence))


def bursting(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    taught = evidence.taught
    some = np.flatnonzero(taught.source == "verdict")[:600]
    time = taught.observed_at.copy()
    time[some] = (NOW - 2 * DAY) // HOUR * HOUR + rng.integers(0, HOUR, len(some))
    happened = np.minimum(taught.event_time, time - HOUR)
    return replace(evidence, taught=replace(taught, observed_at=time, event_time=happened))


def duplicated(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    taught = evidence.taught
    claim, value = taught.claim.copy(), taught.value.copy()
    claim[:300], value[:300] = claim[300:600], 1 - value[300:600]
    return replace(evidence, taught=replace(taught, claim=claim, value=value))


def rescaled(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    """Amounts in cents where they were in euros."""
    features = evidence.taught.features * np.array([100.0, 1, 1, 1])
    return replace(evidence, taught=replace(evidence.taught, features=features, served=features))


def not_numbers(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    value = evidence.window.candidate.value.copy()
    value[rng.random(len(value)) < 0.01] = np.nan
    return with_scores(evidence, value)


def constant(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    side = evidence.window.candidate
    if side.rows is not None:
        return with_rows(evidence, np.tile(side.rows[:1], (len(side.rows), 1)))
    return with_scores(evidence, np.full(len(side.value), evidence.window.label.mean()))


def overconfident(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    """Twice what comes; only for tasks that say a probability."""
    return with_scores(evidence, np.minimum(2 * evidence.window.candidate.value, 1 - 1e-6))


def forgetful(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    assert evidence.old is not None
    return worse(evidence, rng, np.ones(len(evidence.old.label), np.bool_), old=True)


def one_sided(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    """Bad in one country, unharmed elsewhere."""
    return worse(evidence, rng, evidence.window.slices["country"] == "DE")


def slow(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    return replace(evidence, p99_ms=2 * BUDGET_MS)


def uncertain(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    return replace(evidence, certificate=replace(CERTIFICATE, max_difference=0.9, rank_correlation=0.97))


def leaked(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    window = evidence.window
    if window.candidate.rows is not None:
        rows = window.candidate.rows.copy()
        rows[:, 0] = window.label
        return with_rows(evidence, rows)
    return with_scores(evidence, np.clip(window.label, 0.001, 0.999) + 1e-4 * rng.random(len(window.label)))


def prescient(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    time = evidence.taught.observed_at - np.where(rng.random(len(evidence.taught.value)) < 0.02, 2 * DAY, 0)
    return replace(evidence, taught=replace(evidence.taught, observed_at=time))


def skewed(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    features = evidence.taught.features.copy()
    features[:100, 1] += 1
    return replace(evidence, taught=replace(evidence.taught, features=features))


def trained_on(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    return replace(evidence, trained_until=NOW + DAY)


BREAKS: dict[str, tuple[Break, str]] = {
    "label flips": (flipped, "label rate"),
    "burst from one source": (bursting, "burst of a source"),
    "duplicated labels": (duplicated, "contradictions"),
    "shifted feature scale": (rescaled, "shifted features"),
    "weights that are not finite": (not_numbers, "finite scores"),
    "constant scores": (constant, "varied scores"),
    "miscalibrated by 2": (overconfident, "calibration"),
    "forgot the old": (forgetful, "old "),
    "bad in one slice": (one_sided, "slices"),
    "slow engine": (slow, "p99"),
    "bad certificate": (uncertain, "certificate"),
    "leaked label": (leaked, "leakage"),
    "labels before their event": (prescient, "time travel"),
    "training-serving skew": (skewed, "training-serving skew"),
    "trained on the window": (trained_on, "never trained"),
}
"""What is broken, and the check that must say so (`old `: of the metric on the old window)."""


def broken(kind: str, task: str, seed: int) -> tuple[Evidence, str]:
    """An honest candidate with one thing wrong, and the name of the check that must fail."""
    change, name = BREAKS[kind]
    evidence = change(honest(task, seed), np.random.default_rng((seed, 77)))
    return evidence, f"old {METRICS[task].removesuffix('@10')}" if name == "old " else name


def applies(kind: str, task: str) -> bool:
    return not (kind == "miscalibrated by 2" and task == "recommendations")


TWENTY = [(kind, next(task for task in TASKS[n % 3 :] + TASKS if applies(kind, task))) for n, kind in enumerate(BREAKS)]
TWENTY += [("constant scores", "fraud"), ("miscalibrated by 2", "ctr"), ("forgot the old", "fraud")]
TWENTY += [("label flips", "ctr"), ("bad in one slice", "fraud")]
HONEST = [(TASKS[number % 3], 500 + number) for number in range(20)]


def main() -> None:
    refused = [judge(broken(kind, task, 3)[0]).verdict == "refuse" for kind, task in TWENTY]
    passed = [judge(honest(*case)).verdict == "pass" for case in HONEST]
    figures = {
        "broken": len(refused), "kinds": len(BREAKS), "broken_passed": refused.count(False),
        "honest": len(passed), "honest_refused": passed.count(False),
    }  # fmt: skip
    show("gate_cases", figures, {"broken_passed": 0, "honest_refused": 4})


if __name__ == "__main__":
    main()
