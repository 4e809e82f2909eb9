"""How much a liking for one category of items makes of an ad of another: a number for each pair, learned.
Not by vectors: a pair's number can be fitted anew in one go where tastes change (finetune.refit).

Shape suffixes: B batch, L history length, C slate.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

PAIRS = 4096
"""Buckets of pairs; two share one where their hashes meet (Weinberger et al. 2009, hashed crosses)."""
LEAST = 1e-4
_OF_EVENT, _OF_AD = 31, 223
"""OpenVINO divides integers as floats of 24 bits: of categories of 16 bits the sum is below that, and a power of two
leaves no rounding.
"""


class Affinity(nn.Module):
    """Adds up, over the categories of a user's history, the root of a category's share times its pair with the ad's."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.Embedding(PAIRS, 1)

    def forward(self, weight_BL: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """(B, C). weight (B, L): of each event, adding up to 1."""
        pair_BCL, root_BL = terms(weight_BL, inputs)
        said_BC: Tensor = (self.pair(pair_BCL)[..., 0] * root_BL[:, None]).sum(dim=-1)
        return said_BC


def terms(weight_BL: Tensor, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Bucket of each ad's pair with each event (B, C, L); each event's part of the root of its category's share (B, L),
    those of one category add up to it: 0 where the category is not known.
    """
    event_BL, ad_BC = inputs["history_ids"][..., 1], inputs["slate_ids"][..., 2]
    known_BL = ((event_BL > 0) & (inputs["history_kinds"] > 0)).to(weight_BL.dtype)
    same_BLL = (event_BL[:, :, None] == event_BL[:, None]).to(weight_BL.dtype)
    share_BL = (same_BLL * weight_BL[:, None]).sum(dim=-1)
    root_BL = known_BL * weight_BL * torch.rsqrt(share_BL + LEAST)
    return (event_BL[:, None] * _OF_EVENT + ad_BC[..., None] * _OF_AD) % PAIRS, root_BL
