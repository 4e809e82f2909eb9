"""Charts with a row for each thing: bars, values with their bounds, what was live when, and a sparkline in a table.
Places along a row are in per cent, so that a row is as wide as the page lets it be.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from streams.console.ops.chart_parts import chart_figure, svg, table
from streams.console.ops.charts import joined, runs
from streams.console.ops.scales import extent, figure, known, tick_labels, ticks, time_ticks, utc

Place = Callable[[float], float]

ROW, LABEL, FOOT = 40, 15, 22  # pixels: a row with its name above it
SPARK_WIDE, SPARK_HIGH = 100, 24


@dataclass(frozen=True, slots=True)
class Row:
    """low, high: bounds of `value`. tone: good, bad, warn or empty, beside a word that says the same."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    tone: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    """What lasted from when to when (UTC ms), and moments in the same lane, each with its word."""

    name: str
    spans: Sequence[tuple[float, float]] = ()
    moments: Sequence[tuple[float, str]] = ()


def bars(key: str, title: str, rows: Sequence[Row], unit: str = "", note: str = "", empty: str = "") -> Markup:
    """Each from zero to its value."""
    found = extent((row.value for row in rows), floor=0.0)
    if found is None:
        return chart_figure(key, title, note, _nothing(empty), Markup())
    low, high = found
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return 100 * (value - low) / span

    content = Markup("").join(_bar(number, row, place, unit) for number, row in enumerate(rows))
    return _rows(key, title, note, rows, unit, len(rows) * ROW, content)


def _bar(number: int, row: Row, place: Place, unit: str) -> Markup:
    top = number * ROW
    picture = _named(top, row.name, figure(row.value, unit))
    if row.value is None or not known(row.value):
        return picture
    left, right = sorted((place(0.0), place(row.value)))
    return picture + Markup('<rect class="bar-value {}" x="{}%" y="{}" width="{}%" height="10" rx="2"/>').format(
        row.tone, f"{left:.2f}", top + LABEL + 6, f"{max(right - left, 0.3):.2f}"
    )


def intervals(
    key: str,
    title: str,
    rows: Sequence[Row],
    unit: str = "",
    note: str = "",
    *,
    at: float | None = None,
    empty: str = "",
) -> Markup:
    """Each a point within its bounds, on one axis. at: a value to compare all with, drawn as a line."""
    values = [value for row in rows for value in (row.value, row.low, row.high)]
    found = extent([*values, at])
    if extent(values) is None or found is None:
        return chart_figure(key, title, note, _nothing(empty), Markup())
    lines = ticks(*found)
    low, span = lines[0], (lines[-1] - lines[0]) or 1.0

    def place(value: float) -> float:
        return 1.5 + 97 * (value - low) / span

    height = len(rows) * ROW + FOOT
    content = _axis(lines, unit, place, height)
    if at is not None:
        content += Markup('<line class="mark" x1="{x}%" x2="{x}%" y1="0" y2="{y}"/>').format(
            x=f"{place(at):.2f}", y=height - FOOT
        )
    content += Markup("").join(_interval(number, row, place, unit) for number, row in enumerate(rows))
    return _rows(key, title, note, rows, unit, height, content)


def _interval(number: int, row: Row, place: Place, unit: str) -> Markup:
    top = number * ROW
    y = top + LABEL + 11
    picture = _named(top, row.name, figure(row.value, unit))
    if row.low is not None and row.high is not None and known(row.low) and known(row.high):
        picture += Markup('<line class="whisker {}" x1="{}%" x2="{}%" y1="{y}" y2="{y}"/>').format(
            row.tone, f"{place(row.low):.2f}", f"{place(row.high):.2f}", y=y
        )
    if row.value is not None and known(row.value):
        picture += Markup('<circle class="dot {}" cx="{}%" cy="{}" r="5"/>').format(
            row.tone, f"{place(row.value):.2f}", y
        )
    return picture


def lanes(
    key: str, title: str, rows: Sequence[Lane], start: float, end: float, note: str = "", empty: str = ""
) -> Markup:
    """What lasted when, a row each: the newest on top is the caller's order."""
    if not rows:
        return chart_figure(key, title, note, _nothing(empty), Markup())
    span = (end - start) or 1.0

    def place(at: float) -> float:
        return 99 * min(max((at - start) / span, 0.0), 1.0)

    height = len(rows) * ROW + FOOT
    content = Markup("").join(_lane(number, row, place) for number, row in enumerate(rows))
    content += Markup("").join(_tick(place(at), text, height - 6) for at, text in time_ticks(start, end))
    said = " ".join(_lane_said(row) for row in rows)
    spans = [
        [row.name, utc(begin), utc(until), ""] for row in rows for begin, until in row.spans
    ] + [[row.name, utc(at), "", word] for row in rows for at, word in row.moments]  # fmt: skip
    data = table(title, ("release", "from (UTC)", "until (UTC)", "what"), spans)
    return chart_figure(key, title, note, svg(key, title, said, height, content), data)


def _lane(number: int, row: Lane, place: Place) -> Markup:
    top = number * ROW
    y = top + LABEL + 5
    picture = _named(top, row.name, "")
    for begin, until in row.spans:
        wide = max(place(until) - place(begin), 0.5)
        picture += Markup('<rect class="lane" x="{}%" y="{}" width="{}%" height="12" rx="3"/>').format(
            f"{place(begin):.2f}", y, f"{wide:.2f}"
        )
    for at, word in row.moments:
        picture += Markup('<circle class="dot moment" cx="{}%" cy="{}" r="5"><title>{}</title></circle>').format(
            f"{0.7 + place(at):.2f}", y + 6, word
        )
    return picture


def _lane_said(row: Lane) -> str:
    spans = [f"live from {utc(begin)} to {utc(until)}" for begin, until in row.spans]
    return f"{row.name}: {', '.join([*spans, *(f'{word} at {utc(at)}' for at, word in row.moments)])}."


def sparkline(values: Sequence[float | None], words: str) -> Markup:
    """A line for a row of a table; `words` say what it shows, as it has no axis."""
    found = extent(values, floor=0.0)
    if found is None:
        return Markup('<span class="hint">{}</span>').format(figure(None))
    low, span = found[0], (found[1] - found[0]) or 1.0
    every, high = SPARK_WIDE / max(len(values) - 1, 1), SPARK_HIGH - 2

    def place(number: int) -> tuple[float, float]:
        return number * every, high + 1 - high * ((values[number] or 0.0) - low) / span

    path = "".join(joined([place(number) for number in run]) for run in runs(values))
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path class="line s1" d="{}"/></svg>'
    ).format(SPARK_WIDE, SPARK_HIGH, words, path)


def _rows(key: str, title: str, note: str, rows: Sequence[Row], unit: str, height: int, content: Markup) -> Markup:
    bounded = any(row.low is not None for row in rows)
    heads = ("", "value", *(("lower bound", "upper bound") if bounded else ()), "note")
    cells = [
        [
            row.name,
            figure(row.value, unit),
            *((figure(row.low, unit), figure(row.high, unit)) if bounded else ()),
            row.note,
        ]
        for row in rows
    ]
    said = " ".join(f"{row.name}: {figure(row.value, unit)}{_between(row, unit)}." for row in rows)
    return chart_figure(key, title, note, svg(key, title, said, height, content), table(title, heads, cells))


def _between(row: Row, unit: str) -> str:
    return (
        f", between {figure(row.low, unit)} and {figure(row.high, unit)}" if known(row.low) and known(row.high) else ""
    )


def _named(top: int, name: str, value: str) -> Markup:
    return Markup(
        '<text class="row-name" x="0" y="{y}">{name}</text><text class="row-value" x="100%" y="{y}" text-anchor="end">'
        "{value}</text>"
    ).format(y=top + LABEL, name=name, value=value)


def _axis(lines: Sequence[float], unit: str, place: Place, height: int) -> Markup:
    parts = Markup("")
    for value, text in zip(lines, tick_labels(lines, unit), strict=True):
        parts += Markup('<line class="grid" x1="{x}%" x2="{x}%" y1="0" y2="{y}"/>').format(
            x=f"{place(value):.2f}", y=height - FOOT
        )
        parts += _tick(place(value), text, height - 6)
    return parts


def _tick(percent: float, text: str, y: int) -> Markup:
    anchor = "start" if percent < 8 else "end" if percent > 92 else "middle"
    return Markup('<text class="tick" x="{}%" y="{}" text-anchor="{}">{}</text>').format(
        f"{percent:.2f}", y, anchor, text
    )


def _nothing(text: str) -> Markup:
    return Markup('<p class="chart-empty">{}</p>').format(text or "Nothing has been measured yet.")
