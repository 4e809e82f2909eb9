"""Event time: bounded by what is out of order, by who is idle, and by the broker's clock."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.labels.watermark import AHEAD_MS, SourceLife, Watermark

IDLE, LATE = 1_000, 100
NOW = 10_000_000


def made(*parts: str, **how: Any) -> Watermark:
    watermark = Watermark(lateness_ms=LATE, idle_ms=IDLE, **how)
    watermark.assign(parts, NOW)
    return watermark


def test_it_is_the_slowest_partition_less_what_may_be_out_of_order() -> None:
    watermark = made("a", "b")
    watermark.observe("a", NOW, NOW)
    watermark.observe("b", NOW - 500, NOW)
    assert watermark.at(NOW) == NOW - 500 - LATE


def test_a_partition_that_was_not_heard_of_holds_it_back() -> None:
    watermark = made("a", "b", start=77)
    watermark.observe("a", NOW, NOW)
    assert watermark.at(NOW) == 77


def test_an_idle_partition_holds_nobody_back() -> None:
    watermark = made("a", "b")
    watermark.observe("b", NOW - 500, NOW)
    watermark.observe("a", NOW + 5_000, NOW + 5_000)
    watermark.at_end("b", NOW + IDLE - 1)
    assert watermark.at(NOW + IDLE) == NOW - 500 - LATE
    watermark.at_end("b", NOW + IDLE)
    assert watermark.at(NOW + IDLE) == NOW + 5_000 - LATE


def test_an_assigned_partition_that_stays_empty_becomes_idle_too() -> None:
    watermark = made("a", "b")
    watermark.observe("a", NOW + IDLE, NOW + IDLE)
    watermark.at_end("b", NOW + IDLE)
    assert watermark.at(NOW + IDLE) == NOW + IDLE - LATE


def test_a_partition_that_is_behind_is_not_idle_however_old_its_records_are() -> None:
    watermark = made("a", "b")
    watermark.observe("b", NOW, NOW)
    watermark.observe("a", NOW + 9 * IDLE, NOW + 9 * IDLE)
    assert watermark.at(NOW + 9 * IDLE) == NOW - LATE


def test_a_partition_that_nobody_looks_at_any_more_is_not_idle() -> None:
    watermark = made("a", "b")
    watermark.observe("b", NOW, NOW)
    watermark.at_end("b", NOW + IDLE)
    watermark.observe("a", NOW + 9 * IDLE, NOW + 9 * IDLE)
    assert watermark.at(NOW + 9 * IDLE) == NOW - LATE


def test_a_partition_that_wakes_up_holds_it_where_it_is() -> None:
    watermark = made("a", "b")
    watermark.at_end("b", NOW + IDLE)
    watermark.observe("a", NOW + IDLE, NOW + IDLE)
    before = watermark.at(NOW + IDLE)
    watermark.observe("b", NOW - 5_000, NOW + IDLE)
    watermark.observe("a", NOW + 2 * IDLE, NOW + 2 * IDLE)
    assert watermark.at(NOW + 2 * IDLE) == before


def test_where_all_are_idle_it_stands() -> None:
    watermark = made("a")
    watermark.observe("a", NOW, NOW)
    before = watermark.at(NOW)
    watermark.at_end("a", NOW + 5 * IDLE)
    assert watermark.at(NOW + 5 * IDLE) == before


def test_a_partition_that_is_taken_away_holds_nobody_back_and_another_one_keeps_its_time() -> None:
    watermark = made("a", "b")
    watermark.observe("a", NOW, NOW)
    watermark.observe("b", NOW - 9_000, NOW)
    watermark.assign(["a"], NOW)
    assert watermark.at(NOW) == NOW - LATE


def test_one_wrong_clock_moves_nothing() -> None:
    watermark = made("a")
    watermark.observe("a", NOW, NOW)
    watermark.observe("a", NOW + AHEAD_MS + 1, NOW)
    assert watermark.at(NOW) == NOW - LATE
    assert watermark.disbelieved == 1
    watermark.observe("a", NOW + AHEAD_MS, NOW)
    assert watermark.at(NOW) == NOW + AHEAD_MS - LATE


events = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(-5_000, 2 * AHEAD_MS), st.integers(0, 3_000), st.booleans()),
    max_size=40,
)


@given(events)
def test_it_never_goes_back_nor_past_the_brokers_clock_by_more_than_its_bound(those: list[Any]) -> None:
    watermark, now, reached = made("a", "b", "c"), NOW, 0
    newest = dict.fromkeys("abc", -1)
    for part, offset, passed, end in those:
        now += passed
        if end:
            watermark.at_end(part, now)
        else:
            watermark.observe(part, now + offset, now)
            if offset <= AHEAD_MS:
                newest[part] = max(newest[part], now + offset)
        assert reached <= watermark.at(now) <= now + AHEAD_MS
        reached = watermark.at(now)
        assert reached <= max(0, max(newest.values()) - LATE)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 10_000)), min_size=1, max_size=30))
def test_without_idle_partitions_it_is_what_all_have_passed(those: list[tuple[str, int]]) -> None:
    watermark, newest = made("a", "b"), {"a": -1, "b": -1}
    for part, time in those:
        watermark.observe(part, time, NOW)
        newest[part] = max(newest[part], time)
    assert watermark.at(NOW) == (max(0, min(newest.values()) - LATE) if min(newest.values()) >= 0 else 0)


def test_sources_live_as_long_as_the_one_that_was_heard_of_longest_ago() -> None:
    life = SourceLife()
    life.seen("chargeback", 500, NOW)
    life.seen("chargeback", 300, NOW)
    life.seen("analyst", 900, NOW)
    assert life.until(["chargeback", "analyst"]) == 500
    assert life.until(["analyst"]) == 900


@pytest.mark.parametrize("sources", [["refund"], ["chargeback", "refund"], []])
def test_a_source_that_was_never_heard_of_is_not_alive(sources: list[str]) -> None:
    assert SourceLife({"chargeback": 500}).until(sources) == 0


def test_a_sign_of_life_from_the_future_is_none() -> None:
    life = SourceLife()
    life.seen("chargeback", NOW + AHEAD_MS + 1, NOW)
    assert life.until(["chargeback"]) == 0


def test_it_goes_on_from_what_was_known() -> None:
    life = SourceLife()
    life.seen("chargeback", 500, NOW)
    assert SourceLife(life.times).until(["chargeback"]) == 500
