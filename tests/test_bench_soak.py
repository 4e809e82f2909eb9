"""The soak and the scale curve without a broker: what counts as lost, what a slope is, and what is asked of it."""

import numpy as np
import pytest

from bench import plots, scale, soak
from bench.slopes import quarter, theil_sen
from bench.soak import Sample, counted, curves
from bench.steady_load import Digest


def samples(count: int = 40, **of: object) -> list[Sample]:
    """A sample a minute; `of`: by name a value, or a function of the minute."""
    plain = {
        "rss_mb": 500.0, "files": 100, "threads": 40, "lag": 50, "scored": 6_000, "p50_ms": 10.0, "p99_ms": 40.0,
        "cores": 0.3, "disk_gb": 1.0, "learner_mb": 0.0,
    }  # fmt: skip
    found = []
    for minute in range(count):
        values = {name: value(minute) if callable(value) else value for name, value in (plain | of).items()}
        found.append(Sample(60.0 * minute, **values))  # type: ignore[arg-type]  # as the fields are
    return found


def test_the_slope_of_a_line_is_its_own_and_a_third_of_outliers_does_not_move_it() -> None:
    x = np.arange(100.0)
    y = 3 * x + 1
    spoilt = np.where(np.arange(100) % 4 == 0, 1e6, y)
    assert theil_sen(x.tolist(), y.tolist()) == pytest.approx(3)
    assert theil_sen(x.tolist(), spoilt.tolist()) == pytest.approx(3, abs=0.3)
    assert theil_sen(list(range(5_000)), [2.0 * n for n in range(5_000)]) == pytest.approx(2)


@pytest.mark.parametrize("points", [0, 1])
def test_no_points_have_no_slope(points: int) -> None:
    assert theil_sen([1.0] * points, [2.0] * points) == 0
    assert theil_sen([1.0, 1.0], [2.0, 9.0]) == 0


def test_a_quarter_is_its_median_and_of_three_values_there_is_none() -> None:
    assert quarter([1, 2, 3, 4, 5, 6, 7, 8], 2) == 3.5
    assert quarter([1, 2, 3, 4, 5, 6, 7, 99, 8], 4) == 53.5
    assert np.isnan(quarter([1, 2, 3], 1))


def test_a_steady_worker_is_flat_and_what_its_start_takes_is_no_growth() -> None:
    found = curves(samples(rss_mb=lambda minute: min(500.0, 300 + 50 * minute), files=lambda m: 100 + m % 2))
    assert found["rss_mb_per_h"] == pytest.approx(0)
    assert found["files_per_h"] == pytest.approx(0, abs=0.5)
    assert (found["p50_ratio"], found["p99_ratio"]) == (1, 1)


def test_a_leak_of_a_megabyte_a_minute_is_sixty_an_hour_and_handles_as_well() -> None:
    found = curves(samples(rss_mb=lambda minute: 500.0 + minute, files=lambda minute: 100 + minute))
    assert found["rss_mb_per_h"] == pytest.approx(60)
    assert found["files_per_h"] == pytest.approx(60)


def test_latency_that_creeps_up_is_seen_by_quarters() -> None:
    found = curves(samples(p50_ms=lambda minute: 10.0 + minute, p99_ms=lambda minute: 40.0 if minute < 20 else 80.0))
    assert found["p50_ratio"] > 1.5
    assert found["p99_ratio"] == 2


def a_digest(idents: list[str]) -> Digest:
    made = Digest()
    for ident in idents:
        made.add(ident)
    return made


def test_each_event_once_is_nothing_lost_in_any_order() -> None:
    sent = a_digest(["a", "b", "c"])
    said = {"sent": sent.count, "digest": sent.sum}
    assert counted(said, a_digest(["c", "a", "b"])) == {"events": 3, "lost": 0, "repeated": 0}
    assert counted(said, a_digest(["a", "b"])) == {"events": 3, "lost": 1, "repeated": 0}
    assert counted(said, a_digest(["a", "b", "c", "c"])) == {"events": 3, "lost": 0, "repeated": 1}
    assert counted(said, a_digest(["a", "b", "b"])) == {"events": 3, "lost": 1, "repeated": 1}


def test_curves_are_drawn_and_kept(tmp_path) -> None:
    path = soak.draw(samples(), tmp_path / "deep" / "soak.png", "a title")
    assert path is not None
    assert path.read_bytes()[:4] == b"\x89PNG"
    soak.keep(samples(3), tmp_path / "soak.jsonl")
    assert len((tmp_path / "soak.jsonl").read_text().splitlines()) == 3


def test_a_panel_of_nothing_is_drawn_as_well(tmp_path) -> None:
    assert plots.draw(
        tmp_path / "a.png",
        "t",
        [1.0, 2.0],
        "x",
        [("zeros", {"": [0.0, 0.0]}), ("gap", {"": [float("nan"), 1.0]})],
        log_x=True,
    )


COST = scale.Cost(600.0, 500.0, 0.05, [1.0])


def test_more_workers_are_told_over_the_first_and_by_who_had_least() -> None:
    two = scale.Cost(630.0, 510.0, 0.1, [0.4, 0.6])
    figures = scale.by_workers([(1, COST), (2, two)])
    assert figures["workers_2_ratio"] == pytest.approx(1.05)
    assert figures["workers_2_net_ratio"] == pytest.approx(1.02)
    assert figures["workers_2_least_share"] == pytest.approx(0.8)


def test_more_users_are_told_over_the_first_and_memory_over_those_that_do_not_fit() -> None:
    def full(us: float, rss: float) -> scale.Full:
        return scale.Full(COST._replace(us=us), rss, 1.0, 2.0, 300.0, 0.1)

    figures = scale.by_users([(10, full(600, 300)), (100, full(660, 800)), (1_000, full(690, 840))], slots=50)
    assert figures["users_1000_ratio"] == pytest.approx(1.15)
    assert figures["rss_ratio"] == pytest.approx(1.05)
    assert scale.by_users([], 50) == {}


def test_what_was_not_asked_for_is_no_target() -> None:
    assert scale.targets([1, 2, 4], [], 50) == {"workers_2_ratio": 1.1, "workers_4_ratio": 1.1}
    assert scale.targets([1], [10, 100, 1_000], 50) == {
        "users_100_ratio": 1.15, "users_1000_ratio": 1.15, "rss_ratio": 1.15,
    }  # fmt: skip
    assert scale.numbers("") == []


def test_the_curve_of_users_is_drawn(tmp_path) -> None:
    figures = {f"users_{count}_{name}": 1.0 for count in (10, 100) for name in ("us", "rss_mb")}
    assert scale.draw(figures, [1], [10, 100], tmp_path / "scale.png")
    assert scale.draw({}, [1], [10], tmp_path / "none.png") is None
