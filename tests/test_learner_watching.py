"""The watch on a live release: which labels it asks about, in which order, and what it concludes; quality beside it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from streams.learner.maturing import Maturing
from streams.learner.quality import Quality, roc_auc
from streams.learner.watching import Pair, Watching
from streams.tasks import make_task

FRAUD = make_task("fraud")


class Watched(Watching):
    """With the labels that mature, as the learner hands them on."""

    maturing: Maturing

    def example(self, record: dict[str, Any]) -> None:
        self.maturing.add(record)
        for label in self.maturing.take():
            self.matured(label)


def watching(task: str = "fraud", budget_ms: float = 50.0) -> Watched:
    made = Watched(make_task(task), Pair("b", "a"), budget_ms=budget_ms)
    made.maturing = Maturing(make_task(task).labels.name, True)
    return made


def shadow(target: str, ours: list[float], theirs: list[float], **changed: Any) -> dict[str, Any]:
    return {
        "task": "fraud", "target_id": target, "live": "fraud/b", "shadow": "fraud/a", "candidates": [],
        "live_prediction": ours, "shadow_prediction": theirs, "live_us": 900, "failure": None, "compared_at": 7,
    } | changed  # fmt: skip


def example(target: str, label: float, time: int, source: str = "", **changed: Any) -> dict[str, Any]:
    return {
        "target_id": target, "candidate_id": None, "name": "fraud", "label": label, "event_time": time,
        "source": source, "revision": 0, "weight": 1.0, "prediction": 0.5, "release": "fraud/b",
    } | changed  # fmt: skip


def test_a_release_that_does_worse_on_matured_labels_is_to_be_rolled_back() -> None:
    watch, rng = watching(), np.random.default_rng(0)
    for number in range(400):
        fraud = rng.random() < 0.1
        good = 0.7 if fraud else 0.05
        watch.shadow(shadow(f"o-{number}", [1 - good], [good]))
        watch.example(example(f"o-{number}", float(fraud), number, "chargeback" if fraud else ""))
    verdict = watch.verdict()
    assert verdict.action == "rollback"
    assert verdict.labels == 400


def test_the_same_release_beside_itself_is_kept() -> None:
    watch, rng = watching(), np.random.default_rng(1)
    for number in range(2_000):
        p = float(rng.random() * 0.2)
        watch.shadow(shadow(f"o-{number}", [p], [p]))
        watch.example(example(f"o-{number}", float(rng.random() < p), number))
    assert watch.verdict().action == "keep"


def test_a_fraud_that_is_known_early_waits_for_the_silence_of_its_time() -> None:
    watch = watching()
    for number in range(3):
        watch.shadow(shadow(f"o-{number}", [0.5], [0.5]))
    watch.example(example("o-2", 1.0, 200, "chargeback"))
    assert watch.verdict().labels == 0
    watch.example(example("o-0", 0.0, 100))
    assert watch.verdict().labels == 1
    watch.example(example("o-1", 0.0, 200))
    assert watch.verdict().labels == 3


def test_scores_of_other_pairs_and_labels_of_what_was_not_compared_say_nothing() -> None:
    watch = watching()
    watch.shadow(shadow("o-1", [0.9], [0.1], live="fraud/a", shadow="fraud/b"))
    watch.example(example("o-1", 0.0, 1))
    watch.example(example("o-2", 0.0, 2))
    assert watch.compared == 0
    assert watch.verdict().labels == 0


def test_an_ad_is_compared_by_its_place_in_the_slate() -> None:
    watch = watching("ctr")
    names = {"task": "ctr", "live": "ctr/b", "shadow": "ctr/a", "candidates": ["x", "y"]}
    for number in range(300):
        watch.shadow(shadow(f"i-{number}", [0.02, 0.98], [0.02, 0.1], **names))
        for ad in "xy":
            watch.example(example(f"i-{number}", 0.0, number, name="click", candidate_id=ad))
    assert watch.verdict().action == "rollback"


def test_calls_that_fail_are_enough() -> None:
    watch = watching()
    for number in range(200):
        watch.shadow(shadow(f"o-{number}", [0.1], [0.1], failure="not finite"))
    verdict = watch.verdict()
    assert verdict.action == "rollback"
    assert "calls of b failed" in " ".join(verdict.reasons)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_area_is_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    score, label = (np.array(column, np.float64) for column in zip(*pairs, strict=True))
    found = roc_auc(score, label, 1 - label)
    if 0 < label.sum() < len(label):
        assert found == pytest.approx(roc_auc_score(label, score))
    else:
        assert np.isnan(found)


def test_the_estimate_comes_near_what_the_labels_say_later() -> None:
    rng, quality = np.random.default_rng(2), Quality()
    for p in rng.beta(1, 9, 5_000):
        quality.said(float(p))
        quality.labelled(float(p), float(rng.random() < p), 1.0)
    figures = quality.figures()
    assert figures.labels == 5_000
    assert figures.estimated_roc_auc == pytest.approx(figures.roc_auc, abs=0.03)
    assert figures.calibration == pytest.approx(1.0, abs=0.1)
    assert np.isnan(Quality().figures().roc_auc)


def test_a_label_that_overtakes_its_comparison_still_counts() -> None:
    watch = watching()
    watch.example(example("o-1", 0.0, 1))
    assert watch.verdict().labels == 0
    watch.shadow(shadow("o-1", [0.1], [0.1]))
    assert watch.verdict().labels == 1
