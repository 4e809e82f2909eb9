"""What a run with release swaps comes to: events beside their scores, windows beside each other, and what grew.
It asks nobody: it is given stamps, and the lines of a metrics page.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.latency import quantiles
from bench.testbed import say

PARTS = ("build", "warm", "shadow", "flip")


@dataclass(slots=True)
class Swapped:
    """One swap. `began`: the pointer was written, `flipped`: seen live, `ended`: the window's end; s since 1970."""

    task: str
    began: float
    flipped: float
    ended: float
    quiet_s: float
    cores_before: float = 0.0
    cores: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    rss_mb: float = 0.0
    threads: int = 0
    files: int = 0

    @property
    def before(self) -> float:
        """Where the quiet window begins that the swap's is compared with: as long, where there was as much quiet."""
        return self.began - min(self.quiet_s, self.ended - self.began)


@dataclass(frozen=True, slots=True)
class Scored:
    """Every event and its first score: seconds at which each came to the broker, and what was wrong with any."""

    came: NDArray[np.float64]
    scored: NDArray[np.float64]
    missing: int
    repeated: int
    fallbacks: int

    def window(self, start: float, end: float) -> dict[str, float]:
        """Quantiles in ms of the events that came in it; an event without a score is infinitely late."""
        inside = (self.came >= start) & (self.came < end)
        if not inside.any():
            return dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "max_ms"), float("nan"))
        return quantiles(1e3 * (self.scored[inside] - self.came[inside]))


def scored(events: Mapping[str, float], scores: Sequence[tuple[str, float, bool]]) -> Scored:
    """Events are stamps (s) by event_id; each must have one score, and none of a fallback's."""
    first: dict[str, float] = {}
    for ident, at, _ in scores:
        first[ident] = min(at, first.get(ident, np.inf))
    times = Counter(ident for ident, _, _ in scores)
    return Scored(
        came=np.array(list(events.values())),
        scored=np.array([first.get(ident, np.inf) for ident in events]),
        missing=sum(ident not in first for ident in events),
        repeated=sum(number - 1 for number in times.values()),
        fallbacks=sum(fell for _, _, fell in scores),
    )


def measured(swaps: Sequence[Swapped], found: Scored) -> dict[str, Any]:
    """The median swap: p99 in its window over p99 in the quiet one before it."""
    pairs = [(found.window(swap.before, swap.began), found.window(swap.began, swap.ended)) for swap in swaps]
    ratios = [inside["p99_ms"] / before["p99_ms"] for before, inside in pairs]
    for swap, (before, inside), ratio in zip(swaps, pairs, ratios, strict=True):
        say(f"{swap.task}: p99 {before['p99_ms']:.0f} -> {inside['p99_ms']:.0f} ms, {ratio:.2f}")
    return {
        "ratio": median(ratios), "worst_ratio": max(ratios), **checked(found),
        "p50_before_ms": median(before["p50_ms"] for before, _ in pairs),
        "p50_ms": median(inside["p50_ms"] for _, inside in pairs),
        "p99_before_ms": median(before["p99_ms"] for before, _ in pairs),
        "p99_ms": median(inside["p99_ms"] for _, inside in pairs),
        "max_ms": max(inside["max_ms"] for _, inside in pairs),
        **typical(swaps), "worker_cores_before": median(swap.cores_before for swap in swaps),
    }  # fmt: skip


def typical(swaps: Sequence[Swapped]) -> dict[str, float]:
    """Of the median swap: seconds to live, seconds by part, cores while it went on."""
    return {
        "live_s": median(swap.flipped - swap.began for swap in swaps),
        **{f"{part}_s": median(swap.parts.get(part, 0.0) for swap in swaps) for part in PARTS},
        "worker_cores": median(swap.cores for swap in swaps),
    }


def soaked(swaps: Sequence[Swapped], found: Scored) -> dict[str, Any]:
    """Whether anything grows: the first tenth of the swaps beside the last."""
    tenth = max(1, len(swaps) // 10)
    figures: dict[str, Any] = {**checked(found), **typical(swaps)}
    for name, some in (("first", swaps[:tenth]), ("last", swaps[-tenth:])):
        window = found.window(some[0].began, some[-1].ended)
        figures |= {
            f"{name}_p50_ms": window["p50_ms"], f"{name}_p99_ms": window["p99_ms"],
            f"{name}_live_s": median(swap.flipped - swap.began for swap in some),
            f"{name}_rss_mb": median(swap.rss_mb for swap in some),
            f"{name}_threads": median(swap.threads for swap in some),
            f"{name}_files": median(swap.files for swap in some),
        }  # fmt: skip
    half = swaps[len(swaps) // 2 :]
    return {**figures, "rss_kb_per_swap": 1e3 * slope([swap.rss_mb for swap in half])}


def slope(values: Sequence[float]) -> float:
    """Growth from one to the next: least squares."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 1 else 0.0


def checked(found: Scored) -> dict[str, int]:
    return {"events": len(found.came), "missing": found.missing, "repeated": found.repeated,
            "fallbacks": found.fallbacks}  # fmt: skip


def labelled(page: Sequence[str], name: str, task: str, label: str) -> dict[str, float]:
    """A metric's values of a task by another of its labels."""
    found = {}
    for line in page:
        if line.startswith(f"{name}{{") and f'task="{task}"' in line:
            labels, value = line[len(name) + 1 :].split("} ")
            named = dict(part.split("=") for part in labels.split(","))
            found[named[label].strip('"')] = float(value)
    return found


def parts(page: Sequence[str], task: str) -> dict[str, float]:
    """Seconds of each part of the task's newest swap."""
    return labelled(page, "headrace_swap_seconds", task, "part")


def went(page: Sequence[str], task: str) -> Counter[str]:
    """How many of the task's swaps ended how."""
    return Counter({key: int(value) for key, value in labelled(page, "headrace_swaps_total", task, "result").items()})
