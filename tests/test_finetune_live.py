"""The watch takes a bad release back soon, leaves good ones alone however often it looks, and says why."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.gate_cases import sigmoid
from finetune.live import Bet, LiveBounds, Watch
from schemas.errors import SettingsError

Array = NDArray[np.float64]
Bad = Callable[[np.random.Generator, Array], Array]


def season(seed: int, count: int) -> tuple[np.random.Generator, Array, Array, Array]:
    """Labels of which 3 % are positive, the scores of the release before and of a slightly better one."""
    rng = np.random.default_rng(seed)
    truth = -6.0 + 2.6 * rng.standard_normal(count)
    label = (rng.random(count) < sigmoid(truth)).astype(float)
    before = sigmoid(0.9 * (truth + 0.9 * rng.standard_normal(count)) - 0.3)
    good = sigmoid(0.92 * (truth + 0.8 * rng.standard_normal(count)) - 0.3)
    return rng, label, before, good


BAD: dict[str, Bad] = {
    "constant": lambda rng, p: np.full(len(p), 0.03),
    "inverted": lambda rng, p: 1 - p,
    "shuffled": lambda rng, p: rng.permutation(p),
    "noisy": lambda rng, p: sigmoid(np.log(p / (1 - p)) + 4 * rng.standard_normal(len(p))),
    "silent": lambda rng, p: 0.01 * p,
    "not numbers": lambda rng, p: np.full(len(p), np.nan),
}


def watch() -> Watch:
    return Watch("new", "old", budget_ms=8.0)


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_release_is_taken_back_within_500_labels(kind: str):
    for seed in range(20):
        rng, label, before, _ = season(seed, 500)
        bad, watching = BAD[kind](rng, before), watch()
        for start in range(0, 500, 10):
            part = slice(start, start + 10)
            watching.labelled(label[part], bad[part], before[part])
            verdict = watching.scored(bad[part].tolist(), before[part].tolist())
        assert verdict.action == "rollback"
        assert verdict.labels <= 500
        assert "new" in verdict.reasons[0]


@pytest.mark.parametrize("kind", ["inverted", "noisy", "not numbers"])
def test_labels_alone_refute_what_is_wrong_about_them(kind: str):
    for seed in range(20):
        rng, label, before, _ = season(seed, 500)
        assert watch().labelled(label, BAD[kind](rng, before), before).action == "rollback"


def test_of_a_hundred_good_swaps_none_is_taken_back_though_each_label_is_looked_at():
    for seed in range(100):
        _, label, before, good = season(seed, 3000)
        watching = watch()
        watching.labelled(label, good, before)
        assert watching.scored(good.tolist(), before.tolist()).action == "keep"


def test_a_swap_that_changes_nothing_raises_false_alarms_no_more_often_than_alpha():
    """The hardest good case: just as good, on other events. 400 of them, with an alpha that can be counted."""
    alarms = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        bet = Bet(0.0, -1.0, 1.0, alpha=0.1)
        alarms += bet.add(rng.choice([-0.9, 0.9], 1000))
    assert 0 < alarms <= 40


def test_looking_at_each_label_or_at_all_at_once_is_the_same():
    values = np.random.default_rng(0).normal(0.05, 0.3, 300)
    whole, single = Bet(0.0, -1.0, 1.0, 0.01), Bet(0.0, -1.0, 1.0, 0.01)
    whole.add(values)
    for value in values:
        single.add(value)
    assert single.peak == pytest.approx(whole.peak)
    assert single.count == whole.count == 300


def test_a_worse_list_is_taken_back_within_500_labels():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        wanted = rng.integers(1, 1000, 500)
        shadow = rng.integers(1000, 2000, (500, 10))
        found = rng.random(500) < 0.2
        shadow[found, rng.integers(0, 10, found.sum())] = wanted[found]
        live = np.where(rng.random((500, 1)) < 0.7, 2000, shadow)
        assert watch().ranked(wanted, live, shadow).action == "rollback"
        assert watch().ranked(wanted, shadow, shadow).action == "keep"


def test_failing_and_slow_calls_take_it_back_and_a_p99_in_the_budget_does_not():
    rng = np.random.default_rng(0)
    fine = np.zeros(5000)
    assert watch().called(np.where(rng.random(5000) < 0.01, 20.0, 5.0), fine).action == "keep"
    slow = watch().called(np.where(rng.random(500) < 0.3, 20.0, 5.0), fine[:500])
    assert slow.action == "rollback"
    assert "8 ms" in slow.reasons[0]
    failing = watch().called(np.full(500, 5.0), rng.random(500) < 0.1)
    assert failing.action == "rollback"
    assert "failed" in failing.reasons[0]


def test_a_verdict_stands_though_later_labels_speak_for_the_release():
    _, label, before, good = season(1, 4000)
    watching = watch()
    assert watching.labelled(label[:300], 1 - before[:300], before[:300]).action == "rollback"
    assert watching.labelled(label[300:], good[300:], before[300:]).action == "rollback"


def test_nothing_seen_is_nothing_against_it():
    verdict = watch().labelled([], [], [])
    assert (verdict.action, verdict.labels, verdict.reasons) == ("keep", 0, ())


def test_a_bet_that_cannot_be_is_refused():
    with pytest.raises(SettingsError, match="a bet on at most 2"):
        Bet(2.0, 0.0, 1.0, 0.01)


def test_all_bets_together_stay_within_alpha():
    bounds = LiveBounds()
    watching = Watch("new", "old", budget_ms=1, bounds=bounds)
    limits = (watching._quality.limit, watching._errors.limit, watching._slow.limit)
    assert sum(np.exp(-limit) for limit in limits) == pytest.approx(bounds.alpha)
