"""What would be blocked and is let through for learning: who, how many, and that their inverse chances count all."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.catalog import Catalogue
from streams.tasks import fraud, make_task
from streams.tasks.base import Result, Serving
from streams.tasks.exploration import LEAST, Exploration
from streams.tasks.fraud import LET_THROUGH
from tests.records import order

SHARE = 0.02
EXPLORATION = Exploration(SHARE)
chances = st.floats(0, 1)
ids = st.text(min_size=1, max_size=40)


def decided(scores: list[float], *, block: float = 0.9, prefix: str = "e") -> list[Result]:
    """Results of orders that the model gives these probabilities."""
    task = make_task("fraud")
    events = [order(event_id=f"{prefix}{number}", order_id=f"o{number}") for number in range(len(scores))]
    p = np.clip(np.array(scores), 1e-9, 1 - 1e-9)
    logit = np.log(p / (1 - p)).astype(np.float32)
    rows = np.zeros(len(scores), task.features)
    serving = Serving(Catalogue(), {"a": 1.0, "b": 0.0}, {"review": 0.5, "block": block})
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


def test_the_fallback_lets_nothing_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fraud, "EXPLORED", Exploration(1.0))
    [result] = make_task("fraud").fallback([order()], Serving(Catalogue(), {}, {"mean": 0.99}))
    assert (result.decision, result.propensity) == ("review", 1.0)
