"""The model card: what a release keeps of held-out examples, and how it is written out."""

import json

import numpy as np
import pytest
import torch

from engines.manifest import FileEntry
from engines.null import null_release
from engines.releases import Release
from finetune.cards import CARD, card, measured, told, without_newest
from finetune.losses import tensors
from tests.finetune_examples import (
    arrays,
    frauds,
    problem_of,
    rows_of,
    slates,
    small_catalog,
    small_model,
    wishes,
)

CATALOG = small_catalog()
RECORDS = {"fraud": frauds(600, way=1), "ctr": list(slates(600)), "recommendations": wishes(600)}


@pytest.fixture(scope="module", params=["fraud", "ctr", "recommendations"])
def said(request):
    """What is measured of an untrained model."""
    task = request.param
    problem = problem_of(task, arrays(task, RECORDS[task], CATALOG), CATALOG)
    model, table = small_model(task).eval(), np.random.default_rng(0).standard_normal((len(CATALOG), 16), np.float32)

    def make(rows):
        return {**problem.task.inputs(rows, table), **problem.shared_inputs(table)}

    def score(inputs):
        with torch.inference_mode():
            return {name: value.numpy() for name, value in model(**tensors(inputs)).items()}

    which = np.arange(problem.learning, len(problem.examples))
    outputs = score(make(problem.examples.rows[which]))
    return measured(problem, outputs, which, {"a": 1.0, "b": 0.0}, make, score)


def test_every_slice_has_labels_and_what_the_release_says_of_them(said):
    assert {"history", "price", "hour"} <= set(said["slices"])
    for values in said["slices"].values():
        for figures in values.values():
            assert figures["labels"] >= 50
            assert {"mean_prediction", "rate"} <= set(figures) or "ndcg@10" in figures


def test_how_steady_scores_are_is_said_for_both_changes(said):
    assert set(said["steadiness"]) == {"numbers off by 1 %", "newest event missing"}
    for moved in said["steadiness"].values():
        assert 0 <= moved["mean"] <= moved["largest"] <= 1 if "mean" in moved else 0 <= moved["top_10"] <= 1


def test_a_card_names_data_figures_slices_and_steadiness(said, tmp_path):
    (tmp_path / CARD).write_text(json.dumps(said))
    made = null_release("ctr").manifest.model_copy(
        update={"files": {CARD: FileEntry(sha256="0" * 64, size=1)}, "trained": {"examples": 7}}
    )
    text = card(Release(made, tmp_path, ""))
    for part in ("# ctr/null", "- examples: 7", "| history |", "newest event missing", f"{CARD}: {'0' * 64}"):
        assert part in text


def test_a_release_from_before_cards_says_what_was_not_measured():
    assert "Not measured." in card(null_release("ctr"))


def test_the_newest_event_is_the_one_that_is_forgotten():
    rows = rows_of("ctr", 5, np.random.default_rng(0))
    fewer = without_newest(rows)
    np.testing.assert_array_equal(fewer["item"][:, 1:], rows["item"][:, :-1])
    assert (fewer["kind"] > 0).sum() == (rows["kind"] > 0).sum() - 5
    assert (rows["kind"][:, -1] == 1).all()


def test_what_has_no_label_is_in_no_slice():
    examples = arrays("ctr", RECORDS["ctr"], CATALOG)
    example, place, _, weight = told(problem_of("ctr", examples, CATALOG))
    assert len(example) == (examples["weight"] > 0).sum()
    assert (weight > 0).all()
    assert 2 not in place  # the third ad was not seen
