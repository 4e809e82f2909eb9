"""The head of click-through: every ad of the slate at once, as a query to the user's history and by what they share.
An ad has a bias of its own beside what its text says, and a position one that knows nothing of the ad.

Shape suffixes: B batch, L history length, C slate, D width, S scalars, X facts.
"""

from typing import Any

import torch
from torch import Tensor, nn

from engines.affinity import Affinity
from engines.blocks import Block
from engines.conversion_head import IDS, ConversionHead
from engines.interests import SIMILAR, Inputs, Interests, shares
from engines.signatures import CONVERSION, PAGE_SCALARS

PLACES = 32
"""Positions that have a bias of their own; those below the last share its."""


class CtrHead(nn.Module):
    """The logit is a sum of a deep part (attention, products of vectors) and a plain one (shares, counts, biases)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width = config.width
        self.context = nn.Linear(width, width)
        self.ad = nn.Linear(width, width)
        self.scalar = nn.Linear(config.slate_scalars, width, bias=False)
        self.norm = nn.LayerNorm(4 * width)
        self.mlp = mlp(4 * width, config.hidden)
        self.interests = Interests(config)
        self.page = nn.Embedding(IDS, SIMILAR)
        plain = 2 * self.interests.outputs + 2 + config.slate_scalars + PAGE_SCALARS + SIMILAR
        self.plain = mlp(plain, 64)
        self.line = nn.Linear(plain, 1)
        self.bias = nn.Embedding(IDS, 1)
        self.position = nn.Embedding(PLACES, 1)
        with torch.random.fork_rng(devices=[]):  # all else begins as it does without them
            self.affinity = Affinity() if config.affinities else None
            self.conversion = ConversionHead(config) if config.conversions else None

    def forward(self, read: Block, states_BLD: Tensor, mask_B11L: Tensor, inputs: Inputs) -> dict[str, Tensor]:
        scalars_BCS, slate_BCD, page_BD = (
            inputs[name] for name in ("slate_scalars", "slate_vectors", "context_vectors")
        )
        ads_BCD = self.ad(slate_BCD) + self.scalar(scalars_BCS)
        now_B1D = states_BLD[:, -1:] + self.context(page_BD)[:, None]
        read_BCD = read(ads_BCD + now_B1D, states_BLD, mask_B11L, causal=False)
        like_past_BCD, like_page_BCD = slate_BCD * mean_event(inputs)[:, None], slate_BCD * page_BD[:, None]
        deep_BC = self.mlp(self.norm(torch.cat([read_BCD, ads_BCD, like_past_BCD, like_page_BCD], dim=-1)))
        plain_BCX = self.facts(inputs)
        line_BC = (plain_BCX * self.line.weight[0]).sum(dim=-1) + self.line.bias
        logit_BC = deep_BC + self.plain(plain_BCX) + line_BC + self.biases(inputs["slate_ids"])
        if self.affinity is not None:
            logit_BC = logit_BC + self.affinity(self.interests.of_categories(inputs), inputs)
        said = {"logit": logit_BC}
        return said if self.conversion is None else {**said, CONVERSION: self.conversion(inputs)}

    def begin(self, fading: float, passive: tuple[int, ...]) -> None:
        """Both networks add nothing yet, and shares are as `Interests.begin` says: what is left is a linear model."""
        for network in (self.mlp, self.plain):
            for value in network[-1].parameters():
                nn.init.zeros_(value)
        if self.affinity is not None:
            nn.init.zeros_(self.affinity.pair.weight)
        self.interests.begin(fading, passive)

    def facts(self, inputs: Inputs) -> Tensor:
        """(B, C, X): shares of the history that are like each ad, and what is known of the page and the ad."""
        known_BCX = shares(self.interests, inputs)
        named_BD = (self.page(inputs["page_ids"]) * inputs["page_values"][..., None]).sum(dim=1)
        page_BX = torch.cat([inputs["page_scalars"], named_BD], dim=-1)
        page_BCX = page_BX[:, None].expand(-1, known_BCX.shape[1], -1)
        return torch.cat([known_BCX, page_BCX], dim=-1)

    def biases(self, ids_BC4: Tensor) -> Tensor:
        """(B, C): the ad's own, and the position's."""
        place_BC = ids_BC4[..., 3].clamp(max=PLACES - 1)
        bias_BC: Tensor = (self.bias(ids_BC4[..., 0]) + self.position(place_BC))[..., 0]
        return bias_BC


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
