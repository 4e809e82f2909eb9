"""The engine contract as checks: each makes engines of one backend and task, and asserts a promise.
Every backend in BACKENDS runs through all of them; a new one needs no new test.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engines.base import Array, Engine, Gather
from engines.samples import sample
from schemas.errors import EngineError

BUCKETS = (1, 4, 16)
Make = Callable[[], Engine]
Inputs = dict[str, Array]
CATALOG = 40


def batched(engine: Engine) -> list[str]:
    return [spec.name for spec in engine.signature.inputs if spec.batched]


def shared(engine: Engine) -> list[str]:
    return [spec.name for spec in engine.signature.inputs if not spec.batched]


def some(engine: Engine, rows: int, seed: int = 0) -> Inputs:
    return sample(engine.signature, rows, catalog=CATALOG, seed=seed)


def cut(engine: Engine, inputs: Inputs, rows: Any) -> Inputs:
    return {**inputs, **{name: inputs[name][rows] for name in batched(engine)}}


def assert_equal(found: dict[str, Array], expected: dict[str, Array]) -> None:
    """Bit for bit."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def check_outputs_are_as_the_signature_says_and_cut_to_the_batch(make: Make) -> None:
    engine = make()
    for rows in (1, 2, 4, 5, 16):
        outputs = engine.infer(some(engine, rows)).outputs
        assert list(outputs) == [spec.name for spec in engine.signature.outputs]
        for spec in engine.signature.outputs:
            assert outputs[spec.name].shape == spec.shape(rows)
            assert outputs[spec.name].dtype == np.dtype(spec.dtype)


def check_a_batch_runs_in_the_smallest_bucket_that_holds_it(make: Make) -> None:
    engine = make()
    assert engine.buckets == BUCKETS
    assert [engine.infer(some(engine, rows)).bucket for rows in (1, 2, 4, 5, 16)] == [1, 4, 4, 16, 16]


def check_a_row_depends_on_neither_its_place_nor_its_neighbours(make: Make) -> None:
    engine = make()
    inputs = some(engine, 16)
    order = np.random.default_rng(1).permutation(16)
    whole = engine.infer(inputs).outputs
    moved = engine.infer(cut(engine, inputs, order)).outputs
    assert_equal(moved, {name: array[order] for name, array in whole.items()})
    alone = engine.infer(cut(engine, inputs, slice(3, 10))).outputs  # the same bucket, padded
    assert_equal(alone, {name: array[3:10] for name, array in whole.items()})


def check_equal_inputs_give_equal_outputs_whatever_ran_before(make: Make) -> None:
    engine = make()
    inputs = some(engine, 3)
    first = engine.infer(inputs).outputs
    engine.infer(some(engine, 16, seed=5))
    engine.infer(some(engine, 4, seed=6))
    assert_equal(engine.infer(inputs).outputs, first)


def check_two_engines_of_a_release_agree_bit_for_bit(make: Make) -> None:
    one, other = make(), make()
    inputs = some(one, 7)
    assert_equal(one.infer(inputs).outputs, other.infer(inputs).outputs)


def check_outputs_belong_to_the_caller(make: Make) -> None:
    engine = make()
    kept = engine.infer(some(engine, 4)).outputs
    before = {name: array.copy() for name, array in kept.items()}
    engine.infer(some(engine, 4, seed=9))
    assert_equal(kept, before)
    for array in kept.values():
        array.fill(0)


def check_inputs_are_left_as_they_were(make: Make) -> None:
    engine = make()
    inputs = some(engine, 5)
    before = {name: array.copy() for name, array in inputs.items()}
    engine.infer(inputs)
    assert_equal(inputs, before)


def check_any_memory_layout_is_taken(make: Make) -> None:
    engine = make()
    inputs = some(engine, 4)
    strided = {name: np.repeat(array, 2, axis=0)[::2] for name, array in inputs.items()}
    assert_equal(engine.infer(strided).outputs, engine.infer(inputs).outputs)


def check_a_look_up_left_to_the_engine_is_as_good_as_its_array(make: Make) -> None:
    engine, rng = make(), np.random.default_rng(4)
    name, width = "history_vectors", some(engine, 1)["history_vectors"].shape[2]
    table = rng.standard_normal((30, width)).astype(np.float32)
    for count in (16, 9):  # of one bucket: what the first left must not be seen by the second
        inputs = some(engine, count)
        rows = rng.integers(0, len(table), inputs[name].shape[:2], np.int32)
        expected = engine.infer({**inputs, name: table[rows]}).outputs
        assert_equal(engine.infer({**inputs, name: Gather(table, rows)}).outputs, expected)
    for wrong in (Gather(table, rows[:, 1:]), Gather(table.astype(np.float64), rows), Gather(table[:, 1:], rows)):
        with pytest.raises(EngineError, match=name):
            engine.infer({**inputs, name: wrong})


def check_inputs_beyond_the_signature_are_ignored(make: Make) -> None:
    engine = make()
    inputs = some(engine, 2)
    assert_equal(engine.infer({**inputs, "other": np.zeros(3)}).outputs, engine.infer(inputs).outputs)


def check_users_with_no_history_get_finite_scores(make: Make) -> None:
    engine = make()
    inputs = some(engine, 4)
    for name in ("history_vectors", "history_kinds", "history_scalars"):
        inputs[name][:] = 0
    for array in engine.infer(inputs).outputs.values():
        assert np.isfinite(array).all()


def check_batches_that_do_not_fit_are_refused(make: Make) -> None:
    engine = make()
    for rows in (0, 17):
        with pytest.raises(EngineError, match="1 to 16 rows"):
            engine.infer(cut(engine, some(engine, 20), slice(rows)))


def check_arrays_that_do_not_fit_are_refused_by_name(make: Make) -> None:
    engine = make()
    inputs = some(engine, 4)
    for name in (*batched(engine), *shared(engine)):
        array = inputs[name]
        wrong_type = {**inputs, name: array.astype(np.float64)}
        wrong_shape = {**inputs, name: array[..., None]}
        missing = {key: value for key, value in inputs.items() if key != name}
        for wrong in (wrong_type, wrong_shape, missing):
            with pytest.raises(EngineError, match=name):
                engine.infer(wrong)
    other_rows = {**inputs, batched(engine)[-1]: inputs[batched(engine)[-1]][:3]}
    with pytest.raises(EngineError, match=batched(engine)[-1]):
        engine.infer(other_rows)
    engine.infer(inputs)


def check_a_catalogue_is_taken_over_once_while_it_is_the_same(make: Make) -> None:
    engine = make()
    inputs, taken, take = some(engine, 2), list[str](), engine._take

    def noted(name: str, array: Array) -> None:
        taken.append(name)
        take(name, array)

    engine._take = noted  # type: ignore[method-assign]
    for rows in (1, 2, 2):
        engine.infer(cut(engine, inputs, slice(rows)))
    assert taken == shared(engine)
    engine.infer({**inputs, **{name: inputs[name].copy() for name in shared(engine)}})
    assert taken == 2 * shared(engine)


def check_another_catalogue_is_used_at_once_and_in_every_bucket(make: Make) -> None:
    engine, fresh = make(), make()
    for rows in (1, 4, 16):
        engine.infer(some(engine, rows))
    other = sample(engine.signature, 16, catalog=CATALOG + 5, seed=3)
    for rows in (1, 4, 16):
        inputs = cut(engine, other, slice(rows))
        assert_equal(engine.infer(inputs).outputs, fresh.infer(inputs).outputs)


def check_a_catalogue_smaller_than_the_list_still_answers(make: Make) -> None:
    engine = make()
    inputs = sample(engine.signature, 2, catalog=3)
    outputs = engine.infer(inputs).outputs
    for array in outputs.values():
        assert np.isfinite(array).all()


def check_a_warm_engine_answers_as_a_cold_one(make: Make) -> None:
    warm, cold = make(), make()
    inputs = some(warm, 4)
    warm.warm()
    warm.warm({name: inputs[name] for name in shared(warm)})
    assert_equal(warm.infer(inputs).outputs, cold.infer(inputs).outputs)


def check_a_closed_engine_says_so(make: Make) -> None:
    engine = make()
    inputs = some(engine, 1)
    engine.infer(inputs)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(inputs)


def check_an_engine_says_what_it_is(make: Make) -> None:
    engine = make()
    assert engine.name
    assert engine.precision
    assert engine.target


CHECKS: dict[str, Callable[[Make], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}
