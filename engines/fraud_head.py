"""The head of fraud: small networks over the order's columns and the user's history, beside boosted trees.
Networks learn what comes with events and is smooth, trees what columns do together; the share of each is chosen on
later events. Both stand in one graph, and a fine-tune learns in the networks.

Shape suffixes: B batch, L history length, D width, C columns, M columns with flags, E members, H hidden.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.blocks import Block
from engines.columns import Columns, Inputs, Scaling, columns_of
from engines.trees import Trees


class FraudHead(nn.Module):
    """The order, as a query to the user's history."""

    share: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, columns = config.width, columns_of(config)
        self.plain = columns
        self.columns = Columns(config)
        self.scaling = Scaling(columns, config.knots)
        self.field = nn.Linear(columns * (config.knots + 1) + config.flags, width)
        self.basket = nn.Linear(width, width)
        self.norm = nn.LayerNorm(4 * width)
        self.members = Members(4 * width, config.hidden // 2, config.members)
        self.trees = Trees(config.trees, config.leaves, config.depth) if config.trees else None
        self.register_buffer("share", torch.zeros(1))

    def forward(self, read: Block, states_BLD: Tensor, mask_B11L: Tensor, inputs: Inputs) -> dict[str, Tensor]:
        """`columns` of the inputs, where given, stand for those that are made here. `members` (B, E): in training."""
        columns_BC, *flags = self.given(inputs) if "columns" in inputs else self.columns(inputs)
        scaled = [self.scaling(columns_BC), *(each.to(states_BLD.dtype) for each in flags)]
        fields_BD = F.gelu(self.field(torch.cat(scaled, dim=-1)))
        basket_BD = self.basket(inputs["basket_vectors"])
        order_B1D = states_BLD[:, -1:] + (fields_BD + basket_BD)[:, None]
        read_BD = read(order_B1D, states_BLD, mask_B11L, causal=False)[:, 0]
        like_past_BD = inputs["basket_vectors"] * mean_event(inputs)
        each_BE = self.members(self.norm(torch.cat([read_BD, fields_BD, basket_BD, like_past_BD], dim=-1)))
        logit_B = each_BE.mean(dim=-1)
        if self.trees is not None:
            trees_B = self.trees(torch.cat([columns_BC, *flags], dim=-1))
            logit_B = (1 - self.share) * logit_B + self.share * trees_B
        return {"logit": logit_B, "members": each_BE} if self.training else {"logit": logit_B}

    def given(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Columns and flags that were made before."""
        columns_BM = inputs["columns"]
        if columns_BM.shape[1] == self.plain:
            return (columns_BM,)
        return columns_BM[:, : self.plain], columns_BM[:, self.plain :]


def mean_event(inputs: Inputs) -> Tensor:
    """(B, D) mean item vector of a user's events before the order; zero where there are none."""
    real_BL1 = (inputs["history_kinds"][:, :-1] > 0).to(inputs["history_vectors"].dtype)[..., None]
    return (inputs["history_vectors"][:, :-1] * real_BL1).sum(dim=1) / real_BL1.sum(dim=1).clamp(min=1)


class Members(nn.Module):
    """Several networks of a hidden layer each, on the same input. Each learns by its own loss, so that they differ; the
    score is their mean (Lakshminarayanan et al. 2017, and Gorishniy et al. 2024, TabM, on why it is cheap here).
    """

    def __init__(self, width: int, hidden: int, members: int) -> None:
        super().__init__()
        self.members = members
        self.hidden = nn.Linear(width, members * hidden)
        self.weight = nn.Parameter(torch.randn(members * hidden) * hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(members))

    def forward(self, x_BD: Tensor) -> Tensor:
        """(B, E) in training, else their mean as (B, 1): a product of elements, whose sum engines keep in float32."""
        parts_BH = F.gelu(self.hidden(x_BD)) * self.weight
        if self.training:
            return parts_BH.view(len(x_BD), self.members, -1).sum(dim=-1) + self.bias
        mean_B1: Tensor = (parts_BH.sum(dim=-1, keepdim=True) + self.bias.sum()) / self.members
        return mean_B1
