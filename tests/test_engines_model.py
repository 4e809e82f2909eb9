"""The model family: what its architecture promises whatever its weights are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engines.heads import RecommendationHead
from engines.model import HeadraceConfig, HeadraceModel, load_model
from engines.samples import sample
from engines.signatures import SIZES, signature
from schemas.errors import EngineError, ReleaseError
from tests.engine_releases import SMALL, TASKS, model

LENGTH = SMALL["history"]
HISTORY = ("history_vectors", "history_kinds", "history_scalars")


def inputs(task: str, rows: int = 6, *, full: bool = False, seed: int = 0) -> dict[str, Tensor]:
    shape = signature({**SIZES, **SMALL, "task": task})
    return {name: torch.from_numpy(array) for name, array in sample(shape, rows, full=full, seed=seed).items()}


def run(model: HeadraceModel, given: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.inference_mode():
        outputs: dict[str, Tensor] = model(**given)
    return outputs


def prefix(given: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """The first `size` events of full histories, padded on the left as serving does it."""
    cut = dict(given)
    for name in HISTORY:
        cut[name] = torch.zeros_like(given[name])
        cut[name][:, LENGTH - size :] = given[name][:, :size]
    return cut


@pytest.mark.parametrize("task", TASKS)
def test_saving_and_loading_changes_no_bit(task: str, tmp_path: Path) -> None:
    model(task).save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    saved = model(task).state_dict()
    assert saved.keys() == loaded.state_dict().keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in loaded.state_dict().items())
    given = inputs(task)
    for name, tensor in run(loaded, given).items():
        assert torch.equal(tensor, run(model(task), given)[name])


@pytest.mark.parametrize("task", TASKS)
def test_everything_the_model_needs_is_in_its_file(task: str) -> None:
    """Loading leaves a buffer that is not persistent uninitialised."""
    assert {name for name, _ in model(task).named_buffers()} <= set(model(task).state_dict())


def test_what_stands_on_the_padding_changes_nothing() -> None:
    for task in TASKS:
        given = inputs(task, seed=1)
        padding = given["history_kinds"] == 0
        padding[:, -1] = False
        noisy = {name: tensor.clone() for name, tensor in given.items()}
        noisy["history_vectors"][padding] = 7.0
        noisy["history_scalars"][padding] = -3.0
        if "history_ids" in noisy:
            noisy["history_ids"][padding] = given["slate_ids"][:, :1, 1:3].expand_as(noisy["history_ids"])[padding]
        for name, tensor in run(model(task), noisy).items():
            torch.testing.assert_close(tensor, run(model(task), given)[name])


def test_a_state_sees_no_later_event() -> None:
    recommender = model("recommendations")
    given = inputs("recommendations", full=True)
    later = {name: tensor.clone() for name, tensor in given.items()}
    later["history_vectors"][:, 5:] += 1.0
    with torch.inference_mode():
        before, after = recommender.users(**given), recommender.users(**later)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_training_on_every_position_is_training_on_what_is_served() -> None:
    """The user vector at a position equals what serving computes for the history that ends there."""
    recommender, head = model("recommendations"), model("recommendations").head
    assert isinstance(head, RecommendationHead)
    given = inputs("recommendations", full=True)
    del given["withheld"]
    with torch.inference_mode():
        users_BLD = recommender.users(**given)
    for size in range(1, LENGTH + 1):
        served = run(recommender, prefix(given, size))
        scores = head.scores(users_BLD[:, size - 1], given["catalog"], given["catalog_bias"])
        best = torch.topk(scores, SMALL["top_k"])
        torch.testing.assert_close(served["scores"], best.values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_a_user_with_no_history_gets_a_finite_score(task: str) -> None:
    empty = prefix(inputs(task, full=True), 0)
    assert all(tensor.isfinite().all() for tensor in run(model(task), empty).values())


def test_what_is_withheld_is_taken_out_before_the_ranking_is_cut() -> None:
    """As many are ranked as before, of the others, with the same scores bit by bit."""
    given, recommender = inputs("recommendations"), model("recommendations")
    best = run(recommender, {name: each for name, each in given.items() if name != "withheld"})
    given["withheld"] = torch.zeros_like(given["withheld"])
    whole = run(recommender, given)
    assert torch.equal(whole["scores"][:, : SMALL["top_k"]], best["scores"])
    assert torch.equal(whole["rows"][:, : SMALL["top_k"]], best["rows"])
    given["withheld"] = best["rows"][:, :LENGTH].flip(-1).to(torch.int32)
    without = run(recommender, given)
    assert not (without["rows"][:, :, None] == given["withheld"][:, None, :]).any()
    assert torch.equal(without["scores"][:, : whole["scores"].shape[1] - LENGTH], whole["scores"][:, LENGTH:])
    given["catalog_bias"][LENGTH + 4 :] = -1e9  # fewer are left than are ranked
    given["withheld"] = torch.arange(1, LENGTH + 1, dtype=torch.int32).repeat(len(given["withheld"]), 1)
    few = run(recommender, given)
    assert (few["scores"] > -1e8).sum(dim=1).tolist() == [3] * len(few["scores"])
    assert sorted(few["rows"][0, :3].tolist()) == [LENGTH + 1, LENGTH + 2, LENGTH + 3]


def test_recommendations_are_the_best_rows_in_order_and_none_that_may_not_be_shown() -> None:
    given = inputs("recommendations")
    given["catalog_bias"][:40] = -1e9
    outputs = run(model("recommendations"), given)
    assert (outputs["rows"] >= 40).all()
    assert (outputs["scores"].diff(dim=1) <= 0).all()


def losses(task: str) -> tuple[float, float]:
    """Mean loss of a few rows before and after 30 steps."""
    torch.manual_seed(0)
    learner = HeadraceModel(HeadraceConfig(task=task, **SMALL))
    given, draw = inputs(task, 16, full=True), np.random.default_rng(0)
    labels = torch.from_numpy(draw.integers(0, 2, (16, SIZES["slate"])).astype(np.float32))
    goals = torch.from_numpy(draw.integers(1, 64, 16))

    def loss() -> Tensor:
        if isinstance(learner.head, RecommendationHead):
            users = learner.users(**given)[:, -1]
            return F.cross_entropy(learner.head.scores(users, given["catalog"], given["catalog_bias"]), goals)
        logit = learner(**given)["logit"]
        return F.binary_cross_entropy_with_logits(logit, labels if task == "ctr" else labels[:, 0])

    optimiser = torch.optim.Adam(learner.parameters(), lr=0.01)
    before = loss().item()
    for _ in range(30):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    return before, loss().item()


@pytest.mark.parametrize("task", TASKS)
def test_each_head_learns(task: str) -> None:
    before, after = losses(task)
    assert after < 0.7 * before


def test_the_item_tower_learns_through_the_history() -> None:
    learner = HeadraceModel(HeadraceConfig(task="recommendations", **SMALL))
    text, scalars = F.normalize(torch.randn(10, SMALL["text_width"]), dim=-1), torch.rand(10, 2)
    table = learner.item_tower(text, scalars, torch.zeros(10, dtype=torch.int64))
    given = inputs("recommendations", full=True)
    given["history_vectors"] = table[torch.randint(0, 10, given["history_kinds"].shape)]
    learner.users(**given).sum().backward()
    grad = learner.item_tower.text.weight.grad
    assert grad is not None
    assert grad.abs().sum() > 0


def test_defaults_without_torch_are_the_models_own() -> None:
    config = HeadraceConfig()
    assert {name: getattr(config, name) for name in SIZES} == SIZES


def test_only_a_recommender_has_user_vectors() -> None:
    with pytest.raises(EngineError, match="no user vectors"):
        model("ctr").users(**inputs("ctr"))


@pytest.mark.parametrize("wrong", [{"task": "weather"}, {"layers": 0}, {"width": 10, "heads": 3}])
def test_sizes_that_make_no_model_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(EngineError):
        HeadraceModel(HeadraceConfig(**wrong))


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path: Path) -> None:
    model("fraud").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"task": "fraud"', '"task": "ctr"'))
    with pytest.raises(ReleaseError, match="differ in"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ReleaseError, match="cannot be loaded"):
        load_model(tmp_path)
