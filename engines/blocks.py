"""The layers of the model family: a pre-norm attention block, the history encoder and the item tower.
They know nothing of tasks; torch is imported here, so only the learner, the export and tests import this.

Shape suffixes: B batch, L history length, Q queries, D width, H heads, E width of a head, N catalogue rows,
T text width, S scalars.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MASKED = -1e9  # finite: a row with nothing to attend to stays finite, and two masks may add up


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of the last dimension. Not torch's split: it is exported as a sequence, which TensorRT does not read."""
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


class Block(nn.Module):
    """Attention of queries over the history, then a feed-forward layer; queries and history share one norm.

    Positions are distances: each head learns a bias per distance, so a sequence means the same wherever it
    stands, and a prefix of it too. `causal` makes it a layer over the history; otherwise every query stands
    at its end. `head_width`: of each head, 0 where the heads share the layer's width.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, *, length: int, dropout: float, head_width: int = 0
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.head_width = head_width or width // heads
        inner = heads * self.head_width
        self.distance = nn.Parameter(torch.zeros(heads, length))
        self.norm_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner)
        self.key_value = nn.Linear(width, 2 * inner)
        self.mix = nn.Linear(inner, width)
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
        q_BHQE = self.split(self.query(queries_BQD))
        key_BLD, value_BLD = halves(self.key_value(history_BLD))
        k_BHLE, v_BHLE = self.split(key_BLD), self.split(value_BLD)
        scores_BHQL = q_BHQE @ k_BHLE.transpose(-1, -2) * self.head_width**-0.5
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

    def __init__(self, blocks: Sequence[nn.Module], width: int, *, kinds: int, scalars: int) -> None:
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
    """Text vector, price and kind of an item or ad to its vector: a new item needs no training.

    With `buckets`, an item that training saw has a vector of its own beside: `claim` gives it one of the two buckets
    that its id hashes to, with a check number. Whoever did not claim one adds nothing, so a new item never
    borrows a stranger's vector.
    """

    check: Tensor

    def __init__(self, width: int, *, text: int, scalars: int, kinds: int, buckets: int = 0) -> None:
        super().__init__()
        self.scalars, self.buckets = scalars, buckets
        self.text = nn.Linear(text, width)
        self.scalar = nn.Linear(scalars, width, bias=False)
        self.kind = nn.Embedding(kinds, width)
        self.norm = nn.LayerNorm(width)
        if buckets:
            self.own = nn.Parameter(torch.zeros(buckets, width))
            self.register_buffer("check", torch.full((buckets,), -1.0))

    def forward(self, text_NT: Tensor, scalars_NS: Tensor, kinds_N: Tensor) -> Tensor:
        """Returns (N, D). Text vectors have length 1: scaled, an element is about 1.

        scalars_NS: after the first `scalars` columns come three numbers of the id's hash, where there are buckets.
        """
        text_ND = self.text(text_NT * text_NT.shape[-1] ** 0.5)
        x_ND = text_ND + self.scalar(scalars_NS[:, : self.scalars]) + self.kind(kinds_N)
        if self.buckets:
            x_ND = x_ND + self.own_vectors(scalars_NS[:, self.scalars :])
        normed_ND: Tensor = self.norm(x_ND)
        return normed_ND

    def own_vectors(self, hashes_N3: Tensor) -> Tensor:
        """(N, D): zero for who has claimed no bucket."""
        bucket_N2 = torch.remainder(hashes_N3[:, :2], self.buckets).to(torch.int64)
        mine_N2 = (self.check[bucket_N2] == hashes_N3[:, 2:]).to(self.own.dtype)
        # one look-up: the second bucket's where it is the claimed one, else the first's, times whether that is
        bucket_N = torch.where(mine_N2[:, 1] > 0, bucket_N2[:, 1], bucket_N2[:, 0])
        return self.own[bucket_N] * mine_N2.amax(dim=1, keepdim=True)

    @torch.no_grad()
    def claim(self, hashes_N3: Tensor, spread: float = 0.0) -> int:
        """Gives these items a bucket each, the first come first; returns how many have one, old ones included.

        spread: standard deviation of a new vector. Item by item: a catalogue once, not per event.
        """
        taken = 0
        for first, second, check in hashes_N3.tolist():
            places = [int(first % self.buckets), int(second % self.buckets)]
            held = [float(self.check[place]) for place in places]
            if check not in held:
                if -1.0 not in held:
                    continue
                place = places[held.index(-1.0)]
                self.check[place] = check
                self.own[place].normal_(std=spread) if spread else self.own[place].zero_()
            taken += 1
        return taken
