"""The reservoir: bounded, the same for equal additions, spread over ages and classes, whole after any crash."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.examples import Examples, is_positive, layout
from finetune.reservoir import DAY_MS, Reservoir, mixed, quotas
from schemas.errors import StateError
from streams.tasks import make_task

FRAUD = make_task("fraud")
NONE = np.zeros(0, np.uint64)
NOW = 1_700_000_000_000
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def orders(keys, *, days=0.0, label=0.0, revision=0) -> Examples:
    """Orders of these numbers, `days` old."""
    examples = np.zeros(len(keys), layout(FRAUD))
    examples["key"] = keys
    examples["time"] = NOW - (np.broadcast_to(np.asarray(days), len(keys)) * DAY_MS).astype(np.int64)
    examples["label"][:, 0] = label
    examples["weight"], examples["revision"] = 1, revision
    examples["features"]["now_item"] = keys
    return examples


def reservoir(folder: Path, rows: int = 100, **how) -> Reservoir:
    return Reservoir(folder, FRAUD, rows=rows, bytes_=how.pop("bytes_", 1 << 30), **how)


def everything(kept: Reservoir) -> bytes:
    return kept.examples.tobytes() + kept.share.tobytes()


def test_what_was_added_is_there_after_a_restart(tmp_path):
    first = reservoir(tmp_path)
    first.add(orders([3, 1, 2], label=[0, 1, 0]))
    again = reservoir(tmp_path)
    assert everything(again) == everything(first)
    assert sorted(again.examples["key"].tolist()) == [1, 2, 3]
    assert sorted(each.name[:5] for each in tmp_path.iterdir()) == ["index", "rows-"]


def test_it_holds_no_more_rows_and_bytes_than_it_may(tmp_path):
    size = Reservoir(tmp_path / "size", FRAUD, rows=1, bytes_=1 << 20)._dtype.itemsize
    for name, rows, bytes_, most in (("rows", 50, 1 << 30, 50), ("bytes", 10**6, 20 * size + 5, 20)):
        kept = Reservoir(tmp_path / name, FRAUD, rows=rows, bytes_=bytes_)
        for start in range(0, 400, 100):
            kept.add(orders(range(start, start + 100), days=np.arange(100) / 10, label=np.arange(100) % 2))
        assert len(kept) == most
        assert sum(each.stat().st_size for each in (tmp_path / name).glob("rows-*")) <= bytes_


@QUICK
@given(parts=st.lists(st.lists(st.integers(0, 300), max_size=60), max_size=5), seed=st.integers(0, 5))
def test_equal_additions_leave_equal_rows_and_repeats_change_nothing(tmp_path_factory, parts, seed):
    folders = [tmp_path_factory.mktemp("kept") for _ in range(2)]
    ones = [reservoir(folder, 40, seed=seed) for folder in folders]
    for part in parts:
        for kept, repeated in zip(ones, (False, True), strict=True):
            examples = orders(part, days=np.array(part) % 30, label=np.array(part) % 3 == 0)
            kept.add(examples)
            if repeated and len(kept) < 40:
                kept.add(examples)
    assert everything(ones[0]) == everything(ones[1])
    keys = ones[0].examples["key"]
    assert len(np.unique(keys)) == len(keys) <= 40


def test_a_revision_takes_the_place_of_its_example(tmp_path):
    kept = reservoir(tmp_path)
    kept.add(orders([1, 2], label=[1, 0]))
    kept.add(orders([1], label=[0], revision=1))
    kept.add(orders([1], label=[1], revision=0))
    assert kept.examples["key"].tolist() == [1, 2]
    assert not is_positive(FRAUD, kept.examples).any()


def test_few_frauds_and_old_orders_are_not_crowded_out(tmp_path):
    kept = reservoir(tmp_path, 80)
    kept.add(orders(range(10), days=40, label=1))
    kept.add(orders(range(100, 1000), days=40))
    kept.add(orders(range(1000, 5000), days=0))
    old = kept.examples["time"] < NOW - DAY_MS
    frauds = is_positive(FRAUD, kept.examples)
    assert (old & frauds).sum() == 10
    assert (old & ~frauds).sum() == 35
    assert (~old & ~frauds).sum() == 35


def test_the_shares_tell_how_many_examples_there_were(tmp_path):
    """The estimate from a sample of 300 is within 4 standard errors of the 6,000 that went by, in 20 parts."""
    kept = reservoir(tmp_path, 300, seed=3)
    for start in range(0, 6000, 300):
        kept.add(orders(range(start, start + 300), days=(6000 - start) / 6000))
    estimate = (1 / kept.share).sum()
    assert len(kept) == 300
    assert abs(estimate - 6000) < 4 * 6000 / 300**0.5
    assert kept.share.max() < 0.2


def test_which_of_equal_orders_stay_is_chance(tmp_path):
    stayed = np.zeros(60)
    for seed in range(40):
        kept = reservoir(tmp_path / str(seed), 20, seed=seed)
        kept.add(orders(range(40), days=np.linspace(0, 0.4, 40)))
        kept.add(orders(range(40, 60), days=0))
        stayed[kept.examples["key"].astype(int)] += 1
    assert stayed.sum() == 40 * 20
    assert abs(stayed[:40].mean() - stayed[40:].mean()) < 3.0  # of 13.3; its standard error is 0.8
    assert (stayed > 0).all()


def test_a_draw_is_of_all_ages_and_classes_and_weighs_them_as_they_were(tmp_path):
    kept = reservoir(tmp_path, 400)
    kept.add(orders(range(20), days=10, label=1))
    kept.add(orders(range(100, 480), days=10))
    kept.add(orders(range(1000, 1200), days=0, label=np.arange(200) < 100))
    draw = kept.draw(80, (1,), before=NOW, without=NONE)
    old, fraud = draw.examples["time"] < NOW, is_positive(FRAUD, draw.examples)
    assert [(old & fraud).sum(), (old & ~fraud).sum(), (~old & fraud).sum(), (~old & ~fraud).sum()] == [20] * 4
    assert draw.weight[old & fraud].sum() / draw.weight[old].sum() == pytest.approx(0.05, abs=1e-3)
    assert draw.weight[~old & fraud].sum() / draw.weight[~old].sum() == pytest.approx(0.5, rel=0.05)
    assert draw.weight.mean() == pytest.approx(1, rel=1e-4)


@QUICK
@given(count=st.integers(0, 60), before=st.integers(0, 40), seed=st.integers(0, 9))
def test_a_draw_has_no_example_twice_none_too_new_and_none_that_is_had_elsewhere(tmp_path, count, before, seed):
    kept = reservoir(tmp_path, 50)
    if not len(kept):
        kept.add(orders(range(50), days=np.arange(50), label=np.arange(50) % 4 == 0))
    without = np.arange(0, 50, 7, dtype=np.uint64)
    latest = NOW - before * DAY_MS
    draw = kept.draw(count, (seed,), before=latest, without=without)
    again = kept.draw(count, (seed,), before=latest, without=without)
    keys = draw.examples["key"]
    usable = sum(1 for key in range(before, 50) if key % 7)
    assert len(np.unique(keys)) == len(keys) == min(count, usable)
    assert (draw.examples["time"] <= latest).all()
    assert not np.isin(keys, without).any()
    assert draw.examples.tobytes() == again.examples.tobytes()
    assert (draw.weight > 0).all()


class Killed(BaseException):
    """Stands for a SIGKILL: nothing above catches it."""


@pytest.mark.parametrize("call", range(1, 9))
def test_a_crash_at_any_write_leaves_it_as_it_was_before_or_after(tmp_path, monkeypatch, call):
    kept = reservoir(tmp_path)
    kept.add(orders(range(10)))
    before = everything(kept)
    left = [call]

    def counted(real):
        def step(*arguments, **named):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return real(*arguments, **named)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        try:
            kept.add(orders(range(10, 20)))
            finished = True
        except Killed:
            finished = False
    assert finished == (call > 7)
    found = everything(reservoir(tmp_path))
    other = reservoir(tmp_path / "other")
    other.add(orders(range(10)))
    other.add(orders(range(10, 20)))
    assert found in (before, everything(other))
    last = reservoir(tmp_path)
    last.add(orders(range(10, 20)))
    assert everything(last) == everything(other)
    assert len([each for each in tmp_path.iterdir() if each.is_file()]) == 2


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: next(folder.glob("rows-*")).write_bytes(b"short"), "sha256"),
        (lambda folder: next(folder.glob("rows-*")).unlink(), "rows cannot be read"),
        (lambda folder: (folder / "index.json").write_text("{"), "index cannot be read"),
        (lambda folder: (folder / "index.json").write_text("[]"), "index cannot be read"),
        (lambda folder: alter(folder, format=2), "format is 2"),
        (lambda folder: alter(folder, task="ctr"), "task is 'ctr'"),
        (lambda folder: alter(folder, layout="0"), "layout is '0'"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, damage, said):
    reservoir(tmp_path).add(orders(range(3)))
    damage(tmp_path)
    with pytest.raises(StateError, match=said) as caught:
        reservoir(tmp_path)
    assert "move the folder away" in str(caught.value)


def alter(folder: Path, **over) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | over))


@given(sizes=st.lists(st.integers(0, 50), max_size=8), total=st.integers(0, 200))
def test_quotas_are_even_up_to_what_is_there(sizes, total):
    given_ = quotas(np.array(sizes, np.int64), total)
    assert given_.sum() == min(total, sum(sizes))
    assert all(0 <= got <= size for got, size in zip(given_, sizes, strict=True))
    short = [got for got, size in zip(given_, sizes, strict=True) if got < size]
    assert not short or max(given_) <= min(short) + 1


def test_the_random_numbers_of_neighbouring_keys_have_nothing_in_common():
    luck = mixed(np.arange(10_000, dtype=np.uint64), 0) / 2.0**64
    assert abs(luck.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(luck[:-1], luck[1:])[0, 1]) < 0.05
    assert not (mixed(np.arange(100, dtype=np.uint64), 0) == mixed(np.arange(100, dtype=np.uint64), 1)).any()
