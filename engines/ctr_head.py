"""The head of click-through: every ad of the slate at once, as a query to the user's history and by what they share.
An ad has a bias of its own beside what its text says, and a position one that knows nothing of the ad.

Shape suffixes: B batch, L history length, C slate, D width, H interests, S scalars, P named values of the page.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.blocks import MASKED, Block
from engines.signatures import PAGE_SCALARS

Inputs = Mapping[str, Tensor]
IDS = 4096
"""Buckets of ads and of the page's named values; two ads share one only where their rows are this far apart."""
PLACES = 32
"""Positions that have a bias of their own; those below the last share its."""
LIKE = 4
"""Learned ways in which an ad and an event can be alike, beside the same item and the same category."""
SIMILAR = 16  # width in which these compare
LEAST = 1e-4


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
        return {"logit": deep_BC + self.plain(plain_BCX) + line_BC + self.biases(inputs["slate_ids"])}

    def begin(self, fading: float, passive: tuple[int, ...]) -> None:
        """Both networks add nothing yet, and shares are as `Interests.begin` says: what is left is a linear model."""
        for network in (self.mlp, self.plain):
            for value in network[-1].parameters():
                nn.init.zeros_(value)
        self.interests.begin(fading, passive)

    def facts(self, inputs: Inputs) -> Tensor:
        """(B, C, X): shares of the history that are like each ad, and what is known of the page and the ad."""
        share_BCH = self.interests(inputs)
        scalars_BCS, ids_BC4 = inputs["slate_scalars"], inputs["slate_ids"]
        named_BD = (self.page(inputs["page_ids"]) * inputs["page_values"][..., None]).sum(dim=1)
        page_BX = torch.cat([inputs["page_scalars"], named_BD], dim=-1)
        page_BCX = page_BX[:, None].expand(-1, scalars_BCS.shape[1], -1)
        here_B2 = inputs["history_ids"][:, -1]  # the page's own item and category
        same_BC2 = ((ids_BC4[..., 1:3] == here_B2[:, None]) & (ids_BC4[..., 1:3] > 0)).to(share_BCH.dtype)
        return torch.cat([share_BCH, torch.sqrt(share_BCH + LEAST), same_BC2, scalars_BCS, page_BCX], dim=-1)

    def biases(self, ids_BC4: Tensor) -> Tensor:
        """(B, C): the ad's own, and the position's."""
        place_BC = ids_BC4[..., 3].clamp(max=PLACES - 1)
        bias_BC: Tensor = (self.bias(ids_BC4[..., 0]) + self.position(place_BC))[..., 0]
        return bias_BC


class Interests(nn.Module):
    """Which share of a user's history is like an ad: by item, by category, and in ways that are learned.

    An event's weight depends on its kind and on how long ago it is, in events, not on the ad: a share then means how
    much of the user's interest an ad has (Deep Interest Network, Zhou et al. 2018, sums without softmax for that).
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.outputs = 2 + LIKE
        self.recency = nn.Parameter(torch.zeros(self.outputs, config.history))
        self.kind = nn.Parameter(torch.zeros(config.kinds, self.outputs))
        self.ad = nn.Linear(config.width, LIKE * SIMILAR, bias=False)
        self.event = nn.Linear(config.width, LIKE * SIMILAR, bias=False)
        self.sharp = nn.Parameter(torch.full((LIKE,), 4.0))
        self.level = nn.Parameter(torch.full((LIKE,), -2.0))

    def forward(self, inputs: Inputs) -> Tensor:
        """(B, C, H) of each ad, from 0 to 1."""
        kinds_BL, ids_BL2, slate_BC4 = inputs["history_kinds"], inputs["history_ids"], inputs["slate_ids"]
        scores_BLH = F.embedding(kinds_BL, self.kind) + self.recency.flip(-1).T
        empty_BL1 = (kinds_BL == 0)[..., None]
        weight_BHL = torch.softmax(scores_BLH.masked_fill(empty_BL1, MASKED), dim=1).transpose(1, 2)
        same_BC2L = slate_BC4[:, :, 1:3, None] == ids_BL2.transpose(1, 2)[:, None]
        real_BC2L = (slate_BC4[:, :, 1:3, None] > 0) & (kinds_BL > 0)[:, None, None]
        same_BC2L = (same_BC2L & real_BC2L).to(weight_BHL.dtype)
        alike_BCHL = torch.cat([same_BC2L, self.alike(inputs)], dim=2)
        return (alike_BCHL * weight_BHL[:, None]).sum(dim=-1)

    def begin(self, fading: float, passive: tuple[int, ...]) -> None:
        """Events fade by so much each, in logs; `passive` kinds hardly count; alike is what is near by its vector."""
        with torch.no_grad():
            self.recency.copy_(-fading * torch.arange(self.recency.shape[1]).expand_as(self.recency))
            self.kind.zero_()
            self.kind[list(passive)] = -4.0
            self.event.weight.copy_(self.ad.weight)

    def alike(self, inputs: Inputs) -> Tensor:
        """(B, C, LIKE, L) from 0 to 1."""
        slate_BCD, real_BL1 = inputs["slate_vectors"], (inputs["history_kinds"] > 0)[..., None]
        events_BLD = inputs["history_vectors"] * real_BL1.to(slate_BCD.dtype)  # of no event, all padding counts alike
        batch, ads, length = slate_BCD.shape[0], slate_BCD.shape[1], events_BLD.shape[1]
        ad_BHCE = F.normalize(self.ad(slate_BCD).view(batch, ads, LIKE, SIMILAR), dim=-1).transpose(1, 2)
        event_BHLE = F.normalize(self.event(events_BLD).view(batch, length, LIKE, SIMILAR), dim=-1).transpose(1, 2)
        cosine_BHCL = ad_BHCE @ event_BHLE.transpose(-1, -2)
        scaled = cosine_BHCL * self.sharp[:, None, None] + self.level[:, None, None]
        return torch.sigmoid(scaled).transpose(1, 2)


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
