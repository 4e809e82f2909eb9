"""Delayed positives, on made data whose truth is known: the delays' distribution, and what a model learns with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from finetune.calibrate import platt
from finetune.delayed import delayed_loss, delayed_platt
from finetune.delays import ENOUGH, STEPS, Delays
from finetune.plan import read_plan
from finetune.trainer import TorchTable
from schemas.errors import TrainingError
from streams.tasks.base import calibrated
from tests.finetune_examples import AMOUNT, MINUTE, START, arrays, frauds, problem_of, small_catalog, small_model

DAY_MS = 86_400_000
LONGEST_DAYS, MEAN_DAYS, SPAN_DAYS = 40, 8, 60
Floats = NDArray[np.float64]
Loss = Callable[[torch.Tensor], torch.Tensor]


def drawn_delays(rng: np.random.Generator, count: int) -> Floats:
    """Days; exponential, but for what would be longer than the longest."""
    share = rng.random(count) * -np.expm1(-LONGEST_DAYS / MEAN_DAYS)
    return np.asarray(-MEAN_DAYS * np.log1p(-share))


def true_cdf(days: Floats) -> Floats:
    return np.asarray(np.clip(np.expm1(-days / MEAN_DAYS) / np.expm1(-LONGEST_DAYS / MEAN_DAYS), 0, 1))


class Shop:
    """Orders of 60 days, more of them of late, and what is known of them today."""

    def __init__(self, seed: int, count: int = 40_000) -> None:
        rng = np.random.default_rng(seed)
        self.watched = SPAN_DAYS * rng.random(count) ** 2
        self.x = rng.standard_normal(count)
        self.weights = np.array([-2.0, 1.0])
        chance = 1 / (1 + np.exp(-(self.weights[0] + self.weights[1] * self.x)))
        self.delay = drawn_delays(rng, count)
        self.known = (rng.random(count) < chance) & (self.delay <= self.watched)

    @property
    def delays(self) -> Delays:
        found = Delays.estimated(DAY_MS * self.delay[self.known], DAY_MS * self.watched[self.known])
        assert found is not None
        return found

    def fitted(self, loss: Loss) -> Floats:
        """Intercept and slope of a logistic regression."""
        weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        x = torch.from_numpy(self.x)
        solver = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

        def step() -> torch.Tensor:
            solver.zero_grad()
            value = loss(weights[0] + weights[1] * x)
            value.backward()
            return value

        solver.step(step)
        return weights.detach().numpy()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_delays_are_estimated_although_young_orders_show_only_the_fast_ones(seed: int) -> None:
    shop = Shop(seed)
    days = np.linspace(0.5, LONGEST_DAYS, 200)
    seen = np.sort(shop.delay[shop.known])
    naive = np.searchsorted(seen, days) / len(seen)
    wrong = np.abs(naive - true_cdf(days)).max()
    assert wrong > 0.08
    assert np.abs(shop.delays.at(DAY_MS * days) - true_cdf(days)).max() < 0.3 * wrong


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_model_that_knows_the_delays_is_less_biased_than_one_that_takes_silence_for_no(seed: int) -> None:
    shop = Shop(seed)
    label = torch.from_numpy(shop.known.astype(np.float64))
    arrived = torch.from_numpy(shop.delays.at(DAY_MS * shop.watched))
    naive = shop.fitted(lambda logit: F.binary_cross_entropy_with_logits(logit, label))
    corrected = shop.fitted(lambda logit: delayed_loss(logit, label, arrived).mean())
    assert naive[0] < shop.weights[0] - 0.3
    assert abs(corrected[0] - shop.weights[0]) < 0.25 * abs(naive[0] - shop.weights[0])
    assert abs(corrected[1] - shop.weights[1]) < 0.08


def test_right_scores_stay_as_they_are_although_silence_would_calibrate_them_down() -> None:
    shop = Shop(0)
    logit = (shop.weights[0] + shop.weights[1] * shop.x).astype(np.float32)
    label, even = shop.known.astype(np.float32), np.ones(len(logit), np.float32)
    arrived = shop.delays.at(DAY_MS * shop.watched).astype(np.float32)
    found = delayed_platt(logit, label, arrived, even)
    assert found["a"] == pytest.approx(1, abs=0.08)
    assert found["b"] == pytest.approx(0, abs=0.12)
    assert platt(logit, label, even)["b"] < -0.3
    final = delayed_platt(logit, label, even, even)
    assert final == pytest.approx(platt(logit, label, even), abs=0.01)
    assert delayed_platt(logit, 0 * label, arrived, even) == {"a": 1.0, "b": 0.0}


@given(st.floats(-30, 30), st.floats(0, 1), st.floats(0, 1))
def test_the_loss_is_chapelles(logit: float, label: float, arrived: float) -> None:
    given_ = (torch.tensor([each], dtype=torch.float64) for each in (logit, label, arrived))
    p = 1 / (1 + np.exp(-logit))
    expected = -label * np.log(p) - (1 - label) * np.log1p(-p * arrived)
    assert delayed_loss(*given_).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.floats(-80, 80), st.floats(0, 1))
def test_where_silence_is_final_the_loss_is_the_cross_entropy(logit: float, label: float) -> None:
    z = torch.tensor([logit], dtype=torch.float64, requires_grad=True)
    wanted = torch.tensor([label], dtype=torch.float64)
    loss = delayed_loss(z, wanted, torch.ones_like(z))
    loss.sum().backward()
    assert loss.item() == pytest.approx(F.binary_cross_entropy_with_logits(z, wanted).item(), rel=1e-6, abs=1e-8)
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_a_silence_before_the_first_delay_says_nothing() -> None:
    z = torch.tensor([3.0], requires_grad=True)
    loss = delayed_loss(z, torch.zeros(1), torch.zeros(1))
    loss.sum().backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert z.grad.item() == 0


@given(st.integers(0, 10**6), st.integers(ENOUGH, 2_000))
@settings(max_examples=50)
def test_any_estimate_is_a_distribution_that_the_plan_can_hold(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    watched = rng.integers(0, 50, count)
    delay = (watched * rng.random(count)).astype(np.int64)
    found = Delays.estimated(delay, watched, rng.random(count) + 0.1)
    assert found is not None
    assert len(found.ms) <= STEPS
    assert Delays.from_dict(found.as_dict()) == found
    assert found.at([-1, found.ms[-1], 10**9]).tolist() == [0, 1, 1]
    assert (np.diff(found.at(np.arange(60))) >= 0).all()


def test_without_truncation_it_is_the_share_that_had_come() -> None:
    delay = np.repeat([10, 20, 30, 40], 50)
    found = Delays.estimated(delay, np.full(200, 100))
    assert found is not None
    assert found.ms == (10, 20, 30, 40)
    assert found.cdf == pytest.approx((0.25, 0.5, 0.75, 1.0))
    assert found.at([9, 10, 19, 25, 39, 40]).tolist() == pytest.approx([0, 0.25, 0.25, 0.5, 0.75, 1])


def test_weights_count_as_repeats() -> None:
    rng = np.random.default_rng(0)
    watched = rng.integers(1, 100, 300)
    delay = (watched * rng.random(300)).astype(np.int64)
    times = rng.integers(1, 4, 300)
    weighed = Delays.estimated(delay, watched, times)
    repeated = Delays.estimated(np.repeat(delay, times), np.repeat(watched, times))
    assert weighed is not None
    assert repeated is not None
    assert weighed.ms == repeated.ms
    assert weighed.cdf == pytest.approx(repeated.cdf)


def test_a_few_positives_are_no_distribution() -> None:
    assert Delays.estimated(np.arange(ENOUGH - 1), np.full(ENOUGH - 1, 1_000)) is None
    assert Delays.estimated(np.full(500, 10), np.full(500, 5)) is None


@pytest.mark.parametrize(
    "said",
    [
        {"ms": [], "cdf": []},
        {"ms": [1, 2], "cdf": [1.0]},
        {"ms": [2, 1], "cdf": [0.5, 1.0]},
        {"ms": [1, 2], "cdf": [0.6, 0.5]},
        {"ms": [1, 2], "cdf": [0.5, 0.9]},
        {"ms": [-1, 2], "cdf": [0.5, 1.0]},
        {"ms": [1, 2], "cdf": [float("nan"), 1.0]},
        {"ms": [1]},
        {"ms": ["soon"], "cdf": [1.0]},
    ],
)
def test_what_is_no_distribution_is_refused(said: dict[str, list[float]]) -> None:
    with pytest.raises(TrainingError, match="delays"):
        Delays.from_dict(said)


def waiting_orders(seed: int = 0) -> tuple[list[dict[str, Any]], Delays]:
    """Orders of which every other fraud is not known yet; the newest half has been watched for half of the delays."""
    rng, records, hour = np.random.default_rng(seed), frauds(400, way=1, noise=0.1), 60 * MINUTE
    for number, each in enumerate(records):
        late = number >= 200
        each["source"] = "chargeback" if each["label"] else ""
        if late and each["label"] and rng.random() < 0.5:
            each |= {"label": 0.0, "source": ""}
    newest = START + 399 * MINUTE + hour  # and so is the end of what was watched
    records[-1]["matured_at"] = newest
    return records, Delays((hour, hour + 200 * MINUTE), (0.5, 1.0))


def test_a_fine_tune_counts_a_silence_by_what_has_come_of_all_that_comes() -> None:
    catalog, model = small_catalog(), small_model("fraud").eval()
    records, delays = waiting_orders()
    examples = arrays("fraud", records, catalog)
    problem = problem_of("fraud", examples, catalog, delays=delays)
    silent = examples["source"] == 0
    assert problem.arrived is not None
    assert (problem.arrived[~silent] == 1).all()
    assert set(problem.arrived[:200].flat) == {1.0}
    assert set(problem.arrived[200:][silent[200:]].flat) == {0.5}
    table, batch = TorchTable(model, catalog), np.arange(len(examples))
    plain = problem_of("fraud", examples, catalog)
    found, weight = problem.summed(model, table, batch, 0, training=True)
    naive, same = plain.summed(model, table, batch, 0, training=True)
    assert weight == same == 400
    assert found < naive
    examples["source"] = 1  # somebody said so: nothing is open
    final = problem_of("fraud", examples, catalog, delays=delays)
    assert final.summed(model, table, batch, 0, training=True)[0].item() == pytest.approx(naive.item(), rel=1e-5)


def test_the_calibration_of_a_fine_tune_expects_what_may_still_come() -> None:
    catalog = small_catalog()
    records, delays = waiting_orders()
    examples = arrays("fraud", records, catalog)
    amount = examples["features"]["fields"][:, AMOUNT]
    outputs = {"logit": (3 * (amount - 0.5)).astype(np.float32)}
    problem = problem_of("fraud", examples, catalog, delays=delays)
    naive = problem_of("fraud", examples, catalog)
    which = np.arange(len(examples))
    found, taken = problem.finish(outputs, which), naive.finish(outputs, which)
    mean = [float(calibrated(outputs["logit"], each.calibration)[200:].mean()) for each in (found, taken)]
    assert mean[0] > 1.05 * mean[1]


def test_with_delays_negatives_weigh_and_the_logit_is_not_moved() -> None:
    catalog = small_catalog()
    examples = arrays("fraud", frauds(60, way=1), catalog)
    delays = Delays((1,), (1.0,))
    assert problem_of("fraud", examples, catalog, negatives=0.2, offset=True).offset
    assert not problem_of("fraud", examples, catalog, negatives=0.2, offset=True, delays=delays).offset


def test_delays_are_part_of_what_names_a_plan(tmp_path: Path) -> None:
    said: dict[str, Any] = {
        "task": "fraud", "champion": "v1", "store": "s", "examples": [{"path": "e", "sha256": "0" * 64}],
        "catalog": {"path": "c", "sha256": "1" * 64}, "out": "o",
    }  # fmt: skip
    delays = Delays((1_000, 2_000), (0.25, 1.0))
    plans = []
    for number, more in enumerate(({}, {"delays": delays.as_dict()})):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(said | more))
        plans.append(read_plan(path))
    assert plans[0].identity != plans[1].identity
    assert plans[1].delays is not None
    assert Delays.from_dict(plans[1].delays) == delays
