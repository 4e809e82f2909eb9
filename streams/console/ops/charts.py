"""Lines over time as SVG, made on the server: with bands where bounds are known, as steps, with moments pointed out.
Text keeps its size at any width: what must stretch is in an inner picture, what must not is placed in per cent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from streams.console.ops.chart_parts import chart_figure, svg, table
from streams.console.ops.scales import (
    extent,
    figure,
    known,
    moment_label,
    tick_labels,
    ticks,
    time_ticks,
    utc,
)

Values = Sequence[float | None]

WIDE, HIGH, TOP, BELOW, AXIS = 1000, 140, 8, 22, 44  # inner units; pixels
COLOURS = 6
TABLE_ROWS = 60


@dataclass(frozen=True, slots=True)
class Series:
    """values: one for each x; None where there is none. low, high: the band, where bounds are known."""

    name: str
    values: Values
    low: Values | None = None
    high: Values | None = None


@dataclass(frozen=True, slots=True)
class LineChart:
    """key: unique on the page. x: UTC ms, rising. unit: /s, ms, s, % (values 0 to 1) or none. marks: moments to
    point out, with words. floor: a value that the axis holds whatever comes; None: only what comes."""

    key: str
    title: str
    x: Sequence[float]
    series: Sequence[Series]
    unit: str = ""
    step: bool = False
    floor: float | None = 0.0
    note: str = ""
    marks: Sequence[tuple[float, str]] = ()
    empty: str = "Nothing has been measured yet."

    @property
    def blank(self) -> bool:
        return not any(known(value) for each in self.series for value in each.values)


@dataclass(slots=True)
class _Plane:
    """From values to places: x in inner units and per cent, y in pixels from the top of the inner picture."""

    start: float
    end: float
    low: float
    high: float
    lines: list[float] = field(default_factory=list)

    def x(self, at: float) -> float:
        return WIDE * (at - self.start) / ((self.end - self.start) or 1.0)

    def y(self, value: float) -> float:
        return HIGH * (1 - (value - self.low) / ((self.high - self.low) or 1.0))

    def percent(self, at: float) -> str:
        return f"{self.x(at) * 100 / WIDE:.2f}%"


def line_chart(chart: LineChart) -> Markup:
    """The figure whole: caption, picture, legend, table."""
    return chart_figure(chart.key, chart.title, chart.note, plot(chart), line_table(chart))


def plot(chart: LineChart) -> Markup:
    """The legend and the picture alone: what a live page replaces."""
    if chart.blank:
        return Markup('<p class="chart-empty">{}</p>').format(chart.empty)
    return _legend(chart) + _picture(chart)


def _picture(chart: LineChart) -> Markup:
    plane = _plane(chart)
    numbered = list(enumerate(chart.series))
    inner = Markup("").join(_band(plane, chart, *each) + _path(plane, chart, *each) for each in numbered)
    grid = Markup("").join(
        Markup('<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>').format(y=f"{TOP + plane.y(value):.1f}")
        for value in plane.lines
    )
    marks = Markup("").join(
        Markup('<line class="mark" x1="{x}" x2="{x}" y1="{top}" y2="{low}"><title>{text}</title></line>').format(
            x=plane.percent(at), top=TOP, low=TOP + HIGH, text=text
        )
        for at, text in chart.marks
        if plane.start <= at <= plane.end
    )
    height = TOP + HIGH + BELOW
    content = grid + marks + _stretched(inner) + _moments(plane, height - 6)
    picture = svg(chart.key, chart.title, described(chart), height, content)
    return Markup('<div class="plot-row">{}{}</div>').format(_axis(plane, chart.unit, height), picture)


def _axis(plane: _Plane, unit: str, height: int) -> Markup:
    """Left of the picture, so that no line runs through a number."""
    labels = Markup("").join(
        Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
            AXIS - 6, f"{TOP + plane.y(value) + 4:.1f}", text
        )
        for value, text in zip(plane.lines, tick_labels(plane.lines, unit), strict=True)
    )
    return Markup('<svg class="axis" width="{}" height="{}" aria-hidden="true">{}</svg>').format(AXIS, height, labels)


def _plane(chart: LineChart) -> _Plane:
    bounds = [value for each in chart.series for part in (each.low, each.high) for value in part or ()]
    values = [value for each in chart.series for value in each.values]
    low, high = extent([*values, *bounds], floor=chart.floor) or (0.0, 1.0)
    lines = ticks(low, high)
    return _Plane(chart.x[0], chart.x[-1], lines[0], lines[-1], lines)


def _stretched(inner: Markup) -> Markup:
    return Markup(
        '<svg x="0" y="{}" width="100%" height="{}" viewBox="0 0 {} {}" preserveAspectRatio="none" '
        'aria-hidden="true" class="stretched">{}</svg>'
    ).format(TOP, HIGH, WIDE, HIGH, inner)


def _moments(plane: _Plane, y: int) -> Markup:
    placed = []
    for at, text in time_ticks(plane.start, plane.end):
        place = plane.x(at) / WIDE
        anchor = "start" if place < 0.08 else "end" if place > 0.92 else "middle"
        placed.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                plane.percent(at), y, anchor, text
            )
        )
    return Markup("").join(placed)


def runs(values: Values) -> list[range]:
    """Stretches of places where something is known."""
    found: list[range] = []
    start: int | None = None
    for place, value in enumerate([*values, None]):
        if known(value):
            start = place if start is None else start
        elif start is not None:
            found.append(range(start, place))
            start = None
    return found


def _path(plane: _Plane, chart: LineChart, number: int, series: Series) -> Markup:
    parts = []
    for run in runs(series.values):
        points = [(plane.x(chart.x[place]), plane.y(series.values[place] or 0.0)) for place in run]
        parts.append(_steps(points) if chart.step else joined(points))
    return Markup('<path class="line s{}" d="{}"/>').format(number % COLOURS + 1, "".join(parts)) if parts else Markup()


def joined(points: Sequence[tuple[float, float]]) -> str:
    """One point alone is a line of no length: its round end shows it."""
    (x, y), *rest = points
    return f"M{x:.1f} {y:.1f}" + ("".join(f"L{x:.1f} {y:.1f}" for x, y in rest) or "h0")


def _steps(points: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = points
    return f"M{x:.1f} {y:.1f}" + ("".join(f"H{x:.1f}V{y:.1f}" for x, y in rest) or "h0")


def _band(plane: _Plane, chart: LineChart, number: int, series: Series) -> Markup:
    low, high = series.low, series.high
    if low is None or high is None:
        return Markup()
    both = [a if known(b) else None for a, b in zip(low, high, strict=True)]
    parts = []
    for run in runs(both):
        up = [(plane.x(chart.x[place]), plane.y(high[place] or 0.0)) for place in run]
        down = [(plane.x(chart.x[place]), plane.y(low[place] or 0.0)) for place in reversed(run)]
        parts.append(joined([*up, *down]) + "Z")
    return Markup('<path class="band s{}" d="{}"/>').format(number % COLOURS + 1, "".join(parts)) if parts else Markup()


def _legend(chart: LineChart) -> Markup:
    items = Markup("").join(
        Markup(
            '<li><svg class="swatch" width="20" height="8" aria-hidden="true">'
            '<line class="line s{}" x1="1" x2="19" y1="4" y2="4"/></svg>{} <b>{}</b></li>'
        ).format(number % COLOURS + 1, each.name, figure(_last(each.values), chart.unit))
        for number, each in enumerate(chart.series)
        if any(map(known, each.values))
    )
    return Markup('<ul class="legend">{}</ul>').format(items)


def _last(values: Values) -> float | None:
    return values[-1] if len(values) else None


def described(chart: LineChart) -> str:
    """What the picture shows, in words: the span, and of each line its newest, smallest and largest value."""
    said = [f"From {utc(chart.x[0])} to {utc(chart.x[-1])} UTC."]
    for each in chart.series:
        if (found := extent(each.values)) is None:
            continue
        low, high = (figure(value, chart.unit) for value in found)
        now = _last(each.values)
        said.append(f"{each.name}: now {figure(now, chart.unit) if known(now) else 'not known'}, {low} to {high}.")
    said += [f"{moment_label(at, 1)}: {text}." for at, text in chart.marks]
    return " ".join(said)


def line_table(chart: LineChart) -> Markup:
    if chart.blank:
        return Markup()
    every = -(-len(chart.x) // TABLE_ROWS)
    places = sorted(range(len(chart.x) - 1, -1, -every))
    banded = [each for each in chart.series if each.low is not None and each.high is not None]
    heads = ["UTC", *(each.name for each in chart.series), *(f"{each.name}, bounds" for each in banded)]
    rows = [
        [
            utc(chart.x[place]),
            *(figure(each.values[place], chart.unit) for each in chart.series),
            *(_bounds((each.low or ())[place], (each.high or ())[place], chart.unit) for each in banded),
        ]
        for place in places
    ]
    thinned = f"One of {every} points." if every > 1 else ""
    return table(chart.title, heads, rows, thinned)


def _bounds(low: float | None, high: float | None, unit: str) -> str:
    return f"{figure(low, unit)} to {figure(high, unit)}" if known(low) and known(high) else figure(None)
