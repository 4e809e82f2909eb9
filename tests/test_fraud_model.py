"""The head of fraud: its columns, its trees, and a release of a table that no code knows, as it serves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import fraud_tables
from bench.quality_tables import recorded, scored
from engines.columns import Columns, Scaling
from engines.model import HeadraceConfig
from engines.releases import ReleaseStore
from engines.signatures import MISSING
from engines.trees import Trees
from finetune import boosting, columns
from finetune.boosting import Growth
from finetune.first import GROUND, train
from finetune.history import Recording
from finetune.labels import Labels
from finetune.metrics import roc_auc
from finetune.trainer import Plan
from schemas.errors import TrainingError
from streams.catalog import Catalogue
from streams.tasks.attributes import codes as codes_of
from streams.tasks.attributes import fill, number_id, text_id, text_value
from streams.tasks.codes import encoded
from streams.tasks.fraud import FIELDS, Fraud

SHORT = Plan(steps=80, batch=64, rate=5e-3, frozen=GROUND)


def rows_of(given: Sequence[Mapping[str, object]]) -> np.ndarray:
    rows = np.zeros(len(given), Fraud.features)
    fill(rows, given)
    return rows


def made_by(rows: np.ndarray, label: np.ndarray) -> tuple[Columns, columns.Fitted, np.ndarray]:
    """Columns that are fitted to the rows, and what they make of the attributes."""
    fitted = columns.fit(rows, label)
    sizes: dict[str, Any] = {"width": 16, "hidden": 32, "fields": len(FIELDS), **fitted.sizes}
    made = Columns(HeadraceConfig(task="fraud", **sizes))
    columns.put(made, fitted.buffers)
    inputs = {
        "fields": encoded(rows["fields"]),
        "attribute_ids": rows["attribute_id"].astype(np.int32),
        "attributes": codes_of(rows),
    }
    found = torch.cat(made({name: torch.from_numpy(each) for name, each in inputs.items()}), dim=-1)
    return made, fitted, found.numpy()[:, len(FIELDS) :]


def test_columns_are_the_attributes_by_name_and_missing_ones_are_missing():
    rows = rows_of([{"x": float(number), "y": 1.0} if number % 2 else {"x": float(number)} for number in range(100)])
    _, fitted, found = made_by(rows, np.zeros(100, np.float32) + 0.1)
    order = fitted.buffers["names"].tolist()
    x, y = found[:, order.index(number_id("x"))], found[:, order.index(number_id("y"))]
    assert x.tolist() == encoded(np.arange(100, dtype=np.float32)).tolist()
    assert (y[::2] == MISSING).all()
    assert (y[1::2] == encoded(np.ones(1, np.float32))).all()


def test_a_category_that_was_never_seen_is_none_that_was():
    shop = [{"t": f"c{number % 7}"} for number in range(140)]
    label = np.array([number % 7 == 0 for number in range(140)], np.float32)
    made, fitted, found = made_by(rows_of(shop), label)
    assert fitted.sizes["attribute_texts"] == 1
    odds = found[:, 0]
    assert odds[0] > 0 > odds[1]
    new = rows_of([{"t": f"new{number}"} for number in range(500)])
    inputs = {
        "fields": encoded(new["fields"]),
        "attribute_ids": new["attribute_id"].astype(np.int32),
        "attributes": codes_of(new),
    }
    unseen = torch.cat(made({name: torch.from_numpy(each) for name, each in inputs.items()}), dim=-1)
    assert (unseen[:, len(FIELDS) :] == 0).all(), "no odds, no count, no flag"


def test_what_training_reads_of_a_text_knows_nothing_of_the_order_itself_and_later_ones():
    rng = np.random.default_rng(0)
    text = np.array([text_value(f"c{number}") for number in rng.integers(0, 5, 200)], np.float32)
    label = np.tile([0.0, 0.0, 0.0, 1.0], 50).astype(np.float32)
    odds, counts = columns.so_far(text, label)
    other = np.concatenate([label[:120], label[120:][::-1]])  # as many frauds, at other places
    again, _ = columns.so_far(text, other)
    assert again[:121].tolist() == odds[:121].tolist()
    assert again.tolist() != odds.tolist()
    assert (odds[0], counts[0]) == (pytest.approx(0), 0)
    assert counts[150] == pytest.approx(np.log1p((text == text[150])[:150].sum()))


def test_a_constant_column_a_column_of_few_values_and_an_empty_one_are_scaled_to_finite_numbers():
    scaling = Scaling(3, 4)
    given = np.stack(
        [np.full(50, 7), np.arange(50) % 2 * 1000, np.full(50, MISSING)], axis=1
    ).astype(np.int32)  # fmt: skip
    columns.fit_scaling(scaling, given)
    found = scaling(torch.from_numpy(given))
    assert found.isfinite().all()
    assert found.abs().max() <= 1
    assert (found[0, 4:8] != found[1, 4:8]).any()
    assert found[:, -1].tolist() == [1.0] * 50, "what is missing is marked"


def test_trees_of_the_graph_say_what_lightgbm_says():
    rng = np.random.default_rng(1)
    given = rng.integers(-1000, 1000, (2000, 6)).astype(np.int32)
    given[rng.random(given.shape) < 0.3] = MISSING
    given[:, 5] = rng.integers(0, 2, 2000)
    label = ((given[:, 0] > 100) ^ (given[:, 1] == MISSING)).astype(np.float32)
    growth = Growth(trees=20)
    grown = boosting.grow(given, label, growth)
    laid = boosting.arrays(grown, growth.leaves, given.shape[1])
    trees = Trees(len(laid["root"]), growth.leaves, growth.depth)
    columns.put(trees, laid)
    plain = np.where(given == MISSING, np.nan, given.astype(np.float64))
    said = grown.predict(plain, raw_score=True, num_iteration=grown.best_iteration)
    np.testing.assert_allclose(trees(torch.from_numpy(given)).numpy(), said, atol=1e-5)
    assert roc_auc(label, np.asarray(said)) > 0.95


@pytest.fixture(scope="module")
def table() -> tuple[fraud_tables.Table, Recording]:
    made = fraud_tables.mixed(3000, 3)
    return made, recorded(made)


def test_a_table_of_a_hundred_columns_becomes_a_release_and_is_scored_on_the_compiled_engine(table):
    _, recording = table
    chance = scored(recording, 2000, SHORT)
    assert chance.shape == (1000,)
    assert np.isfinite(chance).all()
    assert ((chance > 0) & (chance < 1)).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_orders_of_one_kind_are_refused_by_name(table, value: float, tmp_path: Path):
    _, recording = table
    labels = Labels()
    for event in recording.examples["fraud"].events if value else []:
        labels.add("labels", fraud_tables.label(int(event["order_id"][1:]), 1_700_000_000_000))
    alone = Recording(recording.examples, recording.clicks, labels)
    with pytest.raises(TrainingError, match="frauds among the"):
        train(alone, Catalogue(), ReleaseStore(str(tmp_path)), plans={"fraud": SHORT})


def test_names_that_no_release_knows_change_nothing():
    rows = rows_of([{"x": float(number)} for number in range(60)])
    _, fitted, _ = made_by(rows, np.linspace(0, 1, 60).astype(np.float32).round())
    assert fitted.buffers["names"].tolist() == [number_id("x")]
    assert text_id("x") not in fitted.buffers["names"]
