"""Structured pruning: the hidden units and attention heads that matter least are cut out of a model that has learned.
What is left is an ordinary model of smaller sizes: its config says them, its graph has fewer numbers and runs faster.

A unit's importance is the square of what the loss would change by, to first order, without it: the sum of gradient
times weight over all that it feeds, averaged over batches (Molchanov et al. 2019, Importance estimation for neural
network pruning, section 3). For heads that is the gradient of Michel et al. 2019, Are sixteen heads really better than
one?, section 4.1. Each layer keeps as many as the others, the most important ones of its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.blocks import Block
from engines.ctr_head import CtrHead
from engines.fraud_head import Members
from engines.model import HeadraceConfig, HeadraceModel
from finetune.trainer import Loss, TorchTable

PRUNED = ("hidden", "heads")
BATCHES, ROWS = 16, 256  # that importance is averaged over


@dataclass(frozen=True, slots=True)
class Units:
    """Units of one layer. feeds: the weight whose columns they are, `each` of them a unit; rows: what they are rows of.

    size: of the config, which says how many there are. groups: so many parts are ranked apart and keep equally many.
    """

    feeds: str
    rows: tuple[str, ...]
    size: str
    each: int = 1
    groups: int = 1


def units_of(model: HeadraceModel) -> Iterator[Units]:
    """All that can be pruned: of each attention layer heads and hidden units, and the hidden units of the heads."""
    for name, part in model.named_modules():
        if isinstance(part, Block):
            inner = [f"{name}.{row}" for row in ("query.weight", "query.bias", "key_value.weight", "key_value.bias")]
            yield Units(f"{name}.mix.weight", (*inner, f"{name}.distance"), "heads", part.head_width)
            yield Units(f"{name}.contract.weight", (f"{name}.expand.weight", f"{name}.expand.bias"), "hidden")
        elif isinstance(part, Members):
            rows = (f"{name}.hidden.weight", f"{name}.hidden.bias")
            yield Units(f"{name}.weight", rows, "hidden", groups=part.members)
        elif isinstance(part, CtrHead):
            yield Units(f"{name}.mlp.2.weight", (f"{name}.mlp.0.weight", f"{name}.mlp.0.bias"), "hidden")


def importance(model: HeadraceModel, size: int, loss: Loss, table: TorchTable) -> dict[str, Tensor]:
    """By `Units.feeds`, of each unit; from drawn batches of examples 0 to `size`. Nothing of the model changes."""
    rng = np.random.default_rng(0)
    units = list(units_of(model))
    found = {each.feeds: torch.zeros(model.get_parameter(each.feeds).shape[-1] // each.each) for each in units}
    model.train()
    for _ in range(BATCHES):
        model.zero_grad()
        total, weight = loss(model, table, np.sort(rng.choice(size, min(ROWS, size), replace=False)), rng)
        (total / weight.clamp(min=1e-6)).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        for each in units:
            fed = model.get_parameter(each.feeds)
            if fed.grad is not None:
                changes = (fed * fed.grad).detach().reshape(-1, fed.shape[-1]).sum(dim=0)
                found[each.feeds] += changes.view(-1, each.each).sum(dim=1) ** 2
    model.zero_grad()
    model.eval()  # type: ignore[no-untyped-call]  # transformers wraps torch's without types
    return found


def pruned(model: HeadraceModel, sizes: Mapping[str, int], scores: Mapping[str, Tensor]) -> HeadraceModel:
    """A model of these sizes, of PRUNED, with the weights of the units that score best."""
    config: dict[str, Any] = {name: getattr(model.config, name) for name in HeadraceConfig.__annotations__}
    state = model.state_dict()
    for each in units_of(model):
        if each.size not in sizes:
            continue
        score = scores[each.feeds].view(each.groups, -1)
        keep = score.shape[1] * sizes[each.size] // config[each.size]
        best = score.topk(keep, dim=1).indices.sort(dim=1).values
        chosen = (best + torch.arange(each.groups)[:, None] * score.shape[1]).flatten()
        state[each.feeds] = state[each.feeds].index_select(
            -1, places(each, score.numel() * each.each, score.numel(), chosen)
        )
        for row in each.rows:
            state[row] = state[row].index_select(0, places(each, len(state[row]), score.numel(), chosen))
    if "heads" in sizes:
        config["head_width"] = config["head_width"] or config["width"] // config["heads"]
    made = HeadraceModel(HeadraceConfig(**config | dict(sizes)))
    made.load_state_dict(state)
    return made.eval()  # type: ignore[no-untyped-call,no-any-return]  # as above


def places(units: Units, rows: int, count: int, chosen: Tensor) -> Tensor:
    """Which of so many rows belong to the chosen of `count` units: one or `each` a unit, in as many copies as fit."""
    each = 1 if rows == count else units.each
    return torch.arange(rows).view(-1, count, each)[:, chosen].flatten()
