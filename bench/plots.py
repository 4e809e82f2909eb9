"""Curves of a benchmark as one picture, a panel for each quantity. Without matplotlib (in the `bench` extra) none is
made, and nothing else changes.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

INK, GRID = "#1d4ed8", "#d1d5db"
WIDE, HIGH, DPI = 5.0, 2.6, 110

Panel = tuple[str, Mapping[str, Sequence[float]]]
"""Title with its unit, and lines by name; one of no name needs no legend."""


def draw(
    path: Path, title: str, x: Sequence[float], x_name: str, panels: Sequence[Panel], *, log_x: bool = False
) -> Path | None:
    """Writes a PNG (or what else the path's suffix says); returns where, or None where there is no library for it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    rows = (len(panels) + 1) // 2
    figure: Any = Figure(figsize=(2 * WIDE, rows * HIGH + 0.4), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    for number, (name, lines) in enumerate(panels):
        axes = figure.add_subplot(rows, 2, number + 1)
        for label, values in lines.items():
            axes.plot(x, values, label=label or None, color=INK if not label else None, linewidth=1.2, marker=_mark(x))
        axes.set_title(name, fontsize=8, loc="left")
        axes.set_ylim(0, 1.15 * _most(lines) or 1)
        if log_x:
            axes.set_xscale("log")
        axes.set_xlabel(x_name, fontsize=7)
        axes.tick_params(labelsize=7)
        axes.grid(color=GRID, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        if any(lines):
            axes.legend(fontsize=7, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _most(lines: Mapping[str, Sequence[float]]) -> float:
    """A window without events has no quantiles: NaN, which is a gap."""
    return max((value for values in lines.values() for value in values if math.isfinite(value)), default=0.0)


def _mark(x: Sequence[float]) -> str:
    """Few points are shown as such."""
    return "o" if len(x) < 12 else ""
