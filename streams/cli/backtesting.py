"""What a span of served events would have been with another release: quality, decisions and money, beside what was.
Chunks in, sums and the labelled scores out; the figures are those of finetune.metrics.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune import metrics
from streams.events import Record
from streams.features import unpack
from streams.tasks.base import Result, Task
from streams.tasks.fraud import COLUMN
from streams.tracing.span import Labels, key_of

Floats = NDArray[np.float64]
Sides = tuple[Sequence[Result], Sequence[Result]]
"""Of the same events: what the release says, and what it is compared with."""
TOP = 10
FPR = 0.01
APPROVE = "approve"


class Backtest:
    """Of one task. `add` chunks, then `report`. Keeps a few numbers of each labelled candidate; of the rest, sums."""

    def __init__(self, task: Task, labels: Labels) -> None:
        self.task, self._labels = task, labels
        self.events = self.labelled = self.first_changed = 0
        self.decisions: Counter[str] = Counter()
        self.money = [dict.fromkeys(("stopped", "missed", "held_up"), 0.0) for _ in range(2)]
        self.orders = [dict.fromkeys(("stopped", "missed", "held_up"), 0) for _ in range(2)]
        self._kept: list[tuple[Floats, Floats, tuple[Floats, Floats]]] = []  # label, weight, scores or ranks of each

    @property
    def ranks(self) -> bool:
        return self.task.loss == "softmax"

    def add(self, served: Sequence[Record], sides: Sides) -> None:
        """Events that were served, and both sides' results of them."""
        self.events += len(served)
        for new, old in zip(*sides, strict=True):
            if new.decision != old.decision:
                self.decisions[f"{old.decision}->{new.decision}"] += 1
            if new.candidates:
                self.first_changed += _first(new) != _first(old)
        if self.ranks:
            self._add_ranks(served, sides)
        else:
            self._add_chances(served, sides)

    def report(self) -> dict[str, Any]:
        """quality: of the release, then of what it is compared with; null where there are too few labels."""
        out: dict[str, Any] = {
            "events": self.events,
            "labelled": self.labelled,
            "labels": sum(len(label) for label, _, _ in self._kept),
            "quality": [self._figures(0), self._figures(1)],
            "decisions": dict(self.decisions.most_common()),
            "first_changed": self.first_changed,
        }
        if self.task.name == "fraud":
            out["money"] = [
                {name: {"amount": round(money[name], 2), "orders": orders[name]} for name in money}
                for money, orders in zip(self.money, self.orders, strict=True)
            ]
        return out

    def _add_chances(self, served: Sequence[Record], sides: Sides) -> None:
        """Both sides name the same candidates, in the order in which they were served."""
        keys = [key_of(each["target_id"], name) for each in served for name in each["candidates"] or [None]]
        there, label, weight = self._labels.look_up(keys)
        scores = [np.array([value for result in side for value in result.prediction]) for side in sides]
        event = np.repeat(np.arange(len(served)), [len(each["candidates"]) or 1 for each in served])
        self.labelled += len(np.unique(event[there]))
        self._kept.append((label[there], weight[there], (scores[0][there], scores[1][there])))
        if self.task.name == "fraud":
            self._add_money(served, sides, there, label)

    def _add_money(self, served: Sequence[Record], sides: Sides, there: NDArray[np.bool_], label: Floats) -> None:
        """The amount is in the feature row: log1p of it, in units of the order's own currency."""
        fields = unpack([each["features"] for each in served], self.task.features)["fields"]
        amount = np.expm1(fields[:, COLUMN["amount"]].astype(np.float64))
        for side, money, orders in zip(sides, self.money, self.orders, strict=True):
            passed = np.array([result.decision == APPROVE for result in side], np.bool_)
            fraud = there & (label > 0.5)
            for name, which in (
                ("stopped", fraud & ~passed),
                ("missed", fraud & passed),
                ("held_up", there & ~fraud & ~passed),
            ):
                money[name] += float(amount[which].sum())
                orders[name] += int(which.sum())

    def _add_ranks(self, served: Sequence[Record], sides: Sides) -> None:
        """Where the item that was wanted stands in each list. It is one of those that were served: others have no
        label, so the list that was served has the advantage."""
        pairs = [(number, name) for number, each in enumerate(served) for name in each["candidates"]]
        there, label, weight = self._labels.look_up([key_of(served[n]["target_id"], name) for n, name in pairs])
        wanted = np.flatnonzero(there & (label > 0.5)).tolist()
        self.labelled += len({pairs[at][0] for at in wanted})
        ranks = [
            np.array(
                [_place(side[number].candidates, name) for number, name in (pairs[at] for at in wanted)], np.float64
            )
            for side in sides
        ]
        self._kept.append((label[wanted], weight[wanted], (ranks[0], ranks[1])))

    def _figures(self, side: int) -> dict[str, float] | None:
        if not sum(len(label) for label, _, _ in self._kept):
            return None
        label, weight, score = (
            np.concatenate(parts)
            for parts in zip(*((one, two, both[side]) for one, two, both in self._kept), strict=True)
        )
        if self.ranks:
            rank = score.astype(np.int64)
            return {"ndcg@10": metrics.ndcg_at(rank, TOP), "hr@10": metrics.hit_at(rank, TOP)}
        if not 0 < (label > 0.5).sum() < len(label):
            return {"log_loss": metrics.log_loss(label, score, weight)}
        label = (label > 0.5).astype(np.float64)
        return {
            name: float(figure(label, score, weight)) for name, figure in FIGURES.get(self.task.name, _CLICKS).items()
        }


Figure = Callable[[Floats, Floats, Floats], float]
_CLICKS: dict[str, Figure] = {
    "normalised_entropy": metrics.normalised_entropy,
    "roc_auc": lambda label, score, _: metrics.roc_auc(label, score),
    "calibration": lambda label, score, weight: metrics.calibration(label * weight, score * weight),
}
FIGURES: dict[str, dict[str, Figure]] = {
    "fraud": {
        "pr_auc": metrics.pr_auc,
        "recall_at_1pct_fpr": lambda label, score, _: metrics.recall_at_fpr(label, score, FPR),
        "log_loss": metrics.log_loss,
    },
    "ctr": _CLICKS,
}
"""By task; each of label (0 or 1), chance and weight, all (N,)."""


def _first(result: Result) -> str | None:
    """The candidate with the highest score."""
    if not result.candidates:
        return None
    return result.candidates[int(np.argmax(np.asarray(result.prediction, np.float32)))]


def _place(candidates: Sequence[str], name: str) -> int:
    return candidates.index(name) if name in candidates else TOP
