"""The poisons of `bench.gate_real` do what they are called, and leave alone what they do not speak of."""

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from bench.gate_real import DAYS, LIKE, POISONS, WORLD, Fields
from bench.learning_story import Story
from streams.tasks import make_task
from streams.tasks.fraud import COLUMN
from tests.finetune_examples import frauds

Records = list[dict[str, Any]]
Poisoned = Callable[[str], Records]


class OfFraud:
    """As much of a story as the poisons ask for."""

    task = make_task("fraud")


@pytest.fixture
def true() -> Records:
    return frauds(2_000, way=1, seed=3)


@pytest.fixture
def poisoned(true: Records) -> Poisoned:
    fields = Fields(cast(Story, OfFraud()))
    return lambda kind: [dict(one) for one in POISONS[kind](true, np.random.default_rng(0), fields)]


@pytest.mark.parametrize("kind", POISONS)
def test_as_many_examples_of_the_same_orders_are_left_and_some_are_others(
    kind: str, true: Records, poisoned: Poisoned
) -> None:
    made = poisoned(kind)
    assert [one["target_id"] for one in made] == [one["target_id"] for one in true]
    changed = {name for one, other in zip(made, true, strict=True) for name in one if one[name] != other[name]}
    assert changed
    assert changed <= {*LIKE, "features", "user_id"}


def test_shuffled_labels_are_the_same_labels_on_other_orders(true: Records, poisoned: Poisoned) -> None:
    made = poisoned("shuffled")
    assert sum(one["label"] for one in made) == sum(one["label"] for one in true)
    assert np.mean([one["label"] != other["label"] for one, other in zip(made, true, strict=True)]) > 0.3


def test_one_half_of_the_orders_is_inverted_and_the_other_is_true(true: Records, poisoned: Poisoned) -> None:
    wrong = np.array([one["label"] != other["label"] for one, other in zip(poisoned("inverted"), true, strict=True)])
    amount = Fields(cast(Story, OfFraud())).of(true)["fields"][:, COLUMN["amount"]]
    assert wrong.mean() == pytest.approx(0.5, abs=0.01)
    assert amount[wrong].max() <= amount[~wrong].min()


def test_an_id_is_repeated_for_a_third_of_the_frauds(true: Records, poisoned: Poisoned) -> None:
    most = Counter(one["label_hash"] for one in poisoned("repeated") if one["label_hash"]).most_common(1)[0][1]
    assert most == sum(one["label"] > 0.5 for one in true) // 3


def test_a_burst_is_within_an_hour_and_of_one_source(true: Records, poisoned: Poisoned) -> None:
    new = [one for one, other in zip(poisoned("burst"), true, strict=True) if one["label"] != other["label"]]
    assert len(new) > 100
    assert {one["source"] for one in new} == {"chargeback"}
    assert len({one["observed_at"] // 3_600_000 for one in new}) == 1


def test_one_user_has_two_hundred_labels(poisoned: Poisoned) -> None:
    assert Counter(one["user_id"] for one in poisoned("one_user")).most_common(1) == [("mallory", 200)]


def test_amounts_are_a_hundred_times_what_they_were(true: Records, poisoned: Poisoned) -> None:
    fields = Fields(cast(Story, OfFraud()))
    before, after = (fields.of(records)["fields"] for records in (true, poisoned("shifted")))
    np.testing.assert_allclose(after[:, COLUMN["amount"]] - before[:, COLUMN["amount"]], np.log(100), rtol=1e-4)


def test_the_world_ends_with_the_last_increment_and_nothing_drifts_in_it() -> None:
    assert WORLD.end == DAYS[-1] < WORLD.drift
    assert len(DAYS) == 4
