"""How long positives take to come: what a silence of some length says, estimated from those that came.
A row that is silent after time e is not a negative for certain: it has the chance 1 - p F(e), F the delays' own.

F is a step function without a form assumed (Yoshikawa and Imai 2018, A nonparametric delayed feedback model for
conversion rate prediction). What follows for training is in `delayed`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.errors import TrainingError

Floats = NDArray[np.float64]

STEPS = 128
ENOUGH = 100
"""Positives below which no distribution of delays is estimated."""


@dataclass(frozen=True, slots=True)
class Delays:
    """P(delay <= t) of what comes true within the time in which labels count: cdf[i] from ms[i] on, 0 before.

    ms (S,) rises; cdf (S,) does not fall, is above 0 and ends with 1.
    """

    ms: tuple[int, ...]
    cdf: tuple[float, ...]

    def __post_init__(self) -> None:
        steps, shares = np.diff(self.ms), np.array(self.cdf)
        fine = len(self.ms) == len(self.cdf) > 0 and (steps > 0).all() and self.ms[0] >= 0
        if not (fine and (shares > 0).all() and (np.diff(shares) >= 0).all() and shares[-1] == 1):
            raise TrainingError(
                f"no distribution of delays: {len(self.ms)} times, {len(self.cdf)} shares",
                where="delays",
                expected="times in ms that rise, as many shares above 0 that do not fall, the last of them 1",
            )

    def at(self, elapsed_ms: ArrayLike) -> Floats:
        """F of each time since the event."""
        place = np.searchsorted(np.array(self.ms), np.asarray(elapsed_ms), side="right")
        found: Floats = np.concatenate([[0.0], self.cdf])[place]
        return found

    def as_dict(self) -> dict[str, Any]:
        return {"ms": list(self.ms), "cdf": list(self.cdf)}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Self:
        """Raises TrainingError for what `as_dict` does not write."""
        try:
            return cls(tuple(int(each) for each in said["ms"]), tuple(float(each) for each in said["cdf"]))
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"delays cannot be read: {error}", where="delays", expected="ms and cdf") from error

    @classmethod
    def estimated(cls, delay_ms: ArrayLike, watched_ms: ArrayLike, weight: ArrayLike | None = None) -> Self | None:
        """Of positives (N,) that came after `delay_ms`, of events watched for `watched_ms` by now; None if too few.

        A young event shows its positive only if it came fast. So each positive counts only among the delays that
        its event was watched for: the product-limit estimator in reverse time (Lagakos, Barraj and De Gruttola 1988,
        Nonparametric analysis of truncated survival data). Beyond the longest delay nothing is known: F is 1 there.
        """
        delay, watched = np.asarray(delay_ms, np.int64), np.asarray(watched_ms, np.int64)
        weights = np.ones(len(delay)) if weight is None else np.asarray(weight, np.float64)
        seen = (delay >= 0) & (delay <= watched) & (weights > 0)
        if np.count_nonzero(seen) < ENOUGH:
            return None
        delay, watched, weights = delay[seen], watched[seen], weights[seen]
        times, place = np.unique(delay, return_inverse=True)
        came = np.bincount(place, weights)
        at_risk = _sum_to(delay, weights, times, "right") - _sum_to(watched, weights, times, "left")
        stays = np.clip(1 - came / np.maximum(at_risk, came), 0.0, 1.0)
        cdf = np.append(np.cumprod(stays[:0:-1])[::-1], 1.0)  # P(delay <= t): of each later time, that it was none
        return cls(*_steps(times, cdf))


def _sum_to(values: NDArray[np.int64], weights: Floats, times: NDArray[np.int64], side: Any) -> Floats:
    """(T,) weight of the values up to each time, or (side left) below it."""
    order = np.argsort(values)
    sums = np.concatenate([[0.0], np.cumsum(weights[order])])
    found: Floats = sums[np.searchsorted(values[order], times, side=side)]
    return found


def _steps(times: NDArray[np.int64], cdf: Floats) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """At most STEPS of them, each where another share has come; what is left out counts with the next."""
    times, cdf = times[cdf > 0], cdf[cdf > 0]
    keep = np.ones(len(cdf), np.bool_)
    if len(cdf) > STEPS:
        keep[:-1] = np.diff(np.floor(cdf * (STEPS - 2))) > 0  # the last before each new level
    return tuple(times[keep].tolist()), tuple(cdf[keep].tolist())


def arrived(examples: NDArray[np.void], delays: Delays) -> NDArray[np.float32]:
    """(N, C) of rows of `finetune.examples.layout`: F of what is silent, 1 of what somebody has said.

    Silence has lasted from the event until the newest label of all the rows: what came later would have revised it.
    """
    time, matured = examples["time"], examples["matured"]
    share = delays.at(np.maximum(matured, matured.max(initial=0)) - time).astype(np.float32)
    return np.where(examples["source"] == 0, share[:, None], np.float32(1))
