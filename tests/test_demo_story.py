"""The story of the demo: what was caught of which kind by whom, when what happened, and the picture of it."""

from pathlib import Path

import pytest

from streams.demo import plot
from streams.demo.story import Story

DAY = 86_400_000


def told() -> Story:
    """The release `a` misses the new kind, which begins on day 5; `b` serves from day 10 on and catches it."""
    story = Story("reshipping", 5 * DAY)
    for hour in range(20 * 24):
        time, release = hour * DAY // 24, "a" if hour < 240 else "b"
        kind = "reshipping" if hour % 5 == 0 and time >= story.begins else "card_testing" if hour % 5 == 1 else ""
        caught = kind == "card_testing" or (kind == "reshipping" and release == "b")
        story.scored(time, kind, "review" if caught else "approve", release)
    return story


def test_the_newest_frauds_say_what_is_caught_now_and_the_curve_what_was_when() -> None:
    story = told()
    assert story.newest(True) == (20, 20)
    curve = story.curve(True)
    assert (curve[0][1], curve[-1][1]) == (0.0, 1.0)
    assert {share for _, share in story.curve(False)} == {1.0}


def test_each_release_is_told_with_what_it_caught_since_the_new_kind_began() -> None:
    story = told()
    assert story.lines() == [
        "reshipping, a kind of fraud that no model has seen, began on 1970-01-06",
        "a caught 0 of 24 of it, and 24 of 24 other frauds",
        "b caught 48 of 48 of it, and 48 of 48 other frauds",
    ]


def test_before_it_begins_the_story_says_when_it_will() -> None:
    assert Story("reshipping", 5 * DAY).lines() == ["on 1970-01-06 a new kind of fraud will begin: reshipping"]


def test_a_swap_is_marked_once() -> None:
    assert [mark.text for mark in plot.shown(told())] == ["new fraud: reshipping", "live: b"]


def test_the_picture_is_a_file_and_a_page_that_needs_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = plot.draw(told(), tmp_path, "a <small> shop")
    assert drawn is not None
    png, page = drawn
    assert png.read_bytes().startswith(b"\x89PNG")
    text = page.read_text("utf-8")
    assert "<svg" in text
    assert "a &lt;small&gt; shop" in text
    assert "b caught 48 of 48 of it" in text
    assert "<script" not in text


def test_a_story_without_frauds_is_drawn_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert plot.draw(Story("reshipping", 0), tmp_path, "nothing") is not None
