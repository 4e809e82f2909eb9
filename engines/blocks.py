"""The layers of the model family: a pre-norm attention block, the history encoder and the item tower.
They know nothing of tasks; torch is imported here, so only the learner, the export and tests import this.

Shape suffixes: B batch, L history length, Q queries, D width, H heads, E width of a head, N catalogue rows,
T text width, S scalars.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MASKED = -1e9  # finite: a row with nothing to attend to stays finite, and two masks may add up


class Block(nn.Module):
    """Attention of queries over the history, then a feed-forward layer; queries and history share one norm.

    Positions are distances: each head learns a bias per distance, so a sequence means the same wherever it
    stands, and a prefix of it too. `causal` makes it a layer over the history; otherwise every query stands
    at its end.
    """

    def __init__(self, width: int, heads: int, hidden: int, *, length: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.distance = nn.Parameter(torch.zeros(heads, length))
        self.norm_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.mix = nn.Linear(width, width)
        self.norm_hidden = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, queries_BQD: Tensor, history_BLD: Tensor, mask_B11L: Tensor, *, causal: bool) -> Tensor:
        """Returns (B, Q, D)."""
        length = history_BLD.shape[1]
        bias_HQL = self.causal_bias(length) if causal else self.distance[:, :length].flip(-1)[:, None, :]
        mask_BHQL = mask_B11L + bias_HQL
        history_BLD = self.norm_attention(history_BLD)
        queries = history_BLD if causal else self.norm_attention(queries_BQD)
        x_BQD = queries_BQD + self.drop(self.mix(self.attend(queries, history_BLD, mask_BHQL)))
        hidden = F.gelu(self.expand(self.norm_hidden(x_BQD)))
        return x_BQD + self.drop(self.contract(hidden))

    def attend(self, queries_BQD: Tensor, history_BLD: Tensor, mask_BHQL: Tensor) -> Tensor:
        width = queries_BQD.shape[-1]
        q_BHQE = self.split(self.query(queries_BQD))
        key_BLD, value_BLD = self.key_value(history_BLD).split(width, dim=-1)
        k_BHLE, v_BHLE = self.split(key_BLD), self.split(value_BLD)
        scores_BHQL = q_BHQE @ k_BHLE.transpose(-1, -2) * (width // self.heads) ** -0.5
        weights_BHQL = self.drop(torch.softmax(scores_BHQL + mask_BHQL, dim=-1))
        return (weights_BHQL @ v_BHLE).transpose(1, 2).flatten(2)

    def causal_bias(self, length: int) -> Tensor:
        """(H, L, L): the bias of each distance back, and MASKED for what lies ahead.

        A batch of short histories may come with a shorter L: distances mean the same.
        """
        at_L = torch.arange(length, device=self.distance.device)
        back_LL = at_L[:, None] - at_L[None, :]
        return self.distance[:, back_LL.clamp(min=0)].masked_fill(back_LL < 0, MASKED)

    def split(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) to (B, H, L, E)."""
        return x_BLD.view(*x_BLD.shape[:-1], self.heads, -1).transpose(1, 2)

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class HistoryEncoder(nn.Module):
    """A user's events, oldest first and padded on the left, to one state each that sees no later event."""

    def __init__(self, blocks: list[Block], width: int, *, kinds: int, scalars: int) -> None:
        super().__init__()
        self.vector = nn.Linear(width, width)
        self.scalar = nn.Linear(scalars, width, bias=False)
        self.kind = nn.Embedding(kinds, width)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, vectors_BLD: Tensor, kinds_BL: Tensor, scalars_BLS: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the states (B, L, D), and the mask (B, 1, 1, L) to read them with.

        Padding (kind 0) is masked, but never at the last position: there it stands for "nothing yet".
        """
        x_BLD = self.vector(vectors_BLD) + self.kind(kinds_BL) + self.scalar(scalars_BLS)
        masked_BL = (kinds_BL == 0).to(x_BLD.dtype) * MASKED
        mask_B11L = F.pad(masked_BL[:, :-1], (0, 1))[:, None, None, :]
        for block in self.blocks:
            x_BLD = block(x_BLD, x_BLD, mask_B11L, causal=True)
        return x_BLD, mask_B11L


class ItemTower(nn.Module):
    """Text vector, price and kind of an item or ad to its vector: a new item needs no training."""

    def __init__(self, width: int, *, text: int, scalars: int, kinds: int) -> None:
        super().__init__()
        self.text = nn.Linear(text, width)
        self.scalar = nn.Linear(scalars, width, bias=False)
        self.kind = nn.Embedding(kinds, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, text_NT: Tensor, scalars_NS: Tensor, kinds_N: Tensor) -> Tensor:
        """Returns (N, D). Text vectors have length 1: scaled, an element is about 1."""
        text_ND = self.text(text_NT * text_NT.shape[-1] ** 0.5)
        normed_ND: Tensor = self.norm(text_ND + self.scalar(scalars_NS) + self.kind(kinds_N))
        return normed_ND
