"""Parity: each measure is what its name says, and each bound refuses."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from engines.base import Array, Arrays, Engine, Signature, TensorSpec
from engines.parity import BOUNDS, Bounds, Report, flips, overlap, parity, rank_correlation
from engines.signatures import CONVERSION
from schemas.errors import EngineError

LOGIT = Signature((TensorSpec("x", "float32", ("B",)),), (TensorSpec("logit", "float32", ("B",)),))
ORDERS = TensorSpec(CONVERSION, "float32", ("B",))
STRICT = Bounds(max_difference=0, mean_difference=0, rank_correlation=1, flips=0, overlap=1)


class Scaled(Engine):
    """Answers its input, times a factor."""

    name, precision, target = "scaled", "f32", "test"

    def __init__(self, factor: float) -> None:
        super().__init__(LOGIT, (1, 4))
        self.factor = factor

    def _run(self, bucket: int, arrays: dict[str, Array]) -> Mapping[str, Array]:
        return {"logit": arrays["x"] * np.float32(self.factor)}

    def _take(self, name: str, array: Array) -> None: ...

    def close(self) -> None: ...


def inputs() -> Arrays:
    return {"x": np.array([-2, -1, 0.5, 1, 3, 4, 5, 6, 7.5], np.float32)}


def test_an_engine_equal_to_the_oracle_passes_the_strictest_bounds() -> None:
    report = parity(Scaled(1), Scaled(1), inputs())
    assert (report.rows, report.max_difference, report.flips) == (9, 0, 0)
    report.check(STRICT)


class Selling(Scaled):
    """Says of orders after clicks what is in its input, times another factor."""

    def __init__(self, factor: float, selling: float) -> None:
        super().__init__(factor)
        self.signature, self.selling = Signature(LOGIT.inputs, (*LOGIT.outputs, ORDERS)), selling

    def _run(self, bucket: int, arrays: dict[str, Array]) -> Mapping[str, Array]:
        return {**super()._run(bucket, arrays), ORDERS.name: arrays["x"] * np.float32(self.selling)}


def test_what_an_engine_says_of_orders_after_clicks_is_compared_as_clicks_are() -> None:
    sound = parity(Selling(1, 3), Selling(1, 3), inputs())
    sound.check(STRICT)
    assert sound.as_dict()["conversion"]["rows"] == 9
    off = parity(Selling(1, 2), Selling(1, 3), inputs())
    assert (off.max_difference, off.conversion and off.conversion.max_difference) == (0, 7.5)
    with pytest.raises(
        EngineError, match=r"oracle: conversion max_difference [^,]*, conversion mean_difference [^,]*$"
    ):
        off.check(BOUNDS["bf16"])
    assert "conversion" not in parity(Scaled(1), Scaled(1), inputs()).as_dict()


def test_differences_are_measured_over_all_chunks() -> None:
    report = parity(Scaled(2), Scaled(1), inputs())
    assert report.max_difference == 7.5
    assert report.mean_difference == pytest.approx(np.abs(inputs()["x"]).mean())
    assert report.rank_correlation == pytest.approx(1)


def test_what_is_outside_the_bounds_is_refused_with_each_reason() -> None:
    with pytest.raises(EngineError, match=r"max_difference.*rank_correlation.*flips"):
        parity(Scaled(-1), Scaled(1), inputs()).check(BOUNDS["bf16"])


@pytest.mark.parametrize("broken", ["max_difference", "mean_difference", "rank_correlation", "flips", "overlap"])
def test_every_bound_refuses_alone_and_so_does_nan(broken: str) -> None:
    sound: dict[str, Any] = {
        "max_difference": 0.0,
        "mean_difference": 0.0,
        "rank_correlation": 1.0,
        "flips": 0.0,
        "overlap": 1.0,
    }
    for value in (0.5, float("nan")):
        report = Report(rows=1, precision="f32", target="", scale=1.0, **{**sound, broken: value})
        with pytest.raises(EngineError, match=broken):
            report.check(BOUNDS["bf16"])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=40))
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, np.float64).T
    if np.ptp(a) and np.ptp(b):
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    else:
        assert rank_correlation(a, b) == 1


def test_a_flip_is_a_decision_that_differs_at_any_threshold() -> None:
    truth = np.array([-1.0, 0.1, 2.0, 4.0])
    assert flips(truth, truth, (0.5, 0.9)) == 0
    assert flips(np.array([-1.0, -0.1, 2.0, 4.0]), truth, (0.5, 0.9)) == 0.25
    assert flips(np.array([-1.0, 0.1, 2.5, 2.0]), truth, (0.5, 0.9)) == 0.5


def test_overlap_is_the_share_of_the_expected_top_ten() -> None:
    expected = np.arange(20)[None, :]
    assert overlap(expected[:, ::1], expected) == 1
    assert overlap(np.roll(expected, 2, axis=1), expected) == 0.8
    assert overlap(expected[:, ::-1], expected) == 0
