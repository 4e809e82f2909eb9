"""The shop's own attributes in a row, and numbers as whole numbers."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engines.signatures import MISSING
from streams.tasks.attributes import CAPACITY, LARGEST, codes, fill, number_id, pairs, text_id, text_value
from streams.tasks.codes import MOST, encoded
from streams.tasks.fraud import Fraud

FLOATS = st.floats(width=32, allow_nan=False)


def rows_of(*given: dict[str, object]) -> np.ndarray:
    rows = np.zeros(len(given), Fraud.features)
    fill(rows, given)
    return rows


@given(st.lists(FLOATS, min_size=2, max_size=20))
def test_codes_are_in_the_order_of_the_numbers(values: list[float]):
    found = encoded(np.sort(np.array(values, np.float32)))
    assert (np.diff(found) >= 0).all()
    assert found.min() > MISSING
    assert found.max() < MOST


@given(st.floats(1e-20, 1e20), st.floats(1.0001, 2.0))
def test_numbers_that_differ_by_a_ten_thousandth_have_codes_of_their_own(value: float, times: float):
    low, high = encoded(np.array([value, value * times], np.float32))
    assert low < high


def test_a_missing_number_has_a_code_of_its_own_and_zeros_have_one():
    assert encoded(np.array([np.nan, -0.0, 0.0, np.inf], np.float32)).tolist()[0] == MISSING
    assert encoded(np.array([0.0], np.float32))[0] == 0


def test_null_and_nan_are_not_given_and_infinity_is_the_largest_number():
    found = dict(pairs({"a": None, "b": math.nan, "c": math.inf, "d": -1e300, "e": True, "f": 2}))
    assert found == {
        number_id("c"): LARGEST, number_id("d"): -LARGEST, number_id("e"): 1.0, number_id("f"): 2.0
    }  # fmt: skip


def test_a_name_with_numbers_and_texts_makes_two_columns():
    assert [name for name, _ in pairs({"x": 1.0})] != [name for name, _ in pairs({"x": "1.0"})]
    assert number_id("x") % 2 == 0
    assert text_id("x") % 2 == 1


@given(st.dictionaries(st.text(max_size=20), st.one_of(st.floats(), st.text(max_size=30), st.booleans(), st.none())))
def test_any_attributes_make_a_row_of_finite_numbers(attributes: dict[str, object]):
    rows = rows_of(attributes)
    assert np.isfinite(rows["attribute_value"]).all()
    assert (codes(rows) > MISSING).all()


def test_of_too_many_attributes_every_row_keeps_the_same_ones():
    names = [f"n{number}" for number in range(2 * CAPACITY)]
    rows = rows_of(dict.fromkeys(names, 1.0), dict.fromkeys(reversed(names), 2.0))
    assert rows["attribute_id"][0].tolist() == rows["attribute_id"][1].tolist()
    assert (rows["attribute_id"] > 0).all()


def test_engines_read_a_text_as_what_stands_for_it_and_a_number_as_its_code():
    rows = rows_of({"text": "blue", "number": 1.5})
    found = dict(zip(rows["attribute_id"][0].tolist(), codes(rows)[0].tolist(), strict=True))
    assert found[text_id("text")] == text_value("blue")
    assert found[number_id("number")] == encoded(np.array([1.5], np.float32))[0]
