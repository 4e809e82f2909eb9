"""Catalogue vectors: an id keeps its row for ever, equal texts share an encoding, and nothing is encoded twice."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.events import Record
from streams.vectors import HashingEncoder, catalogue_vectors, vector_key


class Counting(HashingEncoder):
    """Notes which texts it was asked for."""

    def __init__(self, version: str = HashingEncoder.version) -> None:
        self.version, self.asked = version, list[str]()

    def encode(self, texts):
        self.asked += texts
        return super().encode(texts)


def items(**texts: str):
    return [{"item_id": ident, "text": text} for ident, text in texts.items()]


def ads(**texts: str):
    return [{"ad_id": ident, "text": text} for ident, text in texts.items()]


def rows(vectors):
    return {(vector["kind"], vector["id"]): vector["row"] for vector in vectors}


def test_rows_are_numbered_from_one_in_the_order_of_the_input():
    vectors = catalogue_vectors(items(a="red cup", b="blue cup"), ads(a="buy a cup"), HashingEncoder())
    assert rows(vectors) == {("item", "a"): 1, ("item", "b"): 2, ("ad", "a"): 3}
    assert [vector_key(vector) for vector in vectors] == [b"item:a", b"item:b", b"ad:a"]


def test_what_is_known_and_unchanged_is_not_encoded_again():
    known = catalogue_vectors(items(a="red cup"), [], HashingEncoder())
    encoder = Counting()
    assert catalogue_vectors(items(a="red cup"), [], encoder, known) == []
    assert encoder.asked == []


def test_a_new_item_gets_the_next_row_and_a_changed_text_keeps_its_own():
    known = catalogue_vectors(items(a="red cup", b="blue cup"), [], HashingEncoder())
    new = catalogue_vectors(items(c="plate", a="red mug", b="blue cup"), [], HashingEncoder(), known)
    assert rows(new) == {("item", "c"): 3, ("item", "a"): 1}
    assert new[1]["vector"] != known[0]["vector"]


def test_another_encoder_makes_all_vectors_anew_in_their_rows():
    known = catalogue_vectors(items(a="red cup", b="blue cup"), [], HashingEncoder())
    again = catalogue_vectors(items(b="blue cup", a="red cup"), [], Counting("other"), known)
    assert rows(again) == rows(known)
    assert {vector["encoder"] for vector in again} == {"other"}


def test_equal_texts_are_encoded_once():
    encoder = Counting()
    one, two = catalogue_vectors(items(a="red cup", b="red cup"), [], encoder)
    assert encoder.asked == ["red cup"]
    assert one["vector"] == two["vector"]
    assert one["row"] != two["row"]


@given(st.lists(st.dictionaries(st.sampled_from("abcde"), st.sampled_from(["cup", "mug", "plate"])), max_size=5))
def test_no_two_ids_ever_share_a_row_and_none_moves(catalogues):
    published: dict[bytes, Record] = {}
    for catalogue in catalogues:
        before = rows(published.values())
        for vector in catalogue_vectors(items(**catalogue), [], HashingEncoder(), list(published.values())):
            published[vector_key(vector)] = vector
        after = rows(published.values())
        assert before.items() <= after.items()
        assert sorted(after.values()) == list(range(1, len(after) + 1))


def test_hashed_words_make_unit_vectors_that_share_what_texts_share():
    cup, mug, plate, empty = HashingEncoder().encode(["Red cup", "red mug", "dinner plate", ""])
    assert np.allclose(np.linalg.norm(np.stack([cup, mug, plate, empty]), axis=1), 1)
    assert cup @ mug > 0.3
    assert abs(cup @ plate) < 0.3
    assert np.array_equal(HashingEncoder().encode(["red CUP"])[0], cup)
