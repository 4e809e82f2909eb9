"""A user's own items, vectors by id, and pointwise layers: what the model family promises of each."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engines.export import export
from engines.model import HeadraceConfig, HeadraceModel
from engines.openvino import OpenVinoEngine
from engines.pointwise import Pointwise
from engines.releases import ReleaseStore
from engines.samples import sample
from engines.signatures import SIZES, signature
from engines.tables import ItemTower
from streams.catalog import hashes_of
from tests.engine_releases import SMALL

OWN: dict[str, Any] = {**SMALL, "task": "recommendations", "own_items": 1, "item_buckets": 32}
LENGTH, ROWS = SMALL["history"], 50


@cache
def recommender(**sizes: int) -> HeadraceModel:
    torch.manual_seed(3)
    made: HeadraceModel = HeadraceModel(HeadraceConfig(**{**OWN, **sizes}))
    made.eval()
    return made


def given(rows: int = 6, *, seed: int = 0, full: bool = False) -> dict[str, Tensor]:
    arrays = sample(signature({**SIZES, **OWN}), rows, catalog=ROWS, seed=seed, full=full)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def all_scores(model: HeadraceModel, inputs: dict[str, Tensor]) -> Tensor:
    """(B, N) of every row, the plain way: own items raised by adding to the whole catalogue."""
    rows = len(inputs["history_kinds"])
    last = torch.full((rows,), LENGTH - 1)
    users, raised = model.users_at(torch.arange(rows), last, **inputs)
    assert raised is not None
    scores = users @ inputs["catalog"].T + inputs["catalog_bias"]
    return scores.scatter_add(1, raised.items, raised.by)


@pytest.mark.parametrize("seed", range(5))
def test_the_graph_ranks_as_if_every_row_of_the_catalogue_had_been_raised(seed: int) -> None:
    inputs = given(seed=seed)
    del inputs["withheld"]
    with torch.inference_mode():
        answer = recommender()(**inputs)
        best = torch.topk(all_scores(recommender(), inputs), SMALL["top_k"])
    torch.testing.assert_close(answer["scores"], best.values, atol=1e-5, rtol=1e-4)
    assert all(len(set(row)) == SMALL["top_k"] for row in answer["rows"].tolist())


def test_an_item_of_the_history_is_never_lowered_and_more_of_it_raises_it_more() -> None:
    inputs = given(full=True)
    inputs["history_items"] = torch.arange(1, LENGTH + 1, dtype=torch.int32).repeat(6, 1)
    often = {**inputs, "history_items": inputs["history_items"].clone()}
    often["history_items"][:, 2:5] = 1
    with torch.inference_mode():
        at = (torch.arange(6), torch.full((6,), LENGTH - 1))
        once, thrice = (recommender().users_at(*at, **each)[1] for each in (inputs, often))
    assert once is not None
    assert thrice is not None
    assert (once.by > 0).all()
    assert (thrice.by[:, 4] > once.by[:, 0]).all()
    assert not thrice.by[:, [0, 2, 3]].any()  # an item is raised once, at its last event


def test_a_position_raises_nothing_that_comes_after_it() -> None:
    inputs = given(full=True)
    early = torch.full((6,), 3)
    later = {name: tensor.clone() for name, tensor in inputs.items()}
    later["history_items"][:, 4:] = 7
    later["history_scalars"][:, 4:] += 1
    later["history_vectors"][:, 4:] += 1
    with torch.inference_mode():
        before, after = (recommender().users_at(torch.arange(6), early, **each)[1] for each in (inputs, later))
    assert before is not None
    assert after is not None
    torch.testing.assert_close(before.by[:, :4], after.by[:, :4])
    assert not after.by[:, 4:].any()


def test_the_compiled_graph_raises_the_same_items() -> None:
    inputs = {name: tensor.numpy() for name, tensor in given(8).items()}
    with TemporaryDirectory() as made, TemporaryDirectory() as kept:
        description = export(recommender(), Path(made), calibration={}, settings={})
        release = ReleaseStore(kept).publish("recommendations", Path(made), description)
        engine = OpenVinoEngine(release, precision="f32", buckets=(8,), threads=1)
        found = engine.infer(inputs).outputs
        engine.close()
        check_tower(ItemTower(release))
    with torch.inference_mode():
        expected = recommender()(**given(8))
    np.testing.assert_allclose(found["scores"], expected["scores"].numpy(), atol=1e-3)
    assert (found["rows"] == expected["rows"].numpy()).mean() > 0.99


def check_tower(tower: ItemTower) -> None:
    """The compiled tower gives items that have claimed a vector of their own what torch gives them."""
    draw = np.random.default_rng(0)
    hashes = np.stack([hashes_of(f"item {number}") for number in range(9)])
    recommender().item_tower.claim(torch.from_numpy(hashes[:0]))
    text, kinds = draw.standard_normal((9, SMALL["text_width"])).astype(np.float32), np.zeros(9, np.int32)
    scalars = np.concatenate([draw.standard_normal((9, 2)).astype(np.float32), hashes], axis=1)
    with torch.inference_mode():
        expected = recommender().item_tower(*(torch.from_numpy(each) for each in (text, scalars, kinds)))
    np.testing.assert_allclose(tower(text, scalars, kinds), expected.numpy(), atol=1e-5)


def test_who_has_claimed_no_vector_borrows_none() -> None:
    tower = HeadraceModel(HeadraceConfig(**OWN)).item_tower
    hashes = torch.from_numpy(np.stack([hashes_of(str(number)) for number in range(200)]))
    claimed = tower.claim(hashes[:20], spread=1.0)
    own = tower.own_vectors(hashes)
    assert 15 <= claimed <= 20
    assert (own[:20].abs().sum(dim=1) > 0).sum() == claimed
    assert not own[20:].any()


def test_claiming_again_changes_nothing_and_a_full_table_refuses() -> None:
    tower = HeadraceModel(HeadraceConfig(**OWN)).item_tower
    hashes = torch.from_numpy(np.stack([hashes_of(str(number)) for number in range(200)]))
    claimed = tower.claim(hashes, spread=1.0)
    kept = tower.own.detach().clone()
    assert claimed <= OWN["item_buckets"]
    assert tower.claim(hashes, spread=1.0) == claimed
    assert torch.equal(tower.own, kept)


def test_a_pointwise_layer_reads_at_the_end_what_it_reads_causally_there() -> None:
    torch.manual_seed(0)
    layer = Pointwise(16, 2, length=LENGTH, dropout=0.0)
    torch.nn.init.normal_(layer.distance)
    history, mask = torch.randn(3, LENGTH, 16), torch.zeros(3, 1, 1, LENGTH)
    mask[1, ..., :4] = -1e9
    whole = layer(history, history, mask, causal=True)
    torch.testing.assert_close(layer(history[:, -1:], history, mask, causal=False)[:, 0], whole[:, -1])
    history[:, 5:] += 1
    torch.testing.assert_close(layer(history, history, mask, causal=True)[:, :5], whole[:, :5])


def test_a_shorter_batch_means_the_same_as_one_padded_to_the_full_history() -> None:
    for pointwise in (0, 1):
        model = recommender(pointwise=pointwise)
        inputs = given(full=True)
        cut = 5
        padded = {name: tensor.clone() for name, tensor in inputs.items()}
        for name in ("history_vectors", "history_kinds", "history_scalars", "history_items"):
            padded[name][:, : LENGTH - cut] = 0
        short = {
            name: tensor[:, LENGTH - cut :] if name.startswith("history") else tensor for name, tensor in padded.items()
        }
        with torch.inference_mode():
            torch.testing.assert_close(model.users(**short)[:, -1], model.users(**padded)[:, -1])


def test_an_item_newer_than_the_table_is_raised_nowhere() -> None:
    inputs = given()
    newer = {**inputs, "history_items": inputs["history_items"] + ROWS}
    none = {**inputs, "history_items": torch.zeros_like(inputs["history_items"])}
    with torch.inference_mode():
        assert torch.equal(recommender()(**newer)["rows"], recommender()(**none)["rows"])
