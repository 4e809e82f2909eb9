"""Decisions that are drawn for learning: of what would be blocked, and of what is nearest to the boundary of review.
Who is drawn, how many, that nobody can choose it without the key, and that what they count for adds up to all.
"""

from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.calibrate import thresholds
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.catalog import Catalogue
from streams.config import Settings
from streams.exploring import exploration, exploring_task
from streams.policy.decide import Policy
from streams.policy.lists import Lists
from streams.tasks import make_task
from streams.tasks.base import Result, Serving
from streams.tasks.exploration import LEAST, RANKS, Exploration
from streams.tasks.fraud import LET_THROUGH, UNCERTAIN
from tests.labels_shop import DAY, FRAUD, NOW, close, fraud, join_of
from tests.labels_shop import order as labelled
from tests.records import order

SHARE = 0.02
EXPLORATION = Exploration(SHARE, key=b"a key of the tests")
chances = st.floats(0, 1)
ids = st.text(min_size=1, max_size=40)


def decided(
    scores: list[float],
    *,
    block: float = 0.9,
    prefix: str = "e",
    explored: Exploration = EXPLORATION,
    release: dict[str, Any] | None = None,
    policy: Policy | None = None,
) -> list[Result]:
    """Results of orders that the model gives these probabilities."""
    task = make_task("fraud")
    task.explore(explored)
    events = [order(event_id=f"{prefix}{number}", order_id=f"o{number}") for number in range(len(scores))]
    p = np.clip(np.array(scores), 1e-9, 1 - 1e-9)
    logit = np.log(p / (1 - p)).astype(np.float32)
    rows = np.zeros(len(scores), task.features)
    serving = Serving(Catalogue(), {"a": 1.0, "b": 0.0}, release or {"review": 0.5, "block": block}, policy)
    return task.results({"logit": logit}, events, rows, serving)


@given(chances, chances)
def test_the_surer_the_score_the_smaller_the_chance_within_its_bounds(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert LEAST * SHARE <= EXPLORATION.chance(high) <= EXPLORATION.chance(low) <= SHARE


@given(ids, chances)
def test_the_same_event_and_score_get_the_same_answer(event_id: str, probability: float) -> None:
    kept = float(np.float32(probability))  # as the score record has it
    assert EXPLORATION.lets_through(event_id, probability) == EXPLORATION.lets_through(event_id, kept)
    for through in (False, True):
        assert EXPLORATION.propensity(probability, let_through=through) == EXPLORATION.propensity(
            kept, let_through=through
        )


@given(ids, chances)
def test_a_share_of_0_turns_it_off(event_id: str, probability: float) -> None:
    assert not Exploration(0).lets_through(event_id, probability)
    assert Exploration(0).propensity(probability, let_through=False) == 1


@pytest.mark.parametrize("probability", [0.6, 0.9, 0.99, 0.9999])
def test_as_many_are_let_through_as_the_chance_says(probability: float) -> None:
    count, chance = 100_000, EXPLORATION.chance(probability)
    through = sum(EXPLORATION.lets_through(f"event-{number}", probability) for number in range(count))
    assert abs(through - count * chance) < 5 * sqrt(count * chance * (1 - chance))


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.floats(0.5, 1), min_size=1, max_size=50), st.integers(0, 10**6))
def test_those_let_through_stand_for_all_that_would_be_blocked(scores: list[float], seed: int) -> None:
    """The sum of their inverse chances is the number of the blocked, up to its own standard deviation."""
    repeats = 2_000 // len(scores) + 1
    found, variance = 0.0, 0.0
    for number in range(repeats):
        for place, score in enumerate(scores):
            chance = EXPLORATION.propensity(score, let_through=True)
            variance += (1 - chance) / chance
            if EXPLORATION.lets_through(f"{seed}-{number}-{place}", score):
                found += 1 / chance
    assert abs(found - repeats * len(scores)) < 6 * sqrt(variance)


def test_only_what_would_be_blocked_is_let_through_and_says_so() -> None:
    scores = np.random.default_rng(0).uniform(0, 1, 20_000).tolist()
    results = decided(scores)
    blocked = [result for result, score in zip(results, scores, strict=True) if score >= 0.9]
    others = [result for result, score in zip(results, scores, strict=True) if score < 0.9]
    assert all(result.propensity == 1 for result in others)
    assert not any(LET_THROUGH in result.fields["reasons"] for result in others)
    through = [result for result in blocked if result.decision == "review"]
    assert {result.decision for result in blocked} == {"review", "block"}
    assert 0 < len(through) <= SHARE * len(blocked)
    for result in blocked:
        learning = result.decision == "review"
        assert (LET_THROUGH in result.fields["reasons"]) == learning
        chance = EXPLORATION.chance(result.prediction[0])
        assert result.propensity == pytest.approx(chance if learning else 1 - chance)


def test_the_uncertain_are_let_through_more_often_than_the_sure() -> None:
    near = sum(result.decision == "review" for result in decided([0.91] * 20_000, prefix="near"))
    sure = sum(result.decision == "review" for result in decided([0.999] * 20_000, prefix="sure"))
    assert near > 1.5 * sure > 0


def test_after_a_crash_the_score_says_the_same_again() -> None:
    task, registry = make_task("fraud"), MemoryRegistry()
    encode, decode = Encoder(registry, "scores.fraud", "fraud_score"), Decoder(registry, "fraud_score")
    results = decided(np.random.default_rng(1).uniform(0.3, 1, 3_000).tolist())
    assert any(LET_THROUGH in result.fields["reasons"] for result in results)
    for number, result in enumerate(results):
        score = {
            "event_id": f"e{number}", "user_id": "u", "event_time": 1, "scored_at": 1, "release": "r", "engine": "e",
            "late": False, "fallback": None, "timings": {"queue_us": 0, "infer_us": 0},
            "cut": {"clicks": 0, "orders": 0, "impressions": 0}, **result.fields,
        }  # fmt: skip
        said = task.said(decode(encode(score)))
        assert (said.decision, said.propensity, said.fields["reasons"]) == (
            result.decision, result.propensity, result.fields["reasons"],
        )  # fmt: skip


def test_the_fallback_lets_nothing_through() -> None:
    task = make_task("fraud")
    task.explore(Exploration(0.5, 1.0))
    rows, serving = np.zeros(1, task.features), Serving(Catalogue(), {}, {"mean": 0.99})
    [result] = task.fallback([order()], rows, serving)
    assert (result.decision, result.propensity, result.otherwise) == ("review", 1.0, None)


# -- the key ---------------------------------------------------------------------------------------------------------


def test_ids_that_pass_under_one_key_are_no_better_than_others_under_another() -> None:
    """Who knows the sources but not the key can choose no id."""
    one, other = Exploration(0.5, key=b"one"), Exploration(0.5, key=b"another")
    chosen = [ident for number in range(8_000) if one.lets_through(ident := f"event-{number}", 0.5)]
    passed = sum(other.lets_through(ident, 0.5) for ident in chosen)
    assert abs(passed - len(chosen) / 2) < 5 * sqrt(len(chosen) / 4)


@pytest.mark.parametrize("where", ["exploration", "privacy"])
def test_all_workers_with_the_keys_of_the_installation_draw_the_same(tmp_path: Path, where: str) -> None:
    def drawn_by(machine: str, key: str) -> Exploration:
        secrets: dict[str, Any] = {where: {"key": key}}
        return exploration(Settings(data_dir=tmp_path / machine, **secrets))

    assert drawn_by("one", "9f" * 32) == drawn_by("two", "9f" * 32)
    assert drawn_by("one", "9f" * 32) != drawn_by("one", "e3" * 32)


def test_without_any_key_the_machine_makes_one_and_keeps_it(tmp_path: Path) -> None:
    made = exploration(Settings(data_dir=tmp_path / "one"))
    assert made == exploration(Settings(data_dir=tmp_path / "one"))
    assert made.key != exploration(Settings(data_dir=tmp_path / "two")).key
    assert made.key.hex() not in repr(made)
    assert repr(made.key) not in repr(made)


def test_the_shares_are_the_settings_and_0_draws_nothing(tmp_path: Path) -> None:
    task = exploring_task(Settings(data_dir=tmp_path, exploration={"share": 0, "uncertain": 0}), "fraud")
    rows, p = np.zeros(2_000, task.features), np.linspace(0.01, 0.999, 2_000)
    events = [order(event_id=f"e{number}") for number in range(2_000)]
    serving = Serving(Catalogue(), {}, {"review": 0.5, "block": 0.9, RANKS: [1.0, 0.5, 0.2]})
    results = task.results({"logit": np.log(p / (1 - p)).astype(np.float32)}, events, rows, serving)
    assert {(result.propensity, result.otherwise) for result in results} == {(1.0, None)}


# -- the orders nearest to the boundary -------------------------------------------------------------------------------

UNCERTAIN_SHARE = 0.2
NEAR = Exploration(SHARE, UNCERTAIN_SHARE, b"a key of the tests")
BUDGET = 0.05


def scored(count: int = 40_000) -> tuple[list[float], dict[str, Any]]:
    """Scores, and the settings of a release that was calibrated on as many others."""
    held, later = np.random.default_rng(7).beta(0.4, 12, (2, count))
    return later.tolist(), thresholds(np.zeros(count, np.float32), held, BUDGET)


def test_the_share_of_the_budget_goes_to_the_nearest_and_the_budget_stays() -> None:
    scores, release = scored()
    results = decided(scores, explored=NEAR, release=release)
    reviewed = np.array([result.decision == "review" for result in results])
    drawn = np.array([result.otherwise is not None for result in results])
    budget = BUDGET * len(scores)
    assert reviewed.sum() == pytest.approx(budget, rel=0.08)
    assert (reviewed & drawn).sum() == pytest.approx(UNCERTAIN_SHARE * budget, rel=0.2)
    above = np.argsort(np.argsort(-np.array(scores))) - np.count_nonzero(np.array(scores) >= release["review"])
    assert np.abs(above)[drawn].max() <= 1.2 * UNCERTAIN_SHARE * budget
    assert np.abs(above)[~drawn].min() >= 0.8 * UNCERTAIN_SHARE * budget
    for score, result in zip(scores, results, strict=True):
        if result.otherwise is None:
            assert result.propensity == 1
            assert (result.decision == "review") == (score >= release["review"])


def test_what_is_drawn_says_its_chance_its_reason_and_what_else_it_could_have_been() -> None:
    scores, release = scored()
    drawn = [result for result in decided(scores, explored=NEAR, release=release) if result.otherwise]
    assert {(each.decision, each.otherwise, each.propensity) for each in drawn} == {
        ("review", "approve", 0.5), ("approve", "review", 0.5),
    }  # fmt: skip
    assert all((UNCERTAIN in each.fields["reasons"]) == (each.decision == "review") for each in drawn)
    task = make_task("fraud")
    for each in drawn[:50]:
        said = task.said({"event_id": "e", **each.fields})
        assert (said.decision, said.propensity, said.otherwise) == (each.decision, each.propensity, each.otherwise)


def test_both_halves_of_the_nearest_train_as_one_order_each() -> None:
    """By their decision's inverse chance they would count twice: both get their labels."""
    scores, release = scored()
    drawn = [result for result in decided(scores, explored=NEAR, release=release) if result.otherwise]
    join, weights = join_of(FRAUD), []
    for number, result in enumerate(drawn[:100]):
        said: dict[str, Any] = {
            "decision": result.decision,
            "propensity": result.propensity,
            "otherwise": result.otherwise,
        }
        join.served(labelled(f"o{number}", **said), 0, number)
        if number % 2:
            weights += [one.weight for one in join.label(fraud(f"o{number}"), NOW)]
    weights += [one.weight for one in close(join, 28 * DAY)]
    assert weights == [1.0] * 100


def test_without_the_ranks_of_its_release_or_with_a_policy_nothing_is_drawn_for_review() -> None:
    scores, release = scored(4_000)
    old = {name: value for name, value in release.items() if name != RANKS}
    assert not any(result.otherwise for result in decided(scores, explored=NEAR, release=old))
    own = Policy.parse('name = "own"\n[thresholds]\nreview = 0.3\nblock = 1.0', Lists(), "here")
    assert not any(result.otherwise for result in decided(scores, explored=NEAR, release=release, policy=own))
