"""The text encoder's fine-tune: what is bought together comes near, the rest of the way is the old encoder's, and its
vectors never mix with those of before.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.encoder import TextEncoder
from engines.encoder_export import export_encoder, load
from finetune.curves import Curves
from finetune.texts import FAR, LIFT, TextCourse, Together, contrastive, encoded, groups_of, tokens_of, tune_encoder
from schemas.errors import SettingsError, TrainingError
from tests.small_encoder import WORDS, small_encoder
from tests.test_finetune_curves import scalars

MINUTE = 60_000
TEXTS = [f"{first} {second}" for first in WORDS[:6] for second in WORDS[6:8]]  # of each first word there are two
COURSE = TextCourse(steps=40, pairs=8, rate=5e-3, rank=4, autocast=False)


def bought_by_first_word(count: int = 60) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [np.array([2 * word, 2 * word + 1]) for word in draw.integers(0, 6, count).tolist()]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, torch_as_it_was: None) -> Path:
    torch.set_num_threads(1)
    return small_encoder(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def tuned(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "source"
    tune_encoder(source, TEXTS, Together(bought_by_first_word(), len(TEXTS)), out, COURSE)
    return out


def vectors(source: Path) -> np.ndarray:
    with torch.inference_mode():
        return encoded(load(source), tokens_of(source, TEXTS)).numpy()


# -- what is together


def order(*items: str, user: str = "u", time: int = 0) -> tuple[str, dict[str, Any]]:
    return "orders", {"user_id": user, "event_time": time, "items": [{"item_id": item} for item in items]}


def click(item: str | None, *, user: str = "u", minute: int = 0) -> tuple[str, dict[str, Any]]:
    return "clicks", {"user_id": user, "event_time": minute * MINUTE, "item_id": item}


def test_orders_and_clicks_within_half_an_hour_are_groups():
    number = {"a": 0, "b": 1, "c": 2}
    stream = [
        order("a", "strange", "c"), click("a", minute=10), click("b", minute=40), click("b", user="v", minute=41),
        click(None, minute=42), click("c", minute=80), ("labels", {"name": "fraud"}),
    ]  # fmt: skip
    found = [group.tolist() for group in groups_of(stream, number)]
    assert sorted(found) == sorted([[0, 2], [0, 1], [1], [2]])


def test_pairs_are_of_one_group_and_of_two_items():
    together = Together([np.array([0, 1, 1]), np.array([2, 3]), np.array([4])], 5)
    pairs = together.pairs(100, np.random.default_rng(0))
    assert {tuple(sorted(pair)) for pair in pairs.tolist()} == {(0, 1), (2, 3)}


def test_near_is_what_is_together_more_often_than_by_chance():
    """0 is in every order: with it, nothing is together more often than it sells."""
    groups = [np.array([0, 1, 2])] * 5 + [np.array([0, 3])] * 15
    near = Together(groups, 4).near(np.arange(4))
    assert (near == near.T).all()
    assert near[1, 2], f"together 5 times, by chance 1.25: a lift of 4 is above {LIFT}"
    assert near.sum() == 2


def test_without_two_items_together_there_is_nothing_to_learn():
    with pytest.raises(TrainingError, match="no two items"):
        Together([np.array([1]), np.array([2, 2])], 3)


# -- the loss


def test_the_loss_is_infonce_where_each_item_has_one_positive():
    draw = torch.Generator().manual_seed(0)
    given = torch.nn.functional.normalize(torch.randn(6, 5, generator=draw), dim=-1)
    pair = torch.tensor([1, 0, 3, 2, 5, 4])
    together = torch.zeros(6, 6, dtype=torch.bool)
    together[torch.arange(6), pair] = True
    score = (given @ given.T / 0.1).masked_fill(torch.eye(6, dtype=torch.bool), FAR)
    expected = torch.nn.functional.cross_entropy(score, pair)
    assert contrastive(given, together, 0.1).item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_is_also_together_is_not_pushed_away():
    given = torch.eye(3)[[0, 0, 1, 2]].requires_grad_()
    together = torch.zeros(4, 4, dtype=torch.bool)
    together[0, 1] = together[1, 0] = True
    (pushed,) = torch.autograd.grad(contrastive(given, together, 0.5), given)
    together[0, 2] = together[2, 0] = True
    (pulled,) = torch.autograd.grad(contrastive(given, together, 0.5), given)
    assert pushed[0, 1] > 0 > pulled[0, 1], "a step against the gradient moves item 0 from, then to, item 2"


def test_items_without_a_positive_are_negatives_only():
    given = torch.nn.functional.normalize(torch.ones(3, 4), dim=-1)
    assert contrastive(given, torch.zeros(3, 3, dtype=torch.bool), 0.1).item() == 0


# -- the encoder


def test_what_is_bought_together_comes_near(source, tuned):
    def own_rank(found: np.ndarray) -> float:
        score = found @ found.T
        np.fill_diagonal(score, -2)
        return float(np.mean([score[item].argmax() == item ^ 1 for item in range(len(TEXTS))]))

    assert own_rank(vectors(tuned)) == 1.0
    assert own_rank(vectors(source)) < 1.0


def test_vectors_have_length_one_and_what_was_not_adapted_is_as_it_was(source, tuned):
    assert np.linalg.norm(vectors(tuned), axis=1) == pytest.approx(1.0, abs=1e-5)
    before, after = load(source).state_dict(), load(tuned).state_dict()
    assert before.keys() == after.keys(), "plain weights: no adapter is left"
    changed = {name for name in before if "pooler" not in name and not torch.equal(before[name], after[name])}
    assert changed
    assert all(".layer." in name and "LayerNorm" not in name for name in changed)


def test_equal_seeds_give_equal_encoders_and_another_seed_another(source, tuned, tmp_path):
    together = Together(bought_by_first_word(), len(TEXTS))
    short = replace(COURSE, steps=3)
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        tune_encoder(source, TEXTS, together, tmp_path / name, replace(short, seed=seed))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "three")]
    assert weights[0] == weights[1] != weights[2]


def test_the_exported_one_is_of_another_version_and_computes_what_torch_does(source, tuned, tmp_path):
    old, new = (TextEncoder(export_encoder(each, tmp_path), precision="f32") for each in (source, tuned))
    assert old.version != new.version
    assert new.encode(TEXTS) == pytest.approx(vectors(tuned), abs=1e-4)
    assert (new.encode(TEXTS) * old.encode(TEXTS)).sum(axis=1).min() < 0.99


def test_its_curves_are_drawn(source, tmp_path):
    losses = []
    tune_encoder(
        source, TEXTS, Together(bought_by_first_word(), len(TEXTS)), tmp_path / "out", replace(COURSE, steps=3),
        lambda step, steps, loss: losses.append(loss), Curves(tmp_path / "curves"),
    )  # fmt: skip
    assert [value for _, value in scalars(tmp_path / "curves")["training/loss"]] == pytest.approx(losses)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"pairs": 1}, {"rate": 2.0}, {"rank": 0}, {"temperature": 0.0}])
def test_a_course_that_cannot_be_is_refused_by_name(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        TextCourse(**wrong)


def test_a_loss_that_is_no_number_ends_it_and_leaves_nothing(source, tmp_path):
    course = replace(COURSE, steps=30, rate=0.99, temperature=1e-39)
    with pytest.raises(TrainingError, match="the loss of the text encoder is"):
        tune_encoder(source, TEXTS, Together(bought_by_first_word(), len(TEXTS)), tmp_path / "out", course)
    assert not (tmp_path / "out").exists()
