"""The gate lets honest improvements through, refuses what is broken for the right reason, and says why."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from bench.gate_cases import HONEST, HOUR, NOW, TASKS, TWENTY, broken, everywhere, honest, worse
from finetune import checks, metrics, poison
from finetune.bootstrap import Floats, Statistic, average_precision, paired, ranking, recall_at, units_of
from finetune.bounds import Bounds
from finetune.evidence import Evidence, GateReport, Scores
from finetune.gate import judge
from schemas.errors import SettingsError, TrainingError

QUICK = Bounds(draws=200)


@pytest.fixture(scope="module")
def fraud() -> Evidence:
    return honest("fraud", 1)


def failed(evidence: Evidence, bounds: Bounds = QUICK) -> tuple[str, ...]:
    return judge(evidence, bounds).reasons


@pytest.mark.parametrize(("kind", "task"), TWENTY)
def test_a_broken_candidate_is_refused_for_what_is_broken(kind: str, task: str):
    evidence, name = broken(kind, task, 3)
    report = judge(evidence, QUICK)
    assert report.verdict == "refuse"
    assert name in report.reasons
    assert not report.improves


def test_there_are_twenty_broken_candidates_of_ten_kinds():
    assert len(set(TWENTY)) >= 20
    assert len({kind for kind, _ in TWENTY}) >= 10


def test_at_least_sixteen_of_twenty_honest_improvements_pass():
    assert len(HONEST) == 20
    assert sum(judge(honest(*case), QUICK).verdict == "pass" for case in HONEST) >= 16


@pytest.mark.parametrize("task", TASKS)
def test_equal_scores_pass_and_are_no_improvement(task: str):
    evidence = honest(task, 2)
    window, old = evidence.window, evidence.old
    assert old is not None
    same = replace(
        evidence, window=replace(window, candidate=window.champion), old=replace(old, candidate=old.champion),
        thresholds=evidence.thresholds and (evidence.thresholds[0],) * 2,
    )  # fmt: skip
    report = judge(same, QUICK)
    assert report.verdict == "pass"
    assert not report.improves
    assert all(value == 0 for name, value in report.figures.items() if name.endswith(("difference", "low", "high")))


@pytest.mark.parametrize("task", TASKS)
def test_a_candidate_that_gets_worse_and_worse_is_refused_from_some_point_on(task: str):
    evidence = honest(task, 4)
    rank = np.random.default_rng(0).random(len(evidence.window.label))
    verdicts = [
        judge(worse(evidence, np.random.default_rng(0), rank < share), QUICK).verdict for share in (0, 0.15, 0.4, 1)
    ]
    assert verdicts[0] == "pass"
    assert verdicts[-1] == "refuse"
    assert verdicts == sorted(verdicts)


def changed(task: str, *, gains: bool) -> Evidence:
    """The candidate is worse on old examples; on the newest ones the champion guesses, and so does it or not."""
    evidence, rng = honest(task, 1), np.random.default_rng(0)
    window, old = evidence.window, evidence.old
    assert old is not None
    known = np.asarray(window.champion.value, np.float64)
    guess = replace(window.champion, value=rng.permutation(known))
    right = replace(window.champion, value=known if gains else guess.value)
    kept = np.asarray(old.champion.value, np.float64)
    blurred = np.where(rng.random(len(kept)) < 0.3, rng.permutation(kept), kept)
    return replace(
        evidence,
        window=replace(window, champion=guess, candidate=right),
        old=replace(old, candidate=replace(old.champion, value=blurred)),
    )


def test_what_old_tastes_cost_is_allowed_as_far_as_new_ones_gain_for_certain() -> None:
    assert "old normalised_entropy" not in failed(changed("ctr", gains=True))
    assert "old normalised_entropy" in failed(changed("ctr", gains=False))
    never = replace(QUICK, old_share={})
    assert "old normalised_entropy" in failed(changed("ctr", gains=True), never)


def test_more_probabilities_may_move_where_the_newest_examples_show_a_gain() -> None:
    bounds = replace(QUICK, changes={**QUICK.changes, "chances": 0.01, "chances_gained": 0.99})
    assert "changed decisions" not in failed(changed("ctr", gains=True), bounds)
    evidence = changed("ctr", gains=False)
    other = np.random.default_rng(1).permutation(np.asarray(evidence.window.champion.value))
    lost = replace(evidence.window, candidate=replace(evidence.window.candidate, value=other))
    assert "changed decisions" in failed(replace(evidence, window=lost), bounds)


def test_old_frauds_come_back_and_are_not_given_up_for_new_ones() -> None:
    assert {"old pr_auc", "old recall"} & set(failed(changed("fraud", gains=True)))


def test_the_report_goes_through_json_and_back(fraud: Evidence):
    nan = replace(fraud.window.candidate, value=np.full(len(fraud.window.label), np.nan))
    for evidence in (fraud, replace(fraud, window=replace(fraud.window, candidate=nan))):
        report = judge(evidence, QUICK)
        said = json.loads(json.dumps(report.as_dict(), allow_nan=False))
        assert GateReport.from_dict(said) == report
        assert all(check.said.endswith(".") for check in report.checks)
        assert len({check.name for check in report.checks}) == len(report.checks)


def test_the_same_evidence_gives_the_same_report(fraud: Evidence):
    assert judge(fraud, QUICK) == judge(fraud, QUICK)


def test_too_few_labels_are_not_enough_evidence(fraud: Evidence):
    window = replace(fraud.window, weight=np.where(np.arange(len(fraud.window.label)) < 500, 1.0, 0.0))
    report = judge(replace(fraud, window=window), QUICK)
    assert {"enough labels", "enough positives"} <= set(report.reasons)
    assert not report.figures


def test_an_engine_without_a_certificate_is_refused(fraud: Evidence):
    assert failed(replace(fraud, certificate=None)) == ("certificate",)


def test_thresholds_that_send_too_many_orders_to_review_are_refused(fraud: Evidence):
    assert fraud.thresholds is not None
    low = (0.0005, fraud.thresholds[1][1])
    assert {"alerts", "changed decisions"} <= set(failed(replace(fraud, thresholds=(fraud.thresholds[0], low))))


def test_where_fraud_has_risen_alerts_are_measured_by_the_champions_own(fraud: Evidence) -> None:
    def flagging(champion: float, candidate: float) -> Evidence:
        window = fraud.window
        sides = ((window.champion.value, champion), (window.candidate.value, candidate))
        old, new = (float(np.quantile(value, 1 - share)) for value, share in sides)
        return replace(fraud, thresholds=((old, 2.0), (new, 2.0)))

    assert "alerts" not in failed(flagging(0.08, 0.11))
    assert "alerts" in failed(flagging(0.08, 0.13))
    assert "alerts" in failed(flagging(0.02, 0.06))
    assert "alerts" not in failed(flagging(0.01, 0.045))


def test_one_user_with_a_flood_of_labels_is_seen(fraud: Evidence):
    user = fraud.taught.user.copy()
    user[:200] = 1
    assert failed(replace(fraud, taught=replace(fraud.taught, user=user))) == ("burst of a user",)


def test_labels_that_come_twice_are_seen(fraud: Evidence):
    ids = fraud.taught.label_id.copy()
    ids[:200] = ids[200:400]
    assert failed(replace(fraud, taught=replace(fraud.taught, label_id=ids))) == ("repeated labels",)


def test_a_feed_that_comes_once_a_day_is_no_burst(fraud: Evidence):
    assert fraud.known is not None
    taught, known = (
        replace(each, observed_at=each.observed_at // (24 * HOUR) * 24 * HOUR + 24 * HOUR)
        for each in (fraud.taught, fraud.known)
    )
    assert poison.burst(taught, known, QUICK).passed


def test_a_source_that_was_never_heard_of_may_not_send_hundreds_at_once(fraud: Evidence):
    assert fraud.known is not None
    source, observed = fraud.taught.source.astype("U20"), fraud.taught.observed_at.copy()
    source[:300], observed[:300] = "partner", NOW
    found = poison.burst(replace(fraud.taught, source=source, observed_at=observed), fraud.known, QUICK)
    assert not found.passed
    assert "partner" in found.said


def test_psi_is_small_for_a_resample_and_large_for_another_unit():
    rng = np.random.default_rng(0)
    before, now = np.abs(rng.standard_normal((2, 4000)))
    now[:100] = np.nan
    before[:100] = np.nan
    assert poison.psi(now, before) < 0.05
    assert poison.psi(100 * now, before) > 1
    assert poison.psi(np.zeros(500), np.zeros(900)) < 0.01
    assert poison.psi(np.ones(500), np.zeros(900)) > 1


def test_holm_rejects_in_order_and_stops_at_the_first_that_holds():
    assert checks.holm({"a": 0.04, "b": 0.001, "c": 0.02}, 0.05) == ["b", "c", "a"]
    assert checks.holm({"a": 0.04, "b": 0.001, "c": 0.03}, 0.05) == ["b"]
    assert checks.holm({}, 0.05) == []


def test_a_metric_that_the_gate_does_not_know_is_an_error(fraud: Evidence):
    with pytest.raises(SettingsError, match="no gate for the metric"):
        judge(replace(fraud, metric="accuracy"), QUICK)


def test_a_window_of_unequal_lengths_is_an_error(fraud: Evidence):
    with pytest.raises(TrainingError, match="candidate"):
        replace(fraud.window, candidate=Scores(np.zeros(3)))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 8))
def test_figures_of_weighted_draws_are_those_of_the_events_repeated(seed: int, n: int, distinct: int):
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.4).astype(float)
    label[:2] = (0, 1)
    score = rng.integers(0, distinct, n) / distinct
    unit, weight = units_of(rng.integers(0, n, n)), np.ones(n)
    count = rng.poisson(1.0, (1, unit.max() + 1)).astype(float)
    again = np.repeat(np.arange(n), count[0][unit].astype(int))
    if not 0 < label[again].sum() < len(again):
        return
    pair = ranking(unit, label, weight, score, score, average_precision)(count)
    assert pair[0][0] == pair[1][0] == pytest.approx(average_precision_score(label[again], score[again]))
    recall = ranking(unit, label, weight, score, score, recall_at(0.2))(count)[0][0]
    assert recall == pytest.approx(metrics.recall_at_fpr(label[again], score[again], 0.2))
    assert checks.roc_auc(label[again], score[again]) == pytest.approx(roc_auc_score(label[again], score[again]))


def test_the_interval_of_a_difference_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values = rng.normal(0.1, 1.0, 300)
        found = paired(mean_of(values), 300, 300, relative=False, draws=300, seed=seed)
        held += found.low <= 0.1
    assert 180 <= held <= 198


def mean_of(values: Floats) -> Statistic:
    return lambda count: (np.zeros(len(count)), count @ values / count.sum(axis=1))


def test_harm_everywhere_is_seen_in_every_task():
    for task in TASKS:
        evidence = honest(task, 6)
        reasons = failed(worse(evidence, np.random.default_rng(1), everywhere(evidence)))
        assert metrics_of(task) & set(reasons)


def metrics_of(task: str) -> set[str]:
    return {"fraud": {"pr_auc", "recall"}, "ctr": {"normalised_entropy"}, "recommendations": {"ndcg"}}[task]


def test_what_has_moved_as_the_newest_events_have_is_no_poison() -> None:
    evidence = honest("fraud", 3)
    grown = evidence.taught.features * np.array([100.0, 1, 1, 1])
    moved = replace(evidence, taught=replace(evidence.taught, features=grown, served=grown))
    assert "shifted features" in failed(moved)
    assert "shifted features" not in failed(replace(moved, window_features=grown[::2]))
    assert "shifted features" in failed(replace(moved, window_features=evidence.taught.features[::2]))


@pytest.mark.parametrize("task", TASKS)
def test_with_all_evidence_only_what_nobody_hands_in_is_not_judged(task: str):
    assert set(judge(honest(task, 5), QUICK).not_judged) <= {"training-serving skew", "slices"}


def test_what_could_not_be_looked_at_is_said_with_its_reason_and_is_no_check(fraud: Evidence):
    """Whoever reads a report without old events sees that nobody asked whether something was forgotten."""
    report = judge(replace(fraud, old=None, known=None, why_no_old="of 7 kept examples none has a label"), QUICK)
    assert report.verdict == "pass"
    of_labels = {"burst of a source", "burst of a user", "label rate", "shifted features"}
    assert report.not_judged.keys() >= {"old pr_auc", "old recall", *of_labels}
    assert report.not_judged["old recall"] == "of 7 kept examples none has a label"
    assert report.not_judged.keys().isdisjoint(check.name for check in report.checks)
    assert GateReport.from_dict(json.loads(json.dumps(report.as_dict()))) == report


def test_a_report_of_before_is_read_as_one_that_left_nothing_out(fraud: Evidence):
    said = judge(fraud, QUICK).as_dict()
    del said["not_judged"]
    assert GateReport.from_dict(said).not_judged == {}


def test_every_check_is_either_judged_or_said_to_be_left_out(fraud: Evidence):
    """Whatever is missing: the names of both together are those of a whole judgement."""
    all_evidence = judge(fraud, QUICK)
    whole = {check.name for check in all_evidence.checks} | set(all_evidence.not_judged)
    few = replace(fraud.window, weight=np.zeros_like(fraud.window.weight))
    for part in (replace(fraud, old=None), replace(fraud, known=None), replace(fraud, window=few)):
        report = judge(part, QUICK)
        said = {check.name for check in report.checks} | set(report.not_judged)
        of_the_rest = {"enough old labels", "enough old positives", "alerts", "calibration error"}
        assert whole - said <= of_the_rest, part
