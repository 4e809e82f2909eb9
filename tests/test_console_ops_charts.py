"""Charts: round ticks that hold all that is shown, gaps where nothing is known, words for who cannot see them."""

import math
import xml.etree.ElementTree as ET
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from streams.console.ops.charts import TABLE_ROWS, LineChart, Series, described, line_chart, plot, runs
from streams.console.ops.row_charts import Lane, Row, bars, intervals, lanes, sparkline
from streams.console.ops.scales import (
    NOTHING,
    TIME_STEPS_MS,
    duration,
    extent,
    figure,
    known,
    tick_labels,
    ticks,
    time_ticks,
    utc,
)

NOON_MS = 1_700_000_000_000
numbers = st.floats(-1e12, 1e12, allow_nan=False)
values = st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)), min_size=2, max_size=40)


def parsed(markup: Markup) -> ET.Element:
    """As well-formed XML: what a browser mends is still a mistake."""
    return ET.fromstring(f"<root>{markup}</root>")


def found(markup: Markup, tag: str, **attributes: str) -> list[ET.Element]:
    return [
        each for each in parsed(markup).iter(tag)
        if all(each.get(name.rstrip("_").replace("_", "-")) == value for name, value in attributes.items())
    ]  # fmt: skip


def chart(*series: Series, **fields: Any) -> LineChart:
    length = len(series[0].values) if series else 2
    x = [NOON_MS + 60_000 * number for number in range(length)]
    return LineChart(**{"key": "k", "title": "Rate", "x": x, "series": series, "unit": "/s", **fields})


@given(numbers, numbers)
def test_ticks_are_few_even_and_hold_both_ends(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    lines = ticks(low, high)
    assert 2 <= len(lines) <= 6
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert lines[0] <= low + slack
    assert lines[-1] >= high - slack
    steps = [b - a for a, b in pairwise(lines)]
    assert all(step > 0 for step in steps)
    assert max(steps) - min(steps) <= 1e-3 * max(steps) + slack


def test_ticks_are_round_numbers() -> None:
    assert ticks(0, 97) == [0, 25, 50, 75, 100]
    assert ticks(0, 3.4) == [0, 1, 2, 3, 4]
    assert ticks(0.9, 0.97) == [0.9, 0.92, 0.94, 0.96, 0.98]
    assert ticks(5, 5)[0] <= 5 < ticks(5, 5)[-1]


def test_labels_of_an_axis_have_as_many_decimals_as_tell_them_apart() -> None:
    assert tick_labels([0, 25, 50]) == ["0", "25", "50"]
    assert tick_labels([0, 0.5, 1]) == ["0.0", "0.5", "1.0"]
    assert tick_labels([0, 5_000]) == ["0", "5,000"]
    assert tick_labels([0, 20_000, 40_000]) == ["0", "20k", "40k"]
    assert tick_labels([0, 500_000, 1_000_000]) == ["0", "500k", "1,000k"]
    assert tick_labels([0, 25_000_000]) == ["0", "25M"]
    assert tick_labels([0, 0.25], "%") == ["0%", "25%"]


@given(st.integers(0, 4_000_000_000_000), st.integers(1, 10**13))
def test_moments_of_an_axis_are_few_rise_and_lie_within_it(start: int, span: int) -> None:
    told = time_ticks(start, start + span)
    assert len(told) <= 4
    at = [moment for moment, _ in told]
    assert at == sorted(set(at))
    assert all(start <= moment <= start + span for moment in at)


def test_moments_are_told_by_the_clock_and_over_long_spans_by_the_day() -> None:
    five_minutes = time_ticks(NOON_MS, NOON_MS + 300_000)
    assert all(len(text) == 5 and moment % 60_000 == 0 for moment, text in five_minutes)
    assert five_minutes
    ninety_days = time_ticks(NOON_MS, NOON_MS + 90 * 86_400_000)
    assert all("Nov" in text or "Dec" in text or "Jan" in text or "Feb" in text for _, text in ninety_days)
    assert ninety_days
    assert tuple(sorted(TIME_STEPS_MS)) == TIME_STEPS_MS


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "/s", NOTHING),
        (math.nan, "", NOTHING),
        (math.inf, "ms", NOTHING),
        (0.0, "/s", "0/s"),
        (1234.4, "/s", "1,234/s"),
        (12.34, "ms", "12.3 ms"),
        (1.234, "ms", "1.23 ms"),
        (0.0123, "", "0.0123"),
        (0.5, "", "0.5"),
        (0.256, "%", "25.6%"),
        (2.7, "records", "3 records"),
    ],
)
def test_a_figure_has_its_unit_and_what_is_not_known_is_a_dash(value: float | None, unit: str, text: str) -> None:
    assert figure(value, unit) == text


def test_times_and_durations_are_for_people() -> None:
    assert utc(NOON_MS) == "2023-11-14 22:13:20"
    assert utc(None) == utc(math.nan) == utc(1e300) == NOTHING
    assert [duration(s) for s in (3, 42, 200, 9_000, 900_000)] == ["3.0 s", "42 s", "3 min", "2 h", "10 days"]


@given(values)
def test_what_is_no_number_leaves_a_gap_and_never_breaks_a_chart(row: list[float | None]) -> None:
    markup = line_chart(chart(Series("a", row)))
    assert "nan" not in str(markup).lower().replace("unansw", "")
    assert "inf" not in str(markup)
    paths = found(markup, "path", class_="line s1")
    pieces = sum(path.get("d", "").count("M") for path in paths)
    assert pieces == len(runs(row))


def test_a_gap_is_a_gap_and_not_a_line_to_zero() -> None:
    (path,) = found(plot(chart(Series("a", [4.0, 4.0, None, 4.0, 4.0]))), "path", class_="line s1")
    assert path.get("d", "").count("M") == 2
    heights = {part.split()[-1] for part in path.get("d", "").split("M")[1:]}
    assert heights == {"0.0"}  # on top, as 4 of 4 is: none of them goes down


def test_a_point_alone_is_drawn() -> None:
    (path,) = found(plot(chart(Series("a", [None, 2.0, None]))), "path", class_="line s1")
    assert path.get("d", "").endswith("h0")


def test_a_step_goes_across_and_then_up() -> None:
    (path,) = found(plot(chart(Series("a", [1.0, 2.0]), step=True)), "path", class_="line s1")
    assert "H" in path.get("d", "")
    assert "L" not in path.get("d", "")


def test_a_band_is_drawn_where_both_bounds_are_known() -> None:
    row = Series("a", [1.0, 1.0, 1.0], [0.5, None, 0.5], [1.5, 1.5, 1.5])
    (band,) = found(plot(chart(row)), "path", class_="band s1")
    assert band.get("d", "").count("Z") == 2
    assert not found(plot(chart(Series("a", [1.0, 1.0]))), "path", class_="band s1")


def test_bounds_belong_on_the_axis() -> None:
    low = plot(chart(Series("a", [1.0, 1.0], [0.0, 0.0], [40.0, 40.0])))
    assert any(text.text == "40" for text in found(low, "text"))


def test_a_chart_says_in_words_what_it_shows() -> None:
    said = described(chart(Series("orders", [3.0, 9.0, 6.0]), Series("clicks", [1.0, 2.0, None])))
    assert "From 2023-11-14 22:13:20 to 2023-11-14 22:15:20 UTC." in said
    assert "orders: now 6/s, 3/s to 9/s." in said
    assert "clicks: now not known, 1/s to 2/s." in said


def test_a_chart_is_named_and_described_for_who_cannot_see_it() -> None:
    markup = line_chart(chart(Series("a", [1.0, 2.0])))
    (svg,) = found(markup, "svg", role="img")
    ids = {each.get("id"): each for each in parsed(markup).iter() if each.get("id")}
    title, text = (svg.get("aria-labelledby") or "").split()
    assert ids[title].text == "Rate"
    assert "now 2/s" in (ids[text].text or "")
    (table,) = found(markup, "table")
    assert [cell.text for cell in table.iter("td")] == ["1/s", "2/s"]


def test_a_long_series_has_a_table_that_can_be_read() -> None:
    markup = line_chart(chart(Series("a", [float(n) for n in range(500)])))
    rows = [row for row in found(markup, "tr") if row.find("td") is not None]
    assert len(rows) <= TABLE_ROWS
    assert [cell.text for cell in rows[-1].iter("td")] == ["499/s"]
    assert len(str(markup)) < 30_000


def test_where_nothing_is_known_that_is_said_and_no_axis_is_drawn() -> None:
    markup = line_chart(chart(Series("a", [None, math.nan]), empty="Nobody answers."))
    assert "Nobody answers." in markup
    assert not found(markup, "svg")
    assert not found(markup, "table")


def test_names_are_text_whatever_they_hold() -> None:
    evil = "<script>alert(1)</script>"
    row = Row(evil, 1.0, 0.5, 1.5, note=evil)
    for markup in (
        line_chart(chart(Series(evil, [1.0, 2.0]), title=evil, note=evil, marks=[(NOON_MS, evil)])),
        line_chart(chart(title=evil, empty=evil)),
        bars("k", evil, [row]),
        intervals("k", evil, [row]),
        lanes("k", evil, [Lane(evil, [(0.0, 1.0)], [(0.5, evil)])], 0.0, 1.0),
        sparkline([1.0, 2.0], evil),
    ):
        assert "<script" not in markup
        assert evil in "".join(parsed(markup).itertext()) + "".join(
            value for each in parsed(markup).iter() for value in each.attrib.values()
        )


def test_no_style_is_written_into_a_page_that_allows_none() -> None:
    row = Row("a", 1.0, 0.5, 1.5)
    for markup in (line_chart(chart(Series("a", [1.0, 2.0]))), bars("k", "t", [row]), intervals("k", "t", [row])):
        assert not [each for each in parsed(markup).iter() if "style" in each.attrib or each.tag == "style"]


def test_a_bar_is_as_long_as_its_share_of_the_longest() -> None:
    rects = found(bars("k", "t", [Row("a", 2.0), Row("b", 1.0), Row("c", None)], "s"), "rect")
    assert [rect.get("width") for rect in rects] == ["100.00%", "50.00%"]


def test_a_bar_below_zero_ends_at_zero() -> None:
    less, more = found(bars("k", "t", [Row("a", -1.0), Row("b", 1.0)]), "rect")
    assert (less.get("x"), less.get("width")) == ("0.00%", "50.00%")
    assert (more.get("x"), more.get("width")) == ("50.00%", "50.00%")


def test_an_interval_shows_value_bounds_and_what_it_is_compared_with() -> None:
    markup = intervals("k", "t", [Row("a", 0.1, -0.1, 0.3), Row("b", 0.2)], at=0.0)
    (whisker,) = found(markup, "line", class_="whisker ")
    points = [float((each.get("cx") or "").rstrip("%")) for each in found(markup, "circle")]
    left, right = (float((whisker.get(name) or "").rstrip("%")) for name in ("x1", "x2"))
    assert left < points[0] < right
    (mark,) = found(markup, "line", class_="mark")
    assert left < float((mark.get("x1") or "").rstrip("%")) < points[0]
    assert "a: 0.1, between -0.1 and 0.3." in "".join(parsed(markup).itertext())


def test_lanes_show_spans_and_moments_within_the_picture() -> None:
    markup = lanes("k", "t", [Lane("v1", [(0.0, 50.0)]), Lane("v2", [], [(75.0, "refused")])], 0.0, 100.0)
    (rect,) = found(markup, "rect")
    assert (rect.get("x"), rect.get("width")) == ("0.00%", "49.50%")
    (circle,) = found(markup, "circle")
    assert "".join(circle.itertext()) == "refused"


@given(st.lists(st.one_of(st.none(), numbers), max_size=20))
def test_a_sparkline_stays_in_its_box(row: list[float | None]) -> None:
    markup = sparkline(row, "words")
    if extent(row) is None:
        assert NOTHING in markup
        return
    (path,) = found(markup, "path")
    for part in (path.get("d") or "").replace("M", " ").replace("L", " ").replace("h0", "").split("  "):
        pairs = [float(number) for number in part.split()]
        assert all(-0.1 <= x <= 100.1 for x in pairs[::2])
        assert all(-0.1 <= y <= 24.1 for y in pairs[1::2])


def test_what_no_axis_could_hold_is_not_known() -> None:
    assert not known(1e300)
    assert known(-1e12)
    assert extent([None, math.nan, 1e300]) is None
    assert extent([3.0], floor=0.0) == (0.0, 3.0)
