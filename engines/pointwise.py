"""The other layer of the model family: pointwise aggregated attention with a gate, after HSTU.
A layer has 5 D² weights instead of 4 D² and a feed-forward layer's, and no softmax: on a CPU it learns more a second.

Zhai et al. 2024, Actions speak louder than words (HSTU), section 3; its relative bias by time is left out: tokens
carry the gap before them. Shape suffixes as in engines.blocks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.blocks import MASKED, halves


class Pointwise(nn.Module):
    """Takes the place of engines.blocks.Block, with the same meaning of `causal` and of the mask.

    What a query takes from an event is silu of their product and of a bias by distance, divided by the longest
    history: unlike a softmax's, its sum says how much there was.
    """

    def __init__(self, width: int, heads: int, *, length: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout, self.length = heads, dropout, length
        self.distance = nn.Parameter(torch.zeros(heads, length))
        self.norm_input = nn.LayerNorm(width)
        self.gate_query = nn.Linear(width, 2 * width)
        self.key_value = nn.Linear(width, 2 * width)
        self.norm_output = nn.LayerNorm(width)
        self.mix = nn.Linear(width, width)

    def forward(self, queries_BQD: Tensor, history_BLD: Tensor, mask_B11L: Tensor, *, causal: bool) -> Tensor:
        """Returns (B, Q, D)."""
        history_BLD = self.norm_input(history_BLD)
        asking_BQD = history_BLD if causal else self.norm_input(queries_BQD)
        gate_BQD, query_BQD = halves(F.silu(self.gate_query(asking_BQD)))
        key_BLD, value_BLD = halves(F.silu(self.key_value(history_BLD)))
        scores_BHQL = self.split(query_BQD) @ self.split(key_BLD).transpose(-1, -2)
        weights_BHQL = self.weights(scores_BHQL, mask_B11L, causal=causal)
        taken_BQD = (weights_BHQL @ self.split(value_BLD)).transpose(1, 2).flatten(2)
        mixed_BQD = self.mix(self.norm_output(taken_BQD) * gate_BQD)
        return queries_BQD + F.dropout(mixed_BQD, self.dropout, self.training)

    def weights(self, scores_BHQL: Tensor, mask_B11L: Tensor, *, causal: bool) -> Tensor:
        length = scores_BHQL.shape[-1]
        seen_B11L = mask_B11L > MASKED / 2
        if not causal:
            bias_H1L = self.distance[:, :length].flip(-1)[:, None, :]
            return F.silu(scores_BHQL + bias_H1L) / self.length * seen_B11L
        at_L = torch.arange(length, device=self.distance.device)
        back_LL = at_L[:, None] - at_L[None, :]
        bias_HLL = self.distance[:, back_LL.clamp(min=0)]
        return F.silu(scores_BHQL + bias_HLL) / self.length * (seen_B11L & (back_LL >= 0))

    def split(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) to (B, H, L, E)."""
        return x_BLD.view(*x_BLD.shape[:-1], self.heads, -1).transpose(1, 2)
