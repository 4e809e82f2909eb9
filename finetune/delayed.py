"""Loss and calibration where a positive may still come: those of Chapelle 2014, Modeling delayed feedback in display
advertising, with the delays as `delays` estimates them.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def delayed_loss(logit: Tensor, label: Tensor, arrived: Tensor) -> Tensor:
    """Loss of each of N rows: -log p of a positive, -log(1 - p F(e)) of a silent row.

    arrived (N,): F(e) of silent rows; 1 where silence, or what was said, is final: then it is the cross-entropy.
    Between labels of 0 and 1 both count by their share.
    """
    # 1 - p F = (1 + (1 - F) exp(z)) / (1 + exp(z)); log1p(-1) is -inf, whose softplus is 0.
    left = F.softplus(logit + torch.log1p(-arrived))
    silent = F.softplus(logit) - left
    return label * F.softplus(-logit) + (1 - label) * silent


def delayed_platt(
    logit: NDArray[np.float32], label: NDArray[np.float32], arrived: NDArray[np.float32], weight: NDArray[np.float32]
) -> dict[str, float]:
    """a, b of sigmoid(a * logit + b), as `calibrate.platt` but for the loss: it would call the silent rows negatives.

    All (N,). a = 1, b = 0 where one class is missing.
    """
    if not 0 < label.sum() < label.size:
        return {"a": 1.0, "b": 0.0}
    z, wanted, share, counts = (torch.from_numpy(each.astype(np.float64)) for each in (logit, label, arrived, weight))
    middle, scale = float(z.mean()), max(float(z.std()), 1e-6)
    line = torch.tensor([scale, middle], dtype=torch.float64, requires_grad=True)  # of standardised logits
    solver = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        solver.zero_grad()
        fitted = line[0] * ((z - middle) / scale) + line[1]
        loss = (delayed_loss(fitted, wanted, share) * counts).sum() / counts.sum()
        loss = loss + (line[0] / scale) ** 2 / (2e4 * counts.sum())  # as `platt`: classes apart have a line too
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        return loss

    solver.step(step)  # type: ignore[no-untyped-call]  # torch has no types for it
    slope, moved = line.detach().tolist()
    return {"a": slope / scale, "b": moved - slope / scale * middle}
