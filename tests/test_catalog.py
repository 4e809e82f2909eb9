import numpy as np

from streams.catalog import AD, ITEM, NOT_A_CANDIDATE, TEXT_DIMS, Catalogue
from tests.records import money


def vector(kind, ident, row, fill=0.5):
    return {"kind": kind, "id": ident, "row": row, "vector": np.full(TEXT_DIMS, fill, "<f4").tobytes()}


def item(ident, price=2.0, available=True):
    return {"item_id": ident, "price": money(price), "available": available}


def test_an_item_counts_once_its_vector_is_there_whichever_comes_first():
    first, last = Catalogue(), Catalogue()
    first.apply_item(item("a"))
    first.apply_vector(vector("item", "a", 1))
    last.apply_vector(vector("item", "a", 1))
    last.apply_item(item("a"))
    for catalog in (first, last):
        assert catalog.items == {"a": 1}
        assert catalog.price(1) == 2.0
        assert catalog.candidate_bias().tolist() == [NOT_A_CANDIDATE, 0.0]


def test_ads_and_the_unknown_row_are_never_candidates():
    catalog = Catalogue()
    catalog.apply_vector(vector("ad", "x", 1))
    catalog.apply_ad({"ad_id": "x", "active": True})
    assert catalog.candidate_bias().tolist() == [NOT_A_CANDIDATE] * 2
    assert catalog.kind.tolist() == [ITEM, AD]


def test_what_is_sold_out_or_deleted_is_no_candidate_and_keeps_its_row():
    catalog = Catalogue()
    for row, ident in enumerate("ab", 1):
        catalog.apply_vector(vector("item", ident, row))
        catalog.apply_item(item(ident))
    catalog.apply_item(item("a", available=False))
    catalog.withdraw(ITEM, "b")
    assert catalog.candidate_bias().max() == NOT_A_CANDIDATE
    assert catalog.items == {"a": 1, "b": 2}
    assert catalog.ids == ["", "a", "b"]


def test_rows_grow_past_the_capacity_and_keep_what_they_hold():
    catalog = Catalogue(capacity=2)
    for row in range(1, 40):
        catalog.apply_vector(vector("item", f"i{row}", row, fill=row))
    assert len(catalog) == 40
    assert catalog.text[:, 0].tolist() == [0.0, *range(1, 40)]
    assert catalog.scalars.shape == (40, 5)


def test_a_new_price_changes_the_vectors_version_and_availability_does_not():
    catalog = Catalogue()
    catalog.apply_vector(vector("item", "a", 1))
    catalog.apply_item(item("a"))
    vectors, version = catalog.vectors_version, catalog.version
    catalog.apply_item(item("a", available=False))
    assert (catalog.vectors_version, catalog.version) == (vectors, version + 1)
    catalog.apply_item(item("a", price=3.0))
    assert catalog.vectors_version == vectors + 1
