"""The benchmark of swaps without a broker: what it counts, which windows it compares, what it reads off the page."""

import numpy as np
import pytest

from bench import swap_figures
from bench.swap_figures import Swapped, measured, parts, scored, slope, soaked, went
from streams.metrics import Metrics


def a_load(slow: tuple[float, float], by: float) -> swap_figures.Scored:
    """100 events a second for 100 s, each scored after 10 ms; those that came in the stretch `slow` after `by` s."""
    came = {f"e{number}": number / 100 for number in range(10_000)}
    late = {ident: by if slow[0] <= at < slow[1] else 0.01 for ident, at in came.items()}
    return scored(came, [(ident, at + late[ident], False) for ident, at in came.items()])


def test_an_event_without_a_score_is_missing_and_infinitely_late():
    found = scored({"a": 1.0, "b": 2.0}, [("a", 1.5, False)])
    assert (found.missing, found.repeated, found.fallbacks) == (1, 0, 0)
    assert found.window(0, 10)["max_ms"] == np.inf


def test_a_second_score_is_a_repetition_and_does_not_count_as_latency():
    found = scored({"a": 1.0}, [("a", 1.5, False), ("a", 1.2, False), ("a", 9.0, True)])
    assert (found.missing, found.repeated, found.fallbacks) == (0, 2, 1)
    assert found.window(0, 10)["max_ms"] == pytest.approx(200)


def test_a_window_counts_what_came_in_it_and_an_empty_one_has_no_quantiles():
    found = a_load((50, 51), 1.0)
    assert found.window(50, 51)["p50_ms"] == pytest.approx(1000)
    assert found.window(51, 60)["max_ms"] == pytest.approx(10)
    assert np.isnan(found.window(500, 600)["p99_ms"])


def test_a_swap_is_compared_with_as_long_a_quiet_window_before_it():
    long = Swapped("fraud", began=50, flipped=55, ended=65, quiet_s=20)
    short = Swapped("fraud", began=50, flipped=55, ended=65, quiet_s=4)
    assert (long.before, short.before) == (35, 46)


def test_the_ratio_is_the_median_swaps():
    calm = Swapped("fraud", 20, 21, 25, 5, parts={"build": 1.0})
    hard = Swapped("ctr", 50, 52, 55, 5, parts={"build": 3.0})
    made = measured([calm, hard, calm], a_load((50, 52), 0.5))
    assert made["ratio"] == pytest.approx(1)
    assert made["worst_ratio"] == pytest.approx(50)
    assert (made["missing"], made["build_s"], made["live_s"]) == (0, 1.0, 1)


def test_a_soak_compares_its_first_tenth_with_its_last():
    made = soaked(
        [Swapped("fraud", at, at + 1, at + 1, 0, rss_mb=500 + at, threads=9, files=30) for at in range(80)],
        a_load((60, 100), 0.1),
    )
    assert (made["first_p99_ms"], made["last_p99_ms"]) == (pytest.approx(10), pytest.approx(100))
    assert made["last_rss_mb"] - made["first_rss_mb"] == 72
    assert made["rss_kb_per_swap"] == pytest.approx(1000)


def test_one_value_has_no_slope():
    assert slope([3.0]) == 0


def test_the_metrics_page_says_how_long_the_parts_of_a_tasks_swap_took_and_how_swaps_ended():
    metrics = Metrics()
    metrics.swap_seconds.labels("fraud", "build").set(1.5)
    metrics.swap_seconds.labels("ctr", "build").set(9.0)
    metrics.swaps.labels("fraud", "live").inc(2)
    page = metrics.page().decode().splitlines()
    assert parts(page, "fraud") == {"build": 1.5}
    assert went(page, "fraud") == {"live": 2}
    assert went(page, "ctr") == {}
