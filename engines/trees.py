"""Boosted trees as arrays of a graph: all of them are walked at once, a level a step, by look-ups alone.
They are grown outside (`finetune/boosting.py`) and do not learn here: a fine-tune learns beside them.

Shape suffixes: B batch, M columns, T trees, N nodes of all trees together.
"""

import torch
from torch import Tensor, nn

from engines.signatures import MISSING


class Trees(nn.Module):
    """Nakandala et al. 2020, A tensor compiler for unified machine learning prediction serving: tree traversal.

    Columns and thresholds are codes, whole numbers, so that engines agree on every split. A leaf leads to itself, so
    that all trees can be walked for the same number of steps; its `value` is in log-odds.
    """

    root: Tensor
    column: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor

    def __init__(self, trees: int, leaves: int, depth: int) -> None:
        super().__init__()
        nodes = trees * (2 * leaves - 1)
        self.depth = depth
        self.register_buffer("root", torch.arange(0, nodes, 2 * leaves - 1, dtype=torch.int32))
        self.register_buffer("column", torch.zeros(nodes, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(nodes, dtype=torch.int32))
        self.register_buffer("left", torch.arange(nodes, dtype=torch.int32))
        self.register_buffer("right", torch.arange(nodes, dtype=torch.int32))
        self.register_buffer("value", torch.zeros(nodes))

    def forward(self, columns_BM: Tensor) -> Tensor:
        """(B,) log-odds. `column` counts the columns twice: with missing values below all others, then above."""
        above_BM = torch.where(columns_BM == MISSING, -MISSING, columns_BM)
        sides_BM = torch.cat([columns_BM, above_BM], dim=-1)
        node_BT = self.root.long().expand(columns_BM.shape[0], -1)
        for _ in range(self.depth):
            seen_BT = sides_BM.gather(1, self.column[node_BT].long())
            goes_left_BT = seen_BT <= self.threshold[node_BT]
            node_BT = torch.where(goes_left_BT, self.left[node_BT], self.right[node_BT]).long()
        return self.value[node_BT].sum(dim=-1)
