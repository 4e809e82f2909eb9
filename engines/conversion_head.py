"""The second head of click-through: of each ad of the slate, the chance that a click on it ends in an order.
It has interests of its own, a copy of those of clicks, so that a fine-tune of clicks leaves what it says as it is.

Shape suffixes: B batch, C slate, X facts.
"""

from typing import Any

import torch
from torch import Tensor, nn

from engines.interests import Inputs, Interests, shares
from engines.signatures import PAGE_SCALARS

IDS = 4096
"""Buckets of ads and of the page's named values; two ads share one only where their rows are this far apart."""


class ConversionHead(nn.Module):
    """A linear model of the facts, and a bias of the ad: hundreds of orders teach no more than that.

    Gradients end here: whatever learns from its logit moves neither vectors nor the head of clicks.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.interests = Interests(config)
        self.line = nn.Linear(2 * self.interests.outputs + 2 + config.slate_scalars + PAGE_SCALARS, 1)
        self.bias = nn.Embedding(IDS, 1)

    def forward(self, inputs: Inputs) -> Tensor:
        """(B, C) logits."""
        line_BC = (self.facts(inputs) * self.line.weight[0]).sum(dim=-1) + self.line.bias
        bias_BC: Tensor = self.bias(inputs["slate_ids"][..., 0])[..., 0]
        return line_BC + bias_BC

    def facts(self, inputs: Inputs) -> Tensor:
        """(B, C, X): as the head of clicks has them, without the page's named values."""
        known_BCX = shares(self.interests, {name: value.detach() for name, value in inputs.items()})
        page_BCX = inputs["page_scalars"].detach()[:, None].expand(-1, known_BCX.shape[1], -1)
        return torch.cat([known_BCX, page_BCX], dim=-1)
