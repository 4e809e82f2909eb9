"""The head of recommendations: the user's state against every row of the catalogue, and the user's own items again.
What someone has looked at or bought is likelier than any state can say: those items are raised one by one.

Shape suffixes: B batch, P positions (B in serving), L history length, D width, N catalogue rows, K top-K, M rows
ranked again, W rows withheld, S scalars, F features.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.signatures import NOT_A_CANDIDATE, SPARE

Inputs = Mapping[str, Tensor]
REPEATED = -3e9  # below any score and any bias: a row that stands among the candidates already
DAYS = (7.0, 30.0, 90.0, 365.0)  # time constants by which an event's age is seen
HIDDEN = 32
GAP_SCALE, SECONDS_A_DAY = 10.0, 86_400.0  # a token's first scalar is 0.1 * log1p(seconds since the one before)


class Raised(NamedTuple):
    """items (P, L): catalogue rows of the history. by (P, L): what is added to each one's score, 0 but at its last."""

    items: Tensor
    by: Tensor


class RecommendationHead(nn.Module):
    """The user's state after the last event, compared with every row of the catalogue.

    In bfloat16 the product over the catalogue comes out rounded to 8 bits, which swaps neighbours. So it only
    picks a few more rows than are wanted, and these are scored again element by element, which engines keep
    in float32. Only items of the history are raised, so the best K are among the K best of the rest and those.
    Rows that an input withholds are taken out of the ranking before it is cut; the few more are then answered too.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.top_k = config.top_k
        self.norm = nn.LayerNorm(config.width)
        self.user = nn.Linear(config.width, config.width)
        self.own = OwnItems(config.width, config.history_scalars) if config.own_items else None

    def forward(self, read: nn.Module, states_BLD: Tensor, mask_B11L: Tensor, inputs: Inputs) -> dict[str, Tensor]:
        catalog_ND, bias_N = inputs["catalog"], inputs["catalog_bias"]
        last_BD = read(states_BLD[:, -1:], states_BLD, mask_B11L, causal=False)[:, 0]
        user_BD = self.vectors(last_BD)
        scores_BN = self.scores(user_BD, catalog_ND, bias_N)
        withheld_BW = inputs.get("withheld")
        if withheld_BW is not None:
            withheld_BW = withheld_BW.to(torch.int64)
            scores_BN = without(scores_BN, withheld_BW)
        _, rows_BM = torch.topk(scores_BN, self.top_k + SPARE, dim=-1)
        more_BM: Tensor | float = 0.0
        if self.own is not None:
            items_BL = inputs["history_items"].to(torch.int64)
            items_BL = items_BL * (items_BL < catalog_ND.shape[0])  # what is newer than the table reads as none
            raised = self.own(states_BLD, last_BD, inputs["history_scalars"], items_BL)
            again_BM = (rows_BM[:, :, None] == items_BL[:, None, :]).any(dim=-1)
            by_BL = torch.where(raised.by > 0, raised.by, REPEATED)
            more_BM = torch.cat([torch.where(again_BM, REPEATED, 0.0), by_BL], dim=-1)
            rows_BM = torch.cat([rows_BM, items_BL], dim=-1)
        exact_BM = (catalog_ND[rows_BM] * user_BD[:, None]).sum(dim=-1) + bias_N[rows_BM] + more_BM
        ranked = self.top_k
        if withheld_BW is not None:  # also those that are raised, and where there are too few others
            held_BM = (rows_BM[:, :, None] == withheld_BW[:, None, :]).any(dim=-1)
            exact_BM, ranked = torch.where(held_BM, NOT_A_CANDIDATE, exact_BM), self.top_k + SPARE
        scores_BK, best_BK = torch.topk(exact_BM, ranked, dim=-1)
        return {"rows": rows_BM.gather(1, best_BK), "scores": scores_BK}

    def vectors(self, states: Tensor) -> Tensor:
        """User vectors (..., D) of read-out states, scaled so that a score is about 1 at the start."""
        users: Tensor = self.user(self.norm(states)) * self.user.in_features**-0.5
        return users

    def scores(self, users: Tensor, catalog_ND: Tensor, bias_N: Tensor) -> Tensor:
        """(..., N): what softmax over the whole catalogue is trained on, before own items are raised."""
        return users @ catalog_ND.T + bias_N


def without(scores_BN: Tensor, rows_BW: Tensor) -> Tensor:
    """The scores, far down at these rows of the catalogue; 0, the unknown item, is never a candidate anyway.

    By one flat index: `scatter` along a row does not export with two open dimensions.
    """
    rows, size = scores_BN.shape
    known_BW = rows_BW * (rows_BW < size)
    flat = (torch.arange(rows, device=scores_BN.device)[:, None] * size + known_BW).reshape(-1)
    return scores_BN.reshape(-1).index_fill(0, flat, NOT_A_CANDIDATE).view(rows, size)


class OwnItems(nn.Module):
    """How much likelier each item of the history is for being in it: a learned count that fades.

    Each event weighs by its age, size and state; an item's score rises by log1p of the sum over its events. It takes
    the place of a copying decoder (Ren et al. 2019, RepeatNet) where scores are added, not probabilities mixed.
    """

    def __init__(self, width: int, scalars: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width, bias=False)
        self.query = nn.Linear(width, width)
        self.weigh = nn.Sequential(nn.Linear(width + scalars + len(DAYS), HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1))
        self.share = nn.Linear(width, 2)

    def forward(
        self, states_PLD: Tensor, query_PD: Tensor, scalars_PLS: Tensor, items_PL: Tensor, upto_P: Tensor | None = None
    ) -> Raised:
        """upto_P: each position's own token, after which nothing counts; in serving it is the last."""
        age_PL = age_in_days(scalars_PLS, upto_P)
        known_PL = items_PL > 0
        if upto_P is not None:
            known_PL = known_PL & (torch.arange(items_PL.shape[1], device=items_PL.device) <= upto_P[:, None])
        faded = [torch.exp(-age_PL / days) for days in DAYS]
        seen_PLF = torch.stack([torch.log1p(age_PL) / 3, *faded], dim=-1)
        features_PLF = torch.cat([states_PLD, scalars_PLS[..., 1:], seen_PLF], dim=-1)
        match_PL = (self.key(states_PLD) * self.query(query_PD)[:, None]).sum(dim=-1) * states_PLD.shape[-1] ** -0.5
        log_PL = self.weigh(features_PLF)[..., 0] + match_PL - 0.5 * torch.log1p(age_PL)
        weight_PL = torch.exp(log_PL.clamp(max=8.0)) * known_PL
        same_PLL = items_PL[:, :, None] == items_PL[:, None, :]
        count_PL = (same_PLL * weight_PL[:, None, :]).sum(dim=-1)
        share_P2 = self.share(query_PD)
        by_PL = F.softplus(share_P2[:, :1] + 1) * torch.log1p(count_PL * torch.exp(share_P2[:, 1:] + 1))
        later_LL = torch.ones_like(same_PLL[0]).triu(1)
        last_PL = ~(same_PLL & later_LL & known_PL[:, None, :]).any(dim=-1)
        return Raised(items_PL, by_PL * (last_PL & known_PL))


def age_in_days(scalars_PLS: Tensor, upto_P: Tensor | None) -> Tensor:
    """(P, L) from each token to the position's own one: 0 for that, and for what comes after."""
    gap_PL = torch.expm1(scalars_PLS[..., 0].clamp(max=2.0) * GAP_SCALE) / SECONDS_A_DAY
    since_PL = torch.cumsum(gap_PL, dim=-1)
    now_P1 = since_PL[:, -1:] if upto_P is None else since_PL.gather(1, upto_P[:, None])
    return (now_P1 - since_PL).clamp(min=0)
