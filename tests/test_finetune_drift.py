"""Drift of a task's inputs, scores, calibration and quality: rare false alarms, and an alarm for each kind of shift."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.drift import Drift, DriftBounds

LENGTH, PART = 20_000, 500
NAMES = ("amount", "orders", "age", "foreign", "tail", "ip_known")
Floats = NDArray[np.float64]


class Stream:
    """Rows of a steady task: six inputs, scores that are right (1 % or 10 % positives), labels and gains."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rng = rng
        columns = [
            rng.lognormal(3, 1, LENGTH), rng.poisson(2, LENGTH), rng.exponential(10, LENGTH), rng.random(LENGTH) < 0.1,
            rng.standard_t(2, LENGTH), np.where(rng.random(LENGTH) < 0.3, np.nan, 1.0),
        ]  # fmt: skip
        self.inputs = np.stack([np.asarray(each, np.float64) for each in columns], axis=1)
        self.score = rng.beta(1, 99 if seed % 2 else 9, LENGTH)
        self.label = (rng.random(LENGTH) < self.score).astype(np.float64)
        self.gain = 1 / np.log2(rng.integers(2, 50, LENGTH))

    def told(self, *what: str) -> tuple[str, ...]:
        drift = Drift()
        for start in range(0, LENGTH, PART):
            part = slice(start, start + PART)
            if "inputs" in what:
                drift.inputs(self.inputs[part], NAMES)
            if "scores" in what:
                drift.scored(self.score[part])
            if "labels" in what:
                drift.labelled(self.score[part], self.label[part])
            if "gains" in what:
                drift.ranked(self.gain[part])
        return drift.reasons()


@pytest.mark.parametrize("seed", range(20))
def test_a_steady_stream_raises_no_alarm(seed: int) -> None:
    assert Stream(seed).told("inputs", "scores", "labels", "gains") == ()


def amounts_double(stream: Stream) -> None:
    stream.inputs[LENGTH // 2 :, 0] *= 2


def an_input_is_no_longer_given(stream: Stream) -> None:
    late = stream.inputs[LENGTH // 2 :, 5]
    late[stream.rng.random(len(late)) < 0.4] = np.nan


def an_input_spreads(stream: Stream) -> None:
    stream.inputs[LENGTH // 2 :, 4] *= 3


def an_input_moves_bit_by_bit(stream: Stream) -> None:
    stream.inputs[:, 2] *= np.linspace(1, 2, LENGTH)


def scores_rise(stream: Stream) -> None:
    stream.score[LENGTH // 2 :] = np.minimum(1.5 * stream.score[LENGTH // 2 :], 1)


def frauds_become_more(stream: Stream) -> None:
    late = slice(LENGTH // 2, None)
    stream.label[late] = stream.rng.random(LENGTH // 2) < np.minimum(3 * stream.score[late], 1)


def positives_become_fewer(stream: Stream) -> None:
    stream.label[LENGTH // 2 :] *= stream.rng.random(LENGTH // 2) < 0.3


def what_was_learned_is_no_longer_so(stream: Stream) -> None:
    """As many positives as ever, on other rows."""
    late = slice(LENGTH // 2, None)
    stream.label[late] = stream.rng.permutation(stream.label[late])


def lists_miss(stream: Stream) -> None:
    stream.gain[LENGTH // 2 :] *= stream.rng.random(LENGTH // 2) < 0.8


@pytest.mark.parametrize("seed", [0, 2, 4])
@pytest.mark.parametrize(
    ("shift", "watched", "said"),
    [
        (amounts_double, "inputs", "Input amount is spread otherwise than when the release went live: its median"),
        (an_input_is_no_longer_given, "inputs", "Input ip_known is spread otherwise"),
        (an_input_spreads, "inputs", "Input tail is spread otherwise"),
        (an_input_moves_bit_by_bit, "inputs", "Input age is spread otherwise"),
        (scores_rise, "scores", "Scores are spread otherwise"),
        (frauds_become_more, "labels", "points more often than predicted"),
        (positives_become_fewer, "labels", "points more often than predicted"),
        (what_was_learned_is_no_longer_so, "labels", "The log loss of labels rose from"),
        (lists_miss, "gains", "The loss (1 - gain) of lists rose from"),
    ],
)
def test_a_shift_raises_an_alarm_that_says_what_moved(
    seed: int, shift: Callable[[Stream], None], watched: str, said: str
) -> None:
    stream = Stream(seed)
    shift(stream)
    reasons = stream.told("inputs", "scores", "labels", "gains")
    assert any(said in each for each in reasons), reasons
    others = {"inputs", "scores", "labels", "gains"} - {watched}
    if shift is not scores_rise:  # scores that rise without more positives are also miscalibrated
        assert stream.told(*others) == ()


def test_what_gets_better_is_no_drift() -> None:
    stream = Stream(0)
    late = stream.label[LENGTH // 2 :]
    stream.score[LENGTH // 2 :] = np.where(late > 0, 0.9, 0.02)
    stream.gain[LENGTH // 2 :] = 1.0
    assert not any("rose" in each for each in stream.told("labels", "gains"))


def test_labels_one_by_one_say_what_labels_together_say() -> None:
    stream = Stream(0)
    frauds_become_more(stream)
    single = Drift()
    for score, label in zip(stream.score.tolist(), stream.label.tolist(), strict=True):
        single.labelled([score], [label])
    assert single.reasons() == stream.told("labels") != ()


def test_after_a_reset_the_new_is_the_usual() -> None:
    drift = Drift(DriftBounds(reference=1_000, window=1_000))
    rng = np.random.default_rng(3)
    drift.scored(rng.random(2_000))
    drift.scored(rng.random(2_000) ** 2)
    assert drift.reasons()
    drift.reset()
    assert drift.reasons() == ()
    drift.scored(rng.random(8_000) ** 2)
    assert drift.reasons() == ()


def test_structured_rows_are_read_by_the_names_of_their_fields() -> None:
    drift, rng = Drift(DriftBounds(reference=500, window=500)), np.random.default_rng(0)
    rows = np.zeros(1_000, [("now_value", "<f4"), ("other", "<i4")])
    rows["now_value"] = rng.random(1_000)
    rows["now_value"][500:] += 1
    drift.inputs(rows, ["now_value"])
    [said] = drift.reasons()
    assert said.startswith("Input now_value is spread otherwise")
    assert "distance 1.00" in said


def test_what_is_no_number_says_nothing_of_scores_and_labels() -> None:
    drift = Drift(DriftBounds(reference=100, window=100))
    drift.scored([float("nan")] * 1_000)
    drift.labelled([float("nan"), 0.5] * 500, [1.0, float("inf")] * 500)
    drift.ranked([float("nan")] * 1_000)
    assert drift.reasons() == ()
