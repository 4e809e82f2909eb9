"""The linear part of the click model, fitted to new examples in one go, with the champion's as what was known before.
What is not linear stays: a few hundred steps on a thousand clicks lose more of that than they learn of a changed taste.

Logistic regression whose Gaussian prior has the mean of the model before: Chapelle, Manavoglu and Rosales 2014, Simple
and scalable response prediction for display advertising, section 6.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engines.affinity import PAIRS, terms
from engines.conversion_head import IDS
from engines.ctr_head import PLACES, CtrHead
from engines.model import HeadraceModel
from finetune.losses import tensors
from finetune.trainer import TorchTable
from streams.features import Rows
from streams.tasks.base import Task

ITERATIONS = 60
CHUNK = 512
VARIANCE = {"level": 1.0, "line": 0.1, "bias": 0.1, "position": 0.01, "pair": 0.5}
"""How far each part may have moved since the champion, of a logit: found best on a taste that had changed at once."""
SCALES = (0.01, 0.1, 1.0)
"""Of the variances. Where nothing has changed, the largest costs .008 of normalised entropy and the smallest nothing;
where tastes have, .024 of .056 are gained with the smallest (600 orders a day, 3,053 and 1,822 clicks).
"""


class Known(NamedTuple):
    """Of n labelled ads: facts (n, X), ad and place (n,), pair and root (n, L) as engines.affinity.terms has them, the
    champion's logit, label and weight (n,).
    """

    facts: Tensor
    ad: Tensor
    place: Tensor
    pair: Tensor
    root: Tensor
    logit: Tensor
    label: Tensor
    weight: Tensor


def refit(
    model: HeadraceModel, table: TorchTable, task: Task, rows: Rows, label: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> bool:  # fmt: skip
    """Moves the linear part of the click model in place; label and weight (N, C) of the slates of `rows`.

    rows: the newest last. Returns whether it did: of one class alone nothing is to be learned.
    """
    there = weight > 0
    if not 0 < label[there].sum() < there.sum():
        return False
    head = cast(CtrHead, model.head)
    model.eval()  # type: ignore[no-untyped-call]  # transformers wraps torch's without types
    known = _known(model, head, table, task, rows, label, weight)
    paired = head.affinity is not None
    moved = _fitted(known, _scale(known, paired=paired), paired=paired)
    with torch.no_grad():
        head.line.bias.add_(moved["level"])
        head.line.weight.add_(moved["line"])
        head.bias.weight.add_(moved["bias"][:, None])
        head.position.weight.add_(moved["position"][:, None])
        if head.affinity is not None:
            head.affinity.pair.weight.add_(moved["pair"][:, None])
    return True


def _known(
    model: HeadraceModel, head: CtrHead, table: TorchTable, task: Task, rows: Rows, label: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> Known:  # fmt: skip
    parts = []
    with torch.no_grad():
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            inputs = tensors(task.inputs(rows[part], table))
            at, place = (torch.from_numpy(each) for each in np.nonzero(weight[part] > 0))
            ids = inputs["slate_ids"][at, place]
            pair_BCL, root_BL = terms(head.interests.of_categories(inputs), inputs)
            logit = model(**inputs)["logit"]
            parts.append(
                Known(
                    head.facts(inputs)[at, place], ids[:, 0], ids[:, 3].clamp(max=PLACES - 1), pair_BCL[at, place],
                    root_BL[at], logit[at, place], torch.from_numpy(label[part])[at, place],
                    torch.from_numpy(weight[part])[at, place],
                )
            )  # fmt: skip
    return Known(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _scale(known: Known, *, paired: bool) -> float:
    """The one of SCALES that, fitted to the older half, is best on the newer half."""
    half = len(known.label) // 2
    older, newer = (Known(*(each[part] for each in known)) for part in (slice(half), slice(half, None)))
    found = {}
    for scale in SCALES:
        logit = newer.logit + _added(newer, _fitted(older, scale, paired=paired))
        found[scale] = float(F.binary_cross_entropy_with_logits(logit, newer.label, newer.weight, reduction="sum"))
    return min(SCALES, key=lambda scale: found[scale])


def _fitted(known: Known, scale: float, *, paired: bool) -> dict[str, Tensor]:
    """What is to be added to each part: the most probable, given the labels."""
    sizes = {"level": 1, "line": known.facts.shape[1], "bias": IDS, "position": PLACES}
    sizes |= {"pair": PAIRS} if paired else {}
    moved = {name: torch.zeros(size, requires_grad=True) for name, size in sizes.items()}
    optimiser = torch.optim.LBFGS(moved.values(), max_iter=ITERATIONS, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimiser.zero_grad()
        logit = known.logit + _added(known, moved)
        total = F.binary_cross_entropy_with_logits(logit, known.label, known.weight, reduction="sum")
        for name, each in moved.items():
            total = total + (each**2).sum() / (2 * scale * VARIANCE[name])
        total.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        return float(total.detach())

    optimiser.step(loss)  # type: ignore[no-untyped-call]  # torch has no types for it either
    return {name: each.detach() for name, each in moved.items()}


def _added(known: Known, moved: Mapping[str, Tensor]) -> Tensor:
    """(n,) to the logits."""
    added = moved["level"] + known.facts @ moved["line"] + moved["bias"][known.ad] + moved["position"][known.place]
    if "pair" in moved:
        pairs = F.embedding_bag(known.pair, moved["pair"][:, None], per_sample_weights=known.root, mode="sum")
        added = added + pairs[:, 0]
    return added
