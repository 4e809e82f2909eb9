"""The benchmark of the label join: what it feeds is joined, and its figures are those it promises."""

from pathlib import Path

from bench.join import TARGETS, measure, target


def test_every_label_of_the_benchmark_meets_its_entry_and_all_figures_are_there(tmp_path: Path) -> None:
    figures = measure(3_000, 500, tmp_path, settle_s=0.01)
    assert figures["waiting_rows"] == 3_000
    assert figures["labels_per_s"] * figures["us_per_label"] > 0
    assert 50 < figures["disk_mb_per_million"] < 2_000
    assert TARGETS.keys() <= figures.keys()


def test_targets_of_the_benchmark_do_not_come_in_order() -> None:
    """Else every read would find its neighbours in the cache."""
    targets = [target(number) for number in range(1_000)]
    assert len(set(targets)) == 1_000
    assert targets != sorted(targets)
