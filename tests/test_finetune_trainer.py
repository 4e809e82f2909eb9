"""Training: equal seeds give equal weights, losses read the right targets, and bad data is refused in words."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engines.model import HeadraceModel
from finetune.first import new_model
from finetune.losses import POSITIONS, following_items, next_item_loss, positions
from finetune.problems import directions, popularity
from finetune.trainer import Plan, TorchTable, batches, fit
from schemas.errors import TrainingError
from streams.catalog import Catalogue
from streams.features import HISTORY_LENGTH
from streams.tasks import make_task

ITEMS = 30
TASK = make_task("recommendations")
QUICK = Plan(steps=6, batch=8, rate=1e-2)


@pytest.fixture
def catalog() -> Catalogue:
    catalog, rng = Catalogue(), np.random.default_rng(0)
    for row in range(1, ITEMS + 1):
        vector = rng.standard_normal(384).astype("<f4")
        catalog.apply_item({"item_id": f"i{row}", "price": b"\x01", "available": True})
        catalog.apply_vector({"kind": "item", "id": f"i{row}", "row": row, "vector": (vector / 20).tobytes()})
    return catalog


def looks(*items: int, now: int):
    """One row: the items of its history, oldest first, and the one being looked at."""
    rows = np.zeros(1, TASK.features)
    rows["item"][0, HISTORY_LENGTH - len(items) :] = items
    rows["kind"][0, HISTORY_LENGTH - len(items) :] = 1
    rows["now_item"], rows["now_kind"] = now, 1
    return rows


def walks(count: int):
    """Rows of users who look at one item after the other, and what each looks at next."""
    starts = np.random.default_rng(1).integers(1, ITEMS - 6, count)
    rows = np.concatenate([looks(*range(s, s + 4), now=s + 4) for s in starts.tolist()])
    return rows, (starts + 5).astype(np.int32)


def trained(catalog: Catalogue, plan: Plan) -> tuple[float, HeadraceModel]:
    rows, target = walks(40)
    model = new_model("recommendations", None)
    loss = next_item_loss(TASK, rows, target, catalog.candidate_bias())
    return fit(model, len(rows), loss, TorchTable(model, catalog), plan), model


def test_equal_data_and_seed_give_equal_weights(catalog):
    plan = replace(QUICK, dropout=0.2)
    (first, one), (second, other) = trained(catalog, plan), trained(catalog, plan)
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_training_lowers_the_loss(catalog):
    short, _ = trained(catalog, replace(QUICK, steps=1))
    long, _ = trained(catalog, replace(QUICK, steps=60))
    assert long < short - 1


def test_a_frozen_part_stays_and_the_rest_learns(catalog):
    before = {name: value.clone() for name, value in new_model("recommendations", None).state_dict().items()}
    _, model = trained(catalog, replace(QUICK, frozen=("item_tower", "history")))
    changed = {
        name.partition(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"read", "head"}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_progress_is_told_of_every_step(catalog):
    told = []
    rows, target = walks(10)
    model = new_model("recommendations", None)
    loss = next_item_loss(TASK, rows, target, catalog.candidate_bias())
    fit(model, 10, loss, TorchTable(model, catalog), QUICK, lambda done, total, value: told.append((done, total)))
    assert told == [(step, 6) for step in range(1, 7)]


def test_no_examples_are_refused(catalog):
    model = new_model("fraud", None)
    with pytest.raises(TrainingError, match="no examples to train fraud on"):
        fit(model, 0, lambda *_: (torch.zeros(()), torch.ones(())), TorchTable(model, catalog), QUICK)


def test_a_loss_that_is_no_number_ends_the_training(catalog):
    model = new_model("fraud", None)

    def loss(model, *_):
        return next(model.parameters()).sum() * float("nan"), torch.ones(())

    with pytest.raises(TrainingError, match="loss of fraud is nan at step 1"):
        fit(model, 4, loss, TorchTable(model, catalog), QUICK)


def test_every_pass_sees_each_example_once():
    seen = np.concatenate(list(batches(10, Plan(steps=5, batch=4), np.random.default_rng(0))))
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))


def test_a_frozen_table_gives_the_vectors_of_a_learning_one(catalog):
    table = TorchTable(new_model("recommendations", None), catalog)
    rows = np.array([[3, 0, 3], [7, 1, 0]], np.int32)
    learning, mean = table.look_up(rows), table.look_up_mean(rows)
    table.freeze()
    assert torch.allclose(learning, table.look_up(rows), atol=1e-6)
    assert not learning[0, 1].any()
    assert torch.allclose(mean[0], learning[0, 0], atol=1e-6)


def test_each_token_is_followed_by_the_next_other_item():
    wanted = following_items(looks(3, 3, 5, 0, now=5), np.array([8], np.int32))
    assert wanted[0, -5:].tolist() == [5, 5, 8, 5, 8]
    assert not wanted[0, :-5].any()


def test_without_a_later_item_the_last_tokens_have_no_target():
    assert following_items(looks(4, 6, now=6), np.zeros(1, np.int32))[0, -3:].tolist() == [6, 0, 0]


def test_positions_are_usable_ones_and_the_last_is_among_them():
    usable = np.zeros((3, 64), np.bool_)
    usable[0], usable[1, 10:13] = True, True
    row, column = positions(usable, np.random.default_rng(0).random(usable.shape))
    assert (row == 0).sum() == POSITIONS
    assert 63 in column[row == 0]
    assert sorted(column[row == 1]) == [10, 11, 12]
    assert 2 not in row


def test_popularity_is_the_log_of_looks_with_the_median_item_at_zero():
    prior = popularity(np.array([1, 1, 1, 2, 3]), 4)
    assert prior[1:] == pytest.approx([np.log(4) - np.log(2), 0, 0])


def test_the_texts_principal_directions_keep_what_is_alike_together():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 384))
    text = np.repeat(centres, 20, axis=0) + 0.1 * rng.standard_normal((60, 384))
    text = (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32)
    weight, bias = directions(text, 64)
    vectors = text * 384**0.5 @ weight.T + bias
    assert np.linalg.norm(vectors, axis=1).mean() == pytest.approx(8, rel=0.01)
    near = vectors @ vectors[0]
    assert near[:20].min() > near[20:].max()
