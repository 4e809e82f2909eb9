"""Shares of a user's history that are like an ad: what the heads of clicks and of conversions know of both.
A share is a sum over events without a softmax over ads, so it says how much of the user's interest an ad has.

Shape suffixes: B batch, L history length, C slate, D width, H interests, S scalars, X facts.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.blocks import MASKED

Inputs = Mapping[str, Tensor]
LIKE = 4
"""Learned ways in which an ad and an event can be alike, beside the same item and the same category."""
SIMILAR = 16  # width in which these compare
LEAST = 1e-4


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
        weight_BHL = self.weights(kinds_BL).transpose(1, 2)
        same_BC2L = slate_BC4[:, :, 1:3, None] == ids_BL2.transpose(1, 2)[:, None]
        real_BC2L = (slate_BC4[:, :, 1:3, None] > 0) & (kinds_BL > 0)[:, None, None]
        same_BC2L = (same_BC2L & real_BC2L).to(weight_BHL.dtype)
        alike_BCHL = torch.cat([same_BC2L, self.alike(inputs)], dim=2)
        return (alike_BCHL * weight_BHL[:, None]).sum(dim=-1)

    def weights(self, kinds_BL: Tensor) -> Tensor:
        """(B, L, H) of each event, adding up to 1."""
        scores_BLH = F.embedding(kinds_BL, self.kind) + self.recency.flip(-1).T
        return torch.softmax(scores_BLH.masked_fill((kinds_BL == 0)[..., None], MASKED), dim=1)

    def of_categories(self, inputs: Inputs) -> Tensor:
        """(B, L): how much each event says of the categories that a user likes."""
        return self.weights(inputs["history_kinds"])[..., 1]

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


def shares(interests: Interests, inputs: Inputs) -> Tensor:
    """(B, C, X): the shares, their roots, whether the ad is of the page's own item and category, and its scalars."""
    share_BCH = interests(inputs)
    scalars_BCS, ids_BC4 = inputs["slate_scalars"], inputs["slate_ids"]
    here_B2 = inputs["history_ids"][:, -1]  # the page's own item and category
    same_BC2 = ((ids_BC4[..., 1:3] == here_B2[:, None]) & (ids_BC4[..., 1:3] > 0)).to(share_BCH.dtype)
    return torch.cat([share_BCH, torch.sqrt(share_BCH + LEAST), same_BC2, scalars_BCS], dim=-1)
