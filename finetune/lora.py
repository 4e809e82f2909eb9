"""Low-rank adapters: a linear layer learns W + B A, with few numbers, and is merged to a plain W afterwards.
Hu et al. 2021, LoRA. On torch's own parametrizations, so that nothing of the model knows of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """Adds B A to a weight (out, in). B begins at zero: nothing changes until something is learned."""

    def __init__(self, out: int, into: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, into))
        self.up = nn.Parameter(torch.zeros(out, rank))
        nn.init.normal_(self.down, std=into**-0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def adapt(model: nn.Module, parts: tuple[str, ...], rank: int, kept: Sequence[nn.Module] = ()) -> list[nn.Module]:
    """Puts adapters on the linear layers of these parts; what is too small for one learns itself, biases by id too.

    All else is frozen, and what is in `kept`. Returns what `merge` takes.
    """
    model.requires_grad_(False)
    adapted: list[nn.Module] = []
    left = {id(module) for each in kept for module in each.modules()}
    for part in parts:
        for module in [each for each in model.get_submodule(part).modules() if id(each) not in left]:
            if isinstance(module, nn.Embedding) and module.embedding_dim <= rank:
                module.weight.requires_grad_(True)
            if not isinstance(module, nn.Linear):
                continue
            if module.bias is not None:
                module.bias.requires_grad_(True)
            out, into = module.weight.shape
            if min(out, into) <= rank:
                module.weight.requires_grad_(True)
                continue
            parametrize.register_parametrization(module, "weight", LowRank(out, into, rank))
            adapted.append(module)
    return adapted


def merge(adapted: list[nn.Module]) -> None:
    """The layers are plain again, and compute the same."""
    for module in adapted:
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
