"""Parity: how far an engine's results are from the oracle's, and whether that is near enough to serve. It
compares what matters downstream: the scores, their order, decisions at the thresholds, and the top of each
list.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.base import Array, Arrays, Engine
from engines.signatures import CONVERSION
from schemas.errors import EngineError

TOP = 10


@dataclass(frozen=True, slots=True)
class Bounds:
    """How different an engine may be. Differences are in standard deviations of the oracle's scores."""

    max_difference: float
    mean_difference: float
    rank_correlation: float
    flips: float
    overlap: float


BOUNDS = {
    "f32": Bounds(max_difference=1e-3, mean_difference=1e-4, rank_correlation=0.9999, flips=0.0005, overlap=0.999),
    "bf16": Bounds(max_difference=0.15, mean_difference=0.02, rank_correlation=0.999, flips=0.005, overlap=0.98),
    # Scores may move further in int8, but what follows from them no more often than in bf16.
    "int8": Bounds(max_difference=0.5, mean_difference=0.03, rank_correlation=0.998, flips=0.005, overlap=0.98),
}


@dataclass(frozen=True, slots=True)
class Report:
    """An engine beside the oracle, over `rows` rows.

    max_difference, mean_difference: of scores, absolute; scale: the oracle's standard deviation.
    rank_correlation: Spearman's. flips: share of decisions that differ at any of the thresholds. overlap:
    share of the oracle's top 10 that the engine lists too (1 where the task lists nothing). conversion: the same of the
    chance of an order after a click, where the graph says one; nothing is decided by it.
    """

    rows: int
    precision: str
    target: str
    scale: float
    max_difference: float
    mean_difference: float
    rank_correlation: float
    flips: float
    overlap: float
    conversion: "Report | None" = None

    def as_dict(self) -> dict[str, Any]:
        """For a manifest or a log line."""
        told = {name: value for name, value in asdict(self).items() if name != "conversion"}
        return told if self.conversion is None else {**told, "conversion": self.conversion.as_dict()}

    def check(self, bounds: Bounds) -> None:
        """Raises EngineError that names each measure outside the bounds."""
        broken = self.broken(bounds)
        if self.conversion is not None:
            broken += [f"conversion {each}" for each in self.conversion.broken(bounds)]
        if broken:
            raise EngineError(
                f"the engine differs from the oracle: {', '.join(broken)}",
                where=f"{self.precision} on {self.target}",
                todo="use the next safer precision",
            )

    def broken(self, bounds: Bounds) -> list[str]:
        """Each measure outside the bounds, in words; not those of conversions."""
        scale = max(self.scale, 1e-6)
        return [
            f"{name} {value:.3g} ({'at most' if most else 'at least'} {bound:.3g})"
            for name, value, bound, most in (
                ("max_difference", self.max_difference / scale, bounds.max_difference, True),
                ("mean_difference", self.mean_difference / scale, bounds.mean_difference, True),
                ("rank_correlation", self.rank_correlation, bounds.rank_correlation, False),
                ("flips", self.flips, bounds.flips, True),
                ("overlap", self.overlap, bounds.overlap, False),
            )
            if not (value <= bound if most else value >= bound)
        ]


def parity(engine: Engine, oracle: Engine, inputs: Arrays, *, thresholds: Sequence[float] = (0.5,)) -> Report:
    """Runs both over all rows, in chunks that fit. thresholds: the probabilities at which a task decides."""
    return compared(engine, outputs(engine, inputs), outputs(oracle, inputs), thresholds=thresholds)


def compared(engine: Engine, found: Arrays, expected: Arrays, *, thresholds: Sequence[float] = (0.5,)) -> Report:
    """What the engine found beside what the oracle says, for the same rows."""
    lists = "rows" in expected
    name = "scores" if lists else "logit"
    report = _beside(engine, found[name], expected[name])
    if lists:
        report = replace(report, overlap=overlap(found["rows"], expected["rows"]))
    else:
        said, truth = (side["logit"].astype(np.float64) for side in (found, expected))
        report = replace(report, flips=flips(said, truth, thresholds))
    if CONVERSION in expected:
        report = replace(report, conversion=_beside(engine, found[CONVERSION], expected[CONVERSION]))
    return report


def _beside(engine: Engine, found: Array, expected: Array) -> Report:
    """Differences and order of one output; nothing of what follows from it."""
    scores, truth = found.astype(np.float64), expected.astype(np.float64)
    difference = np.abs(scores - truth)
    return Report(
        rows=len(truth),
        precision=engine.precision,
        target=engine.target,
        scale=float(truth.std()),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        rank_correlation=rank_correlation(scores.ravel(), truth.ravel()),
        flips=0.0,
        overlap=1.0,
    )


def outputs(engine: Engine, inputs: Arrays) -> dict[str, Array]:
    """Outputs of any number of rows: chunks of the largest bucket, put together again."""
    names = [spec.name for spec in engine.signature.inputs if spec.batched]
    rows, step = len(inputs[names[0]]), engine.buckets[-1]
    chunks = [
        engine.infer({**inputs, **{name: inputs[name][start : start + step] for name in names}}).outputs
        for start in range(0, rows, step)
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def rank_correlation(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Spearman's; 1 where either side is constant, for then there is no order to lose."""
    a, b = (ranks - ranks.mean() for ranks in (ranked(found), ranked(expected)))
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / spread if spread else 1.0


def ranked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks, equal values sharing their mean rank."""
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(size)
    return (last - (size - 1) / 2)[group]


def flips(found: NDArray[np.float64], expected: NDArray[np.float64], thresholds: Sequence[float]) -> float:
    """Share of scores that fall on different sides of any threshold."""
    logits = np.log(np.asarray(thresholds) / (1 - np.asarray(thresholds)))
    sides = [np.searchsorted(np.sort(logits), side.ravel(), side="right") for side in (found, expected)]
    return float((sides[0] != sides[1]).mean())


def overlap(found: Array, expected: Array) -> float:
    """Mean share of the expected first TOP rows that are among the found first TOP."""
    same = found[:, :TOP, None] == expected[:, None, :TOP]
    return float(same.any(axis=1).mean())
