"""One head per task: its queries to the history, and its outputs. All share the read-out block.

Shape suffixes: B batch, L history length, C slate, D width, N catalogue rows, K top-K, M rows ranked again, F
fields, S scalars.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.blocks import Block
from engines.signatures import SPARE

CLIP = 8.0  # standard deviations: beyond, a field is an outlier and counts as this
Inputs = Mapping[str, Tensor]


class Head(nn.Module, ABC):
    @abstractmethod
    def forward(self, read: Block, states_BLD: Tensor, mask_B11L: Tensor, inputs: Inputs) -> dict[str, Tensor]:
        """Outputs by name, as the task's signature has them."""


class FraudHead(Head):
    """The order, as a query to the user's history. Fields are standardised inside; NaN is "not known"."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, fields = config.width, config.fields
        self.register_buffer("mean", torch.zeros(fields))
        self.register_buffer("scale", torch.ones(fields))
        self.field = nn.Linear(2 * fields, width)
        self.basket = nn.Linear(width, width)
        self.norm = nn.LayerNorm(3 * width)
        self.mlp = mlp(3 * width, config.hidden)

    def forward(self, read: Block, states_BLD: Tensor, mask_B11L: Tensor, inputs: Inputs) -> dict[str, Tensor]:
        fields_BD = F.gelu(self.field(self.standardise(inputs["fields"])))
        basket_BD = self.basket(inputs["basket_vectors"])
        order_B1D = states_BLD[:, -1:] + (fields_BD + basket_BD)[:, None]
        read_BD = read(order_B1D, states_BLD, mask_B11L, causal=False)[:, 0]
        return {"logit": self.mlp(self.norm(torch.cat([read_BD, fields_BD, basket_BD], dim=-1)))}

    def standardise(self, fields_BF: Tensor) -> Tensor:
        """(B, 2F): standardised values, 0 where missing, and flags of what is missing."""
        missing_BF = torch.isnan(fields_BF)
        scaled_BF = ((fields_BF - self.mean) / self.scale).clamp(-CLIP, CLIP)
        return torch.cat([torch.where(missing_BF, 0.0, scaled_BF), missing_BF.to(fields_BF.dtype)], dim=-1)

    def fit_scaling(self, fields_NF: Tensor) -> None:
        """Sets mean and scale from the training rows (NaN left out); a constant field keeps scale 1."""
        known_NF = ~torch.isnan(fields_NF)
        count_F = known_NF.sum(0).clamp(min=1)
        mean_F = torch.where(known_NF, fields_NF, 0.0).sum(0) / count_F
        deviation_NF = torch.where(known_NF, fields_NF - mean_F, 0.0)
        scale_F = (deviation_NF.square().sum(0) / count_F).sqrt()
        self.mean.copy_(mean_F)
        self.scale.copy_(torch.where(scale_F < 1e-6, 1.0, scale_F))


class RecommendationHead(Head):
    """The user's state after the last event, compared with every row of the catalogue.

    In bfloat16 the product over the catalogue comes out rounded to 8 bits, which swaps neighbours. So it only
    picks a few more rows than are wanted, and these are scored again element by element, which engines keep
    in float32.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.top_k = config.top_k
        self.norm = nn.LayerNorm(config.width)
        self.user = nn.Linear(config.width, config.width)

    def forward(self, read: Block, states_BLD: Tensor, mask_B11L: Tensor, inputs: Inputs) -> dict[str, Tensor]:
        catalog_ND, bias_N = inputs["catalog"], inputs["catalog_bias"]
        last_BD = read(states_BLD[:, -1:], states_BLD, mask_B11L, causal=False)[:, 0]
        user_BD = self.vectors(last_BD)
        _, near_BM = torch.topk(self.scores(user_BD, catalog_ND, bias_N), self.top_k + SPARE, dim=-1)
        exact_BM = (catalog_ND[near_BM] * user_BD[:, None]).sum(dim=-1) + bias_N[near_BM]
        scores_BK, best_BK = torch.topk(exact_BM, self.top_k, dim=-1)
        return {"rows": near_BM.gather(1, best_BK), "scores": scores_BK}

    def vectors(self, states: Tensor) -> Tensor:
        """User vectors (..., D) of read-out states, scaled so that a score is about 1 at the start."""
        users: Tensor = self.user(self.norm(states)) * self.user.in_features**-0.5
        return users

    def scores(self, users: Tensor, catalog_ND: Tensor, bias_N: Tensor) -> Tensor:
        """(..., N): what softmax over the whole catalogue is trained on."""
        return users @ catalog_ND.T + bias_N


class CtrHead(Head):
    """Every ad of the slate, as a query to the user's history; its position adds a bias of its own.

    How alike an ad is to what the user looked at, and to the page, is an input element by element: attention alone
    takes far longer to learn to compare.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        width = config.width
        self.context = nn.Linear(width, width)
        self.ad = nn.Linear(width, width)
        self.scalar = nn.Linear(config.slate_scalars, width, bias=False)
        self.norm = nn.LayerNorm(4 * width)
        self.mlp = mlp(4 * width, config.hidden)
        self.position = mlp(1, 16)

    def forward(self, read: Block, states_BLD: Tensor, mask_B11L: Tensor, inputs: Inputs) -> dict[str, Tensor]:
        scalars_BCS, slate_BCD, page_BD = (
            inputs[name] for name in ("slate_scalars", "slate_vectors", "context_vectors")
        )
        ads_BCD = self.ad(slate_BCD) + self.scalar(scalars_BCS)
        now_B1D = states_BLD[:, -1:] + self.context(page_BD)[:, None]
        read_BCD = read(ads_BCD + now_B1D, states_BLD, mask_B11L, causal=False)
        like_past_BCD, like_page_BCD = slate_BCD * mean_event(inputs)[:, None], slate_BCD * page_BD[:, None]
        logit_BC = self.mlp(self.norm(torch.cat([read_BCD, ads_BCD, like_past_BCD, like_page_BCD], dim=-1)))
        return {"logit": logit_BC + self.position(scalars_BCS[..., :1])}


def mean_event(inputs: Inputs) -> Tensor:
    """(B, D) mean item vector of a user's events; zero where there are none."""
    real_BL1 = (inputs["history_kinds"] > 0).to(inputs["history_vectors"].dtype)[..., None]
    return (inputs["history_vectors"] * real_BL1).sum(dim=1) / real_BL1.sum(dim=1).clamp(min=1)


class Logit(nn.Linear):
    """A linear layer to one number, as a product and a sum: engines then keep its result in float32.

    As a matrix product in bfloat16 a logit of 7 would come out in steps of 0.03.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 1)

    def forward(self, input: Tensor) -> Tensor:
        """(..., width) to (...)."""
        return (input * self.weight[0]).sum(dim=-1) + self.bias


def mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), Logit(hidden))


HEADS: dict[str, type[Head]] = {"fraud": FraudHead, "recommendations": RecommendationHead, "ctr": CtrHead}
