"""The watch on a live release: which labels it asks about, in which order, and what it concludes; quality beside it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from finetune.live import Verdict
from streams.learner.lists import Lists
from streams.learner.maturing import Maturing
from streams.learner.pairs import KEPT, MOST_PAIRS, Pairs
from streams.learner.quality import Quality, pr_auc, roc_auc
from streams.learner.watching import Pair, Watching
from streams.tasks import make_task

FRAUD = make_task("fraud")


class Watched(Pairs):
    """With the labels that mature, as the learner hands them on."""

    def __init__(self, task: str, pair: Pair | None, **how: Any) -> None:
        super().__init__(make_task(task), budget_ms=50.0, **how)
        self.maturing = Maturing(make_task(task).labels.name, make_task(task).labels.negatives > 0)
        self.follow(pair)

    def example(self, record: dict[str, Any]) -> None:
        self.maturing.add(record)
        for label in self.maturing.take():
            self.matured(label)

    @property
    def now(self) -> Watching:
        assert self.current is not None
        return self.current

    def verdict(self) -> Verdict:
        return self.now.verdict()


B = Pair("b", "a")


def watching(task: str = "fraud") -> Watched:
    return Watched(task, B)


def shadow(target: str, ours: list[float], theirs: list[float], **changed: Any) -> dict[str, Any]:
    return {
        "task": "fraud", "target_id": target, "live": "fraud/b", "shadow": "fraud/a", "candidates": [],
        "live_prediction": ours, "shadow_candidates": [], "shadow_prediction": theirs, "live_us": 900, "failure": None,
        "compared_at": 7, "event_time": 0,
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
    assert watch.now.compared == 0
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


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 9)), min_size=1, max_size=30))
def test_the_average_precision_is_scikit_learns(rows: list[tuple[int, bool, int]]) -> None:
    score, label, weight = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    found = pr_auc(score, label * weight, (1 - label) * weight)
    if label.any():
        assert found == pytest.approx(average_precision_score(label, score, sample_weight=weight))
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


# -- earlier pairs


C = Pair("c", "b")


def served_by_b(watch: Watched, count: int) -> None:
    """Events that b served, badly; c is live since."""
    for number in range(count):
        watch.shadow(shadow(f"o-{number}", [0.9], [0.02], event_time=number))
    watch.follow(C)


def test_a_label_that_comes_when_another_has_taken_over_speaks_of_the_release_that_served() -> None:
    watch = watching()
    served_by_b(watch, 100)
    for number in range(100):
        watch.example(example(f"o-{number}", 0.0, number))
    assert watch.verdict().labels == 0, "of c nothing was said"
    ((earlier, verdict),) = watch.refuted()
    assert (earlier.pair, verdict.action, verdict.labels) == (B, "rollback", 100)
    assert not list(watch.refuted()), "and it is said once"


def test_an_earlier_pair_that_did_well_is_let_go_of_when_all_its_events_have_had_their_labels() -> None:
    watch = watching()
    for number in range(20):
        watch.shadow(shadow(f"o-{number}", [0.02], [0.05], event_time=number))
    watch.follow(C)
    for until, held in ((18, 2), (19, 1)):
        watch.example(example(f"o-{until}", 0.0, until))
        assert not list(watch.refuted())
        watch.over(watch.maturing.until)
        assert len(list(watch)) == held
    watch.shadow(shadow("o-30", [0.5], [0.5], event_time=30))
    assert len(list(watch)) == 1, "what is done is done"


def test_a_pair_of_before_the_start_is_taken_up_where_one_was_made_from_the_other() -> None:
    asked: list[Pair] = []

    def precedes(pair: Pair) -> bool:
        asked.append(pair)
        return pair == B

    watch = Watched("fraud", C, precedes=precedes)
    for number in range(3):
        watch.shadow(shadow(f"o-{number}", [0.9], [0.02]))
        watch.shadow(shadow(f"o-{number}", [0.9], [0.02], live="fraud/c", shadow="fraud/d"))
    assert sorted(each.pair.live for each in watch) == ["b", "c"]
    assert asked == [B, Pair("c", "d")], "each is asked about once"


def test_a_release_that_is_live_again_goes_on_with_what_was_known_of_it() -> None:
    watch = watching()
    served_by_b(watch, 3)
    watch.follow(B)
    assert watch.now.compared == 3


def test_of_many_pairs_and_events_the_newest_are_kept() -> None:
    watch = watching()
    for number in range(MOST_PAIRS + 5):
        watch.follow(Pair(f"v{number + 1}", f"v{number}"))
    assert len(list(watch)) == MOST_PAIRS
    watch.now.asked.update(dict.fromkeys(map(str, range(KEPT))))  # type: ignore[arg-type]  # only counted
    names = {"live": f"fraud/v{MOST_PAIRS + 5}", "shadow": f"fraud/v{MOST_PAIRS + 4}"}
    watch.shadow(shadow("o-1", [0.5], [0.5], **names))
    assert len(watch.now.asked) == KEPT
    assert "0" not in watch.now.asked


# -- lists


def listed(target: str, ours: list[str], theirs: list[str]) -> dict[str, Any]:
    names = {"task": "recommendations", "live": "recommendations/b", "shadow": "recommendations/a"}
    return shadow(target, [1.0] * len(ours), [1.0] * len(theirs), candidates=ours, shadow_candidates=theirs, **names)


def test_a_list_that_has_what_was_taken_up_further_down_than_the_one_before_is_taken_back() -> None:
    watch, items = watching("recommendations"), [f"i{number}" for number in range(10)]
    for number in range(150):
        watch.shadow(listed(f"c-{number}", items[::-1], items))
        wanted = items[number % 3]
        watch.example(example(f"c-{number}", 1.0, number, "derived", name="click", candidate_id=wanted))
    verdict = watch.verdict()
    assert (verdict.action, verdict.labels) == ("rollback", 150)


def test_a_list_that_the_user_saw_is_no_worse_for_what_the_other_would_have_shown() -> None:
    """The other's list was seen by nobody: that it lacks what was taken up says little, and never speaks for it."""
    watch, rng = watching("recommendations"), np.random.default_rng(0)
    for number in range(400):
        ours, theirs = (rng.permutation(60)[:10].astype(str).tolist() for _ in range(2))
        watch.shadow(listed(f"c-{number}", ours, theirs if number % 7 else []))
        watch.example(example(f"c-{number}", 1.0, number, "derived", name="click", candidate_id=ours[number % 4]))
    assert watch.verdict().action == "keep"
    assert watch.verdict().labels == 400


def answered(lists: Lists, target: str, time: int, release: str = "recommendations/b", count: int = 10) -> None:
    items = [f"i{number}" for number in range(count)]
    lists.served({"target_id": target, "event_time": time, "release": release, "candidates": items})


def test_a_list_counts_when_its_time_for_an_answer_is_over_by_the_highest_item_that_was_taken_up() -> None:
    lists = Lists(window_ms=100)
    for number in range(4):
        answered(lists, f"c-{number}", number)
    for target, item in (("c-0", "i7"), ("c-0", "i2"), ("c-1", "i0"), ("c-1", "i0"), ("c-2", "other"), ("c-9", "i1")):
        lists.wanted(target, item)
    assert lists.figures() == {}
    answered(lists, "c-5", 102, "recommendations/c")
    figures = lists.figures()["recommendations/b"]
    assert (figures.lists, figures.hits) == (3, 2)
    assert figures.hit_rate == pytest.approx(2 / 3)
    assert figures.ndcg == pytest.approx((1 / np.log2(4) + 1) / 3)
    lists.wanted("c-1", "i5")
    answered(lists, "c-6", 10_000, "recommendations/c")
    assert {release: each.lists for release, each in lists.figures().items()} == {
        "recommendations/b": 4, "recommendations/c": 1,
    }  # fmt: skip


def test_of_too_many_lists_a_sample_speaks_for_all_of_them() -> None:
    lists = Lists(window_ms=10**6, kept=2_000)
    for number in range(20_000):
        answered(lists, f"c-{number}", number)
        if number % 4 == 0:
            lists.wanted(f"c-{number}", "i0")
    answered(lists, "last", 10**7)
    (figures,) = lists.figures().values()
    assert 700 < figures.lists <= 2_000
    assert figures.hit_rate == pytest.approx(0.25, abs=0.05)
