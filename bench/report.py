"""The one line of JSON that a benchmark prints: its figures, its targets, and which of them were missed.
Every target is an upper bound of the figure of the same name, so that a reader needs no key to it.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

DIGITS = 2


def report(
    bench: str, figures: Mapping[str, Any], targets: Mapping[str, float] | None = None, digits: int = DIGITS
) -> dict[str, Any]:
    """What is printed. A target whose figure is not there is missed: a benchmark that skipped a part did not pass."""
    targets = targets or {}
    missed = [name for name, most in targets.items() if not figures.get(name, float("inf")) <= most]
    return {"bench": bench, **rounded(figures, digits), "targets": dict(targets), "missed": missed}


def rounded(figures: Mapping[str, Any], digits: int = DIGITS) -> dict[str, Any]:
    return {name: round(value, digits) if isinstance(value, float) else value for name, value in figures.items()}


def machine() -> dict[str, Any]:
    """What the figures stand on: cores, and how many processes wanted them over the last minute."""
    return {"cores": os.cpu_count() or 0, "load_1m": os.getloadavg()[0]}


def show(
    bench: str, figures: Mapping[str, Any], targets: Mapping[str, float] | None = None, digits: int = DIGITS
) -> dict[str, Any]:
    """Prints the line; returns what is in it."""
    made = report(bench, {**figures, **machine()}, targets, digits)
    print(json.dumps(made), flush=True)
    return made
