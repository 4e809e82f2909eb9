"""Where an axis has its ticks, and how a figure is written beside it: round numbers, times in UTC, one unit each.
Pure; a figure that is not there is None or NaN and is written as a dash, never as zero.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

NOTHING = "–"
LARGEST = 1e15
COUNTED = "records"  # there is no half of one, also in a mean
ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
TIME_STEPS_MS = (
    *(SECOND_MS * n for n in (1, 2, 5, 10, 15, 30)),
    *(MINUTE_MS * n for n in (1, 2, 5, 10, 15, 30)),
    *(HOUR_MS * n for n in (1, 2, 3, 6, 12)),
    *(DAY_MS * n for n in (1, 2, 7, 14, 28, 91, 182, 364)),
)


def known(value: float | None) -> bool:
    """Finite, and of a size that an axis can have."""
    return value is not None and abs(value) <= LARGEST


def extent(values: Iterable[float | None], *, floor: float | None = None) -> tuple[float, float] | None:
    """The smallest and the largest of what is known; `floor` is inside. None where nothing is known."""
    found = [value for value in values if value is not None and known(value)]
    if not found:
        return None
    low, high = min(found), max(found)
    if floor is not None:
        low, high = min(low, floor), max(high, floor)
    return low, high


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """At most `most` + 1 round numbers, evenly spaced, the first at or below `low` and the last at or above `high`."""
    if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < 1e-9:
        high = low + max(abs(low), 1.0)
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    for times in (*ROUND, 20.0):
        step = times * power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            break
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def time_ticks(start_ms: float, end_ms: float, most: int = 4) -> list[tuple[float, str]]:
    """At most `most` round moments within the span, each with its label: a time of day, or a day over long spans."""
    span = max(end_ms - start_ms, 1.0)
    longest = TIME_STEPS_MS[-1]
    steps = (*TIME_STEPS_MS, longest * math.ceil(span / longest / most))
    step = next(step for step in steps if span / step <= most)
    first = math.ceil(start_ms / step)
    moments = [number * step for number in range(first, math.floor(end_ms / step) + 1)]
    return [(moment, moment_label(moment, step)) for moment in moments[:most]]


def moment_label(at_ms: float, step_ms: float) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    if step_ms < MINUTE_MS:
        return at.strftime("%H:%M:%S")
    return at.strftime("%H:%M") if step_ms < DAY_MS else at.strftime("%d %b %Y").lstrip("0")


def utc(at_ms: float | None) -> str:
    """A moment for a table: `2026-01-31 12:30:05`."""
    if at_ms is None or not math.isfinite(at_ms) or abs(at_ms) > 2e14:
        return NOTHING
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def since(at_ms: float, now_ms: float) -> str:
    """How long ago, in the largest unit that says something: `40 s`, `12 min`, `3 h`, `5 days`."""
    return duration(max(0.0, now_ms - at_ms) / 1000)


def duration(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if abs(seconds) >= 10 else f"{seconds:.1f} s"


def figure(value: float | None, unit: str = "") -> str:
    """A number of three digits or so, thousands apart, with its unit; a share with unit % is given as 0 to 1."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:,.0f}" if unit == COUNTED else plain(100 * value if unit == "%" else value)
    return text if not unit else f"{text}{'' if unit == '%' or unit.startswith('/') else ' '}{unit}"


def plain(number: float) -> str:
    size = abs(number)
    if number == 0 or size >= 100 or (number == round(number) and size >= 1):
        return f"{number:,.0f}"
    digits = 1 if size >= 10 else 2 if size >= 1 else min(6, 2 - math.floor(math.log10(size)))
    text = f"{number:,.{digits}f}"
    return (text.rstrip("0").rstrip(".") or "0") if size < 1 else text


def tick_labels(values: Sequence[float], unit: str = "") -> list[str]:
    """Short ones for an axis, all with the same number of decimals: as many as tell them apart."""
    scale, suffix = (0.01, "%") if unit == "%" else _thousands(max(map(abs, values), default=0.0))
    scaled = [value / scale for value in values]
    digits = 0
    while digits < 6 and any(abs(round(value, digits) - value) > 1e-9 * max(1.0, abs(value)) for value in scaled):
        digits += 1
    return [f"{value:,.{digits}f}{suffix if value or unit == '%' else ''}" for value in scaled]


def _thousands(largest: float) -> tuple[float, str]:
    return next(((size, name) for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if largest >= 10 * size), (1, ""))
