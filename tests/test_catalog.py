import numpy as np
import pytest

from schemas.errors import BadRecord
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.catalog import AD, ITEM, NOT_A_CANDIDATE, TEXT_DIMS, Catalogue, check_item, check_vector
from streams.live import CHECKED, checked
from streams.sources.load import uniform_catalog
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


@pytest.mark.parametrize("price", [-0.01, -5.0, -1e13])
def test_a_price_below_zero_is_refused_and_spoils_nothing_where_it_is_on_an_old_topic(price):
    """Its logarithm was no number: every score that looked at the item was none, and the release was taken to fail."""
    with pytest.raises(BadRecord, match="at price; expected 0 or more"):
        check_item(item("a", price=price))
    catalog = Catalogue()
    catalog.apply_vector(vector("item", "a", 1))
    catalog.apply_item(item("a", price=price))
    assert np.isfinite(catalog.scalars).all()


@pytest.mark.parametrize("price", [None, money(0.0), money(12.5), b"", (2**63 - 1).to_bytes(8, "big")])
def test_any_other_price_and_none_pass(price):
    check_item({"item_id": "a", "price": price, "available": True})
    catalog = Catalogue()
    catalog.apply_vector(vector("item", "a", 1))
    catalog.apply_item({"item_id": "a", "price": price, "available": True})
    assert np.isfinite(catalog.scalars).all()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"row": 0}, "row is 0"),
        ({"row": -1}, "row is -1"),
        ({"row": 2**31 - 1}, "row is 2147483647"),
        ({"vector": b""}, "a vector of 0 bytes"),
        ({"vector": bytes(4 * TEXT_DIMS + 1)}, "a vector of 1,537 bytes"),
        ({"vector": np.full(TEXT_DIMS, np.nan, "<f4").tobytes()}, "not finite"),
    ],
)
def test_a_vector_without_a_place_in_the_table_is_refused(change, complaint):
    """A row of two billion asks for as much memory, and one of another length fits into no table: at each start."""
    with pytest.raises(BadRecord, match=complaint):
        check_vector(vector("item", "a", 1) | change)
    check_vector(vector("item", "a", 1))


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("catalog_item", uniform_catalog(1, 1)[0][0] | {"price": money(-5.0)}),
        ("catalog_vector", vector("item", "a", 2**30) | {"encoder": "e", "digest": "d"}),
    ],
)
def test_what_is_followed_is_checked_as_it_comes_from_the_topic(name, record):
    registry = MemoryRegistry()
    value = Encoder(registry, "topic", name)(record)
    with pytest.raises(BadRecord):
        checked(Decoder(registry, name), CHECKED[name])(value)
