"""Examples: the bytes that were served, the newest word on each, one row a target; what cannot be read is refused."""

import random
import re
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import examples as module
from finetune.example_files import read_catalog, read_examples, write_catalog, write_examples
from finetune.examples import examples_of, is_positive, merged, same_period
from schemas.errors import TrainingError
from streams.features import bytes_of
from streams.output_columns import FEATURES_FORMAT
from streams.tasks import TASKS, make_task
from tests.finetune_examples import ADS, ITEMS, START, frauds, record, rows_of, slates, small_catalog, wishes

CATALOG = small_catalog()
FRAUD, CTR, WISH = (make_task(name) for name in ("fraud", "ctr", "recommendations"))
ROW = bytes_of(rows_of("fraud", 1, np.random.default_rng(0)))[0].tobytes()
SOURCES = {"fraud": lambda: frauds(20, way=1), "ctr": lambda: list(slates(20)), "recommendations": lambda: wishes(20)}


@pytest.mark.parametrize("name", list(TASKS))
def test_the_features_are_the_bytes_that_were_served(name):
    records = SOURCES[name]()
    examples, counts = examples_of(make_task(name), CATALOG, records)
    served = {each["event_time"]: each["features"] for each in records}
    for row in examples:
        assert row["features"].tobytes() == served[int(row["time"])]
    assert counts.targets == len(examples) == len({each["target_id"] for each in records})


@pytest.mark.parametrize("name", list(TASKS))
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_neither_order_nor_repeats_change_the_arrays(name, seed):
    records = SOURCES[name]()
    shuffled = [*records, *records[:5]]
    random.Random(seed).shuffle(shuffled)
    first, _ = examples_of(make_task(name), CATALOG, records)
    second, counts = examples_of(make_task(name), CATALOG, shuffled)
    assert first.tobytes() == second.tobytes()
    assert counts.repeated == 5


def test_what_serving_writes_can_be_read():
    assert FEATURES_FORMAT in module.FORMATS


@given(said=st.permutations([0, 1, 2]))
def test_the_newest_revision_counts_in_whatever_order_they_come(said):
    records = [record("fraud", "o1", float(revision % 2), START, ROW, revision=revision) for revision in said]
    examples, counts = examples_of(FRAUD, CATALOG, records)
    assert (examples["label"].tolist(), examples["revision"].tolist()) == ([[0.0]], [[2]])
    assert counts.superseded + counts.repeated == 2


def test_a_slate_is_one_row_with_a_label_for_each_ad_that_has_one():
    rows = rows_of("ctr", 1, np.random.default_rng(0))
    rows["ad"][0, :3], rows["ads"] = [ITEMS + 5, ITEMS + 2, ITEMS + 9], 3
    about = {"features": bytes_of(rows)[0].tobytes(), "time": START}
    records = [
        record("ctr", "m1", 0.0, candidate_id="a9", weight=5.0, **about),
        record("ctr", "m1", 1.0, candidate_id="a5", **about),
        record("ctr", "m1", 1.0, candidate_id="a5", name="conversion", **about),
        record("ctr", "m1", 1.0, candidate_id="a1", **about),
    ]
    examples, counts = examples_of(CTR, CATALOG, records)
    assert examples["label"].tolist() == [[1, 0, 0, 0, 0, 0, 0, 0]]
    assert examples["weight"].tolist() == [[1, 0, 5, 0, 0, 0, 0, 0]]
    assert (counts.other, counts.unplaced) == (1, 1)


def test_an_item_that_was_clicked_and_bought_is_one_example():
    first = wishes(1)[0]
    examples, _ = examples_of(WISH, CATALOG, [first, {**first, "name": "purchase"}])
    assert len(examples) == 1
    assert examples["label"][0].tolist() == [float(first["candidate_id"][1:])] * 2


def test_an_interest_that_was_taken_back_is_no_example_any_more():
    first = wishes(1)[0]
    revised = {**first, "label": 0.0, "revision": 1}
    known, _ = examples_of(WISH, CATALOG, [first])
    later, _ = examples_of(WISH, CATALOG, [revised])
    assert is_positive(WISH, known).all()
    assert not is_positive(WISH, merged(known, later)).any()


@given(
    revisions=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), max_size=20),
    cut=st.integers(0, 20),
)
def test_examples_in_two_parts_merge_to_what_they_are_at_once(revisions, cut):
    unique = {(target, revision): value for target, revision, value in revisions}
    records = [
        record("fraud", f"o{target}", float(value), START + target, ROW, revision=revision)
        for (target, revision), value in unique.items()
    ]
    parts = [examples_of(FRAUD, CATALOG, part)[0] for part in (records[:cut], records[cut:])]
    assert merged(*parts).tobytes() == examples_of(FRAUD, CATALOG, records)[0].tobytes()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"features_format": 9}, "features_format 9.*expected one of 1, 2"),
        ({"features": ROW[:-1]}, f"features of {len(ROW) - 1} bytes.*expected {len(ROW)} bytes"),
        ({"label": float("nan")}, "label nan"),
        ({"label": 1.5}, "label 1.5"),
        ({"weight": -1.0}, "weight -1.0"),
        ({"weight": float("inf")}, "weight inf"),
        ({"weight": float("nan")}, "weight nan"),
        ({"revision": -1}, "revision -1"),
        ({"task": "ctr"}, "task 'ctr'.*expected fraud"),
        ({"event_time": 0}, "event_time 0"),
    ],
)
def test_an_example_that_cannot_be_used_is_refused_by_name(wrong, said):
    bad = {**record("fraud", "o7", 1.0, START, ROW), **wrong}
    with pytest.raises(TrainingError) as caught:
        examples_of(FRAUD, CATALOG, [*frauds(3, way=1), bad])
    assert bad["example_id"] in str(caught.value)
    assert "/o7" in str(caught.value)
    assert re.search(said, str(caught.value))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("now_item", ITEMS + ADS + 1, "`now_item`"),
        ("basket", -1, "`basket`"),
        ("kind", 200, "kind of event"),
        ("value", np.nan, "`value`"),
        ("fields", np.inf, "`fields`"),
    ],
)
def test_features_that_no_catalogue_or_model_can_mean_are_refused(field, value, said):
    rows = rows_of("fraud", 1, np.random.default_rng(0))
    rows[field] = value
    with pytest.raises(TrainingError, match=said):
        examples_of(FRAUD, CATALOG, [record("fraud", "o1", 1.0, START, bytes_of(rows)[0].tobytes())])


def test_a_field_that_is_not_known_is_no_fault():
    rows = rows_of("fraud", 1, np.random.default_rng(0))
    rows["fields"][0, 5] = np.nan
    assert len(examples_of(FRAUD, CATALOG, [record("fraud", "o1", 1.0, START, bytes_of(rows)[0].tobytes())])[0]) == 1


def test_frauds_wait_for_the_innocents_of_their_time():
    ages = [(1.0, 0), (0.0, 10), (1.0, 20), (0.0, 30), (1.0, 40)]
    records = [record("fraud", f"o{time}", label, START + time, ROW) for label, time in ages]
    examples, _ = examples_of(FRAUD, CATALOG, records)
    assert same_period(FRAUD, examples, examples[:0]).tolist() == [False, True, True, True, False]
    later, _ = examples_of(FRAUD, CATALOG, [record("fraud", "o50", 0.0, START + 50, ROW)])
    assert same_period(FRAUD, examples, later).tolist() == [False, True, True, True, True]
    assert not same_period(FRAUD, examples[is_positive(FRAUD, examples)], examples[:0]).any()


def test_a_file_gives_back_its_records_and_only_under_its_digest(tmp_path):
    records = frauds(5, way=1)
    path = tmp_path / "examples.avro"
    digest = write_examples(path, records)
    assert list(read_examples(path, digest)) == records
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(TrainingError, match="sha256"):
        list(read_examples(path, digest))
    with pytest.raises(TrainingError, match="cannot be read"):
        list(read_examples(tmp_path / "none.avro", digest))
    assert [each.name for each in tmp_path.iterdir()] == ["examples.avro"]


def test_times_may_be_logical(tmp_path):
    physical = frauds(1, way=1)
    time = datetime.fromtimestamp(START / 1000, UTC)
    logical = [{**physical[0], "event_time": time, "matured_at": time}]
    assert examples_of(FRAUD, CATALOG, logical)[0]["time"] == examples_of(FRAUD, CATALOG, physical)[0]["time"]


def test_a_catalogue_comes_back_row_for_row(tmp_path):
    catalog = small_catalog()
    catalog.withdraw(0, "i3")
    digest = write_catalog(tmp_path / "catalog.npz", catalog)
    found = read_catalog(tmp_path / "catalog.npz", digest)
    assert (found.ids, found.items, found.ads) == (catalog.ids, catalog.items, catalog.ads)
    for name in ("text", "scalars", "kind"):
        assert np.array_equal(getattr(found, name), getattr(catalog, name))
    assert np.array_equal(found.candidate_bias(), catalog.candidate_bias())
