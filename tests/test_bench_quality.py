"""The frame of `make quality`: every part is told of, whatever becomes of another."""

import json
import sys

import numpy as np
import pytest
from rich.console import Console

from bench import quality, quality_bandit
from bench.quality import Outcome, alone, outcome, show
from bench.quality_bandit import Shown, compared, events
from bench.quality_conversions import beside_truth


def says(text: str) -> list[str]:
    return [sys.executable, "-c", f"print('noise'); print({text!r})"]


def test_figures_are_the_last_line_that_a_part_prints():
    made = outcome("world", says(json.dumps({"figures": {"a": 1.5}, "targets": {"a": 1}, "missed": ["a"]})), 60)
    assert (made.figures, made.targets, made.missed, made.failed) == ({"a": 1.5}, {"a": 1}, ["a"], "")


@pytest.mark.parametrize(
    ("run", "seconds", "why"),
    [
        ([sys.executable, "-c", "raise SystemExit(3)"], 60, "ended with 3"),
        (says("{no json"), 60, "no JSON"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], 0.2, "no figures within"),
        (says(json.dumps({"failed": "the data cannot be had"})), 60, "the data cannot be had"),
    ],
)
def test_why_a_part_has_no_figures_is_said(run, seconds, why):
    made = outcome("cards", run, seconds)
    assert why in made.failed
    assert not made.figures


def test_one_part_that_failed_hides_no_other(capsys):
    fine = Outcome("world", {"auc": 0.8}, {"auc": 0.9}, [], 2.0)
    show(Console(stderr=True), "quality", [Outcome("cards", failed="no data"), fine])
    line = json.loads(capsys.readouterr().out)
    assert line["failed"] == {"cards": "no data"}
    assert line["world_auc"] == 0.8
    assert line["targets"] == {"world_auc": 0.9}
    assert line["missed"] == []


def test_a_part_that_is_not_there_is_a_failure_by_name(monkeypatch, capsys):
    monkeypatch.setitem(quality.PARTS, "ghost", "bench.quality_ghost")
    assert alone("ghost") == 1
    assert "bench.quality_ghost is not there" in json.loads(capsys.readouterr().out)["failed"]


def line(number: int, *, clicked: bool) -> Shown:
    return Shown("men", f"random-men-{number}", 1_574_553_600_000 + number * 1000, "3", 2, clicked, ("a", "b"), 0.5)


def test_bandit_impressions_are_events_whose_clicks_name_them():
    told = list(events([line(1, clicked=True), line(2, clicked=False)]))
    impressions = [record for topic, record in told if topic == "impressions"]
    (click,) = [record for topic, record in told if topic == "clicks"]
    assert click["impression_id"] == impressions[0]["event_id"]
    assert click["ad_id"] == impressions[0]["slate"][0]["ad_id"] == "men-3"
    assert impressions[0]["attributes"] == {"user_feature_0": "a", "user_feature_1": "b", "user_item_affinity": 0.5}
    times = [record["event_time"] for _, record in told]
    assert times == sorted(times)


def test_a_model_that_is_as_good_misses_no_target_of_the_bandit_and_a_hopeless_one_does(monkeypatch):
    monkeypatch.setattr(quality_bandit, "DRAWS", 40)
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.01, 0.3, 4000)
    label = (rng.random(4000) < truth).astype(np.float32)
    mean = np.full(4000, label.mean())
    same, bad = compared(label, truth, truth, mean), compared(label, 0.32 - truth, truth, mean)
    for name in ("auc_behind_lightgbm", "log_loss_above_lightgbm", "calibration_off"):
        assert same[name] == 0
    assert bad["auc_behind_lightgbm"] > 0
    assert bad["log_loss_above_lightgbm"] > 0


def test_what_is_said_of_orders_is_held_to_the_true_chances():
    draw = np.random.default_rng(0)
    truth, user = draw.uniform(0.01, 0.2, 4000), np.arange(4000) // 4
    found = beside_truth({"": truth, "boosting_": 2 * truth, "rate_": np.full(4000, truth.mean())}, truth, user)
    assert (found["excess_over_truth"], found["prediction_over_truth"]) == (0, 1)
    assert found["boosting_prediction_over_truth"] == pytest.approx(2)
    assert found["boosting_excess_over_truth"] > found["rate_excess_over_truth"] > 0
    assert found["excess_over_boosting_high"] < 0
    assert found["rate_excess_over_truth_low"] < found["rate_excess_over_truth"] < found["rate_excess_over_truth_high"]
