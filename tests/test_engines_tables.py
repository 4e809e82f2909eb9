"""Vector tables: a row's vector depends on that row alone, and only what changed is encoded again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.tables import CHUNK, ItemTower, Vectors, VectorTable
from schemas.errors import EngineError
from tests.engine_releases import SMALL, release

T, D = SMALL["text_width"], SMALL["width"]
Catalogue = tuple[Vectors, Vectors, NDArray[np.int32]]


def catalogue(rows: int, seed: int = 0) -> Catalogue:
    draw = np.random.default_rng(seed)
    text = draw.standard_normal((rows, T)).astype(np.float32)
    return text, draw.random((rows, 2)).astype(np.float32), draw.integers(0, 2, rows).astype(np.int32)


class CountingTower:
    """Sums each row's facts, and notes how many rows it was given."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def __call__(self, text: Vectors, scalars: Vectors, kinds: NDArray[np.int32]) -> Vectors:
        self.given.append(len(text))
        return np.stack([text[:, 0] + scalars[:, 0], kinds], axis=1).astype(np.float32)


def test_a_rows_vector_does_not_depend_on_what_is_encoded_with_it() -> None:
    tower = ItemTower(release("ctr"))
    text, scalars, kinds = catalogue(2 * CHUNK + 10)
    whole = tower(text, scalars, kinds)
    for rows in (
        slice(0, 1),
        slice(5, 9),
        slice(CHUNK - 2, CHUNK + 2),
        slice(2 * CHUNK, None),
        slice(None, None, -1),
    ):
        np.testing.assert_array_equal(tower(text[rows], scalars[rows], kinds[rows]), whole[rows])


def test_two_towers_of_a_release_agree_bit_for_bit() -> None:
    np.testing.assert_array_equal(
        ItemTower(release("ctr"))(*catalogue(9)), ItemTower(release("ctr"), threads=2)(*catalogue(9))
    )


def test_arrays_that_do_not_fit_are_refused_by_name() -> None:
    tower = ItemTower(release("ctr"))
    text, scalars, kinds = catalogue(4)
    with pytest.raises(EngineError, match="scalars"):
        tower(text, scalars[:3], kinds)
    with pytest.raises(EngineError, match="kinds"):
        tower(text, scalars, kinds.astype(np.int64))


def test_the_unknown_row_is_zero_whatever_the_catalogue_says_of_it() -> None:
    table = VectorTable(ItemTower(release("ctr")), D)
    assert table.vectors.shape == (1, D)
    table.refresh(*catalogue(5))
    assert not table.vectors[0].any()
    assert table.vectors[1:].all(axis=1).all()


def test_only_new_and_changed_rows_are_encoded() -> None:
    tower = CountingTower()
    table = VectorTable(tower, 2)
    text, scalars, kinds = catalogue(10)
    table.refresh(text[:6], scalars[:6], kinds[:6])
    table.refresh(text, scalars, kinds)
    scalars[3, 0] += 1
    text[4] = 0.5
    kinds[7] ^= 1
    table.refresh(text, scalars, kinds)
    assert tower.given == [5, 4, 3]


def test_a_table_is_replaced_when_it_changes_and_kept_when_it_does_not() -> None:
    table = VectorTable(CountingTower(), 2)
    text, scalars, kinds = catalogue(6)
    table.refresh(text, scalars, kinds)
    first, copy = table.vectors, table.vectors.copy()
    table.refresh(text.copy(), scalars.copy(), kinds.copy())
    assert table.vectors is first
    table.refresh(text, scalars + 1, kinds)
    assert table.vectors is not first
    np.testing.assert_array_equal(first, copy)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3)), min_size=1, max_size=8))
def test_any_sequence_of_changes_ends_as_one_encoding_of_the_last_catalogue(
    steps: list[tuple[int, int]],
) -> None:
    table = VectorTable(CountingTower(), 2)
    rows = 0
    for size, seed in steps:
        rows = max(rows, size)
        table.refresh(*catalogue(rows, seed))
    whole = CountingTower()(*catalogue(rows, steps[-1][1]))
    whole[0] = 0
    np.testing.assert_array_equal(table.vectors, whole)
