"""Slots: one release is live at any moment, the last three stay ready, and a swap disturbs nobody."""

import gc
import weakref
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import open_engine
from engines.null import null_release, null_tower
from engines.samples import sample
from engines.signatures import NOT_A_CANDIDATE
from engines.slot import KEPT, Loaded, Slot, load
from schemas.errors import ReleaseError
from tests.engine_releases import SMALL, release


def loaded(task: str = "fraud") -> Loaded:
    source = null_release(task)
    return Loaded(source, open_engine("null", source, precision="f32", buckets=(1, 4), threads=1), null_tower())


def test_a_loaded_release_says_what_scores_and_decides() -> None:
    ready = load(release("fraud"), backend="openvino", precision="f32", buckets=(1, 4), threads=1)
    assert ready.release == release("fraud").version
    assert ready.engine_name.startswith("openvino f32, ")
    assert ready.calibration == {"a": 0.9, "b": -0.1}
    assert ready.settings == {"mean": 0.1}
    assert ready.max_batch == 4


def test_recommendations_come_from_the_catalogue_that_was_last_taken_over() -> None:
    ready = load(release("recommendations"), backend="openvino", precision="f32", buckets=(1, 4), threads=1)
    draw = np.random.default_rng(0)
    text = draw.standard_normal((30, SMALL["text_width"])).astype(np.float32)
    scalars, kinds = np.ones((30, 2), np.float32), np.zeros(30, np.int32)
    signature = ready.engine.signature
    inputs = {k: v for k, v in sample(signature, 4).items() if not k.startswith("catalog")}

    assert (ready.infer(inputs).outputs["scores"] <= NOT_A_CANDIDATE / 2).all(), "an empty catalogue offers nothing"
    for rows in (30, 20):
        bias = np.full(30, NOT_A_CANDIDATE, np.float32)
        bias[10:rows] = 0
        ready.refresh(text, scalars, kinds, bias)
        ready.warm()
        outputs = ready.infer(inputs).outputs
        offered = outputs["rows"][outputs["scores"] > NOT_A_CANDIDATE / 2]
        assert len(offered)
        assert set(offered.tolist()) <= set(range(10, rows))
    assert ready.table.shape == (30, SMALL["width"])


def test_a_bias_that_does_not_fit_the_catalogue_is_refused() -> None:
    ready = loaded()
    with pytest.raises(ReleaseError, match="2 biases for a table of 3 rows"):
        ready.refresh(
            np.zeros((3, 384), np.float32),
            np.zeros((3, 2), np.float32),
            np.zeros(3, np.int32),
            np.zeros(2, np.float32),
        )


def test_a_flip_makes_the_shadow_live_and_keeps_the_one_before() -> None:
    first, second = loaded(), loaded()
    slot = Slot(first)
    slot.shadow = second
    assert (slot.live, slot.shadow) == (first, second)
    assert slot.flip(second) is first
    assert slot.kept == (second, first)
    assert slot.shadow is None


def test_another_shadow_outlives_a_flip() -> None:
    slot, shadow = Slot(loaded()), loaded()
    slot.shadow = shadow
    slot.flip(loaded())
    assert slot.shadow is shadow


def test_going_back_drops_what_was_live() -> None:
    first, second, third = loaded(), loaded(), loaded()
    slot = Slot(first)
    slot.flip(second)
    slot.flip(third)
    assert slot.roll_back() is second
    assert slot.kept == (second, first)
    slot.roll_back()
    with pytest.raises(ReleaseError, match="no release to go back to"):
        slot.roll_back()
    assert slot.live is first


def test_a_release_that_falls_out_is_freed_when_its_last_user_lets_go() -> None:
    slot = Slot(loaded())
    in_use = slot.live
    gone = weakref.ref(in_use)
    for _ in range(KEPT):
        slot.flip(loaded())
    gc.collect()
    assert gone() is in_use
    del in_use
    gc.collect()
    assert gone() is None


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(0, 4), st.just("back")), max_size=30))
def test_any_sequence_of_flips_keeps_the_newest_three_without_repeats(steps: list[int | str]) -> None:
    pool = [RELEASES[number] for number in range(5)]
    slot, expected = Slot(pool[0]), [pool[0]]
    for step in steps:
        if isinstance(step, int):
            slot.flip(pool[step])
            expected = [pool[step], *(other for other in expected if other is not pool[step])][:KEPT]
        elif len(expected) > 1:
            slot.roll_back()
            expected = expected[1:]
        assert list(slot.kept) == expected
        assert slot.live is expected[0]


RELEASES = [loaded() for _ in range(5)]


def test_readers_meet_a_whole_release_while_others_flip() -> None:
    slot, wrong = Slot(RELEASES[0]), []

    def flip() -> None:
        for number in range(2000):
            slot.flip(RELEASES[number % 5])

    def read() -> None:
        for _ in range(5000):
            kept = slot.kept
            if slot.live not in RELEASES or len(set(kept)) != len(kept) or len(kept) > KEPT:
                wrong.append(kept)

    threads = [Thread(target=flip), Thread(target=flip), Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_shadow_that_becomes_live_because_another_one_failed_is_none_any_more() -> None:
    first, second = loaded(), loaded()
    slot = Slot(first)
    slot.flip(second)
    slot.shadow = first
    assert slot.roll_back() is first
    assert slot.shadow is None


def test_a_shadow_is_ready_beside_those_kept_and_named_once() -> None:
    first, second, third = loaded(), loaded(), loaded()
    slot = Slot(first)
    slot.flip(second)
    for shadow, expected in ((None, [second, first]), (first, [second, first]), (third, [second, first, third])):
        slot.shadow = shadow
        assert list(slot.ready) == expected
