"""Rows of people and files to records and back: nothing guessed, and each error says where."""

import copy
import json
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import catalog
from schemas.errors import BadRecord
from schemas.registry import MemoryRegistry
from schemas.values import from_json, to_json
from schemas.wire import Decoder, Encoder
from tests import records
from tests.records import money
from tests.schema_values import float32, shortest, values

ORDER = {
    "event_id": "e1",
    "event_time": "2026-01-31T12:00:00Z",
    "user_id": "u1",
    "order_id": "o1",
    "items": [{"item_id": "a", "quantity": 2, "unit_price": "12.95"}],
    "amount": "25.90",
    "currency": "GBP",
    "payment": {"method": "card"},
}


def order(*path: Any, value: Any = None, drop: bool = False) -> dict[str, Any]:
    """A good row with the value at `path` replaced or dropped."""
    row = copy.deepcopy(ORDER)
    place: Any = row
    for step in path[:-1]:
        place = place[step]
    if drop:
        del place[path[-1]]
    elif path:
        place[path[-1]] = value
    return row


def test_a_row_becomes_a_record_with_its_defaults() -> None:
    record = from_json("order", ORDER)
    assert record["event_time"] == 1_769_860_800_000
    assert record["amount"] == shortest(259_000)
    assert (record["attributes"], record["email"], record["items"][0]["request_id"]) == ({}, None, None)
    assert list(record) == [field["name"] for field in catalog.load("order")["fields"]]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), name=st.sampled_from(catalog.names()))
def test_a_record_goes_to_json_and_back(data: st.DataObject, name: str) -> None:
    record = data.draw(values(catalog.load(name)))
    row = json.loads(json.dumps(to_json(name, record), allow_nan=True))
    if "Infinity" not in json.dumps(row):
        assert from_json(name, row) == record


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T01:00:00.5+01:00", 500),
        ("1969-12-31T23:59:59.999Z", -1),
        ("1970-01-01T00:00:00.0019Z", 1),
        (1_700_000_000_000, 1_700_000_000_000),
        (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 0),
        (datetime(1970, 1, 2, tzinfo=UTC), 86_400_000),
    ],
)
def test_a_time_is_iso_8601_or_milliseconds(value: Any, milliseconds: int) -> None:
    assert from_json("order", order("event_time", value=value))["event_time"] == milliseconds


@pytest.mark.parametrize(
    ("value", "minor_units"),
    [
        ("12.95", 129_500),
        ("-0.0001", -1),
        ("1e3", 10_000_000),
        (3, 30_000),
        (0.1 + 0.2, 3_000),
        (Decimal("2.5"), 25_000),
        (Decimal("2.500000"), 25_000),
        ("99999999999999.9999", 10**18 - 1),
        (0, 0),
        ("0e40", 0),
    ],
)
def test_an_amount_is_a_decimal_of_four_places(value: Any, minor_units: int) -> None:
    assert from_json("order", order("amount", value=value))["amount"] == shortest(minor_units)


@pytest.mark.parametrize(
    ("row", "where", "code"),
    [
        (order("user_id", drop=True), "user_id", "wrong_type"),
        (order("user_id", value=None), "user_id", "wrong_type"),
        (order("user_id", value=7), "user_id", "wrong_type"),
        (order("user_id", value="\ud800"), "user_id", "wrong_type"),
        (order("userid", value="x"), "userid", "wrong_type"),
        (order("email", value=5), "email", "wrong_type"),
        (order("items", value={}), "items", "wrong_type"),
        (order("items", 0, value="x"), "items[0]", "wrong_type"),
        (order("items", 0, "item_id", drop=True), "items[0].item_id", "wrong_type"),
        (order("items", 0, "colour", value="red"), "items[0].colour", "wrong_type"),
        (order("items", 0, "unit_price", value="abc"), "items[0].unit_price", "wrong_type"),
        (order("items", 0, "unit_price", value=True), "items[0].unit_price", "wrong_type"),
        (order("items", 0, "unit_price", value="1.23456"), "items[0].unit_price", "out_of_range"),
        (order("items", 0, "unit_price", value="100000000000000"), "items[0].unit_price", "out_of_range"),
        (order("items", 0, "unit_price", value="1e999999"), "items[0].unit_price", "out_of_range"),
        (order("items", 0, "unit_price", value="1e-999999"), "items[0].unit_price", "out_of_range"),
        (order("items", 0, "unit_price", value=1e300), "items[0].unit_price", "out_of_range"),
        (order("items", 0, "unit_price", value=math.nan), "items[0].unit_price", "out_of_range"),
        (order("items", 0, "unit_price", value="NaN"), "items[0].unit_price", "out_of_range"),
        (order("items", 0, "quantity", value=1.0), "items[0].quantity", "wrong_type"),
        (order("items", 0, "quantity", value=True), "items[0].quantity", "wrong_type"),
        (order("items", 0, "quantity", value=2**31), "items[0].quantity", "out_of_range"),
        (order("event_time", value="2026-01-31"), "event_time", "wrong_type"),
        (order("event_time", value="2026-01-31T12:00:00"), "event_time", "wrong_type"),
        (order("event_time", value="yesterday"), "event_time", "wrong_type"),
        (order("event_time", value=1.5), "event_time", "wrong_type"),
        (order("event_time", value=2**63), "event_time", "out_of_range"),
        (order("event_time", value=datetime.fromisoformat("2026-01-31")), "event_time", "wrong_type"),
        (order("attributes", value={"a": [1]}), "attributes['a']", "wrong_type"),
        (order("attributes", value={"a": math.inf}), "attributes['a']", "out_of_range"),
        (order("attributes", value={1: "a"}), "attributes", "wrong_type"),
        (order("payment", value=None), "payment", "wrong_type"),
        ([1], "", "wrong_type"),
        (None, "", "wrong_type"),
    ],
)
def test_a_row_that_is_not_of_the_contract_is_refused_with_its_place(row: Any, where: str, code: str) -> None:
    with pytest.raises(BadRecord) as caught:
        from_json("order", row)
    assert (caught.value.where, caught.value.code) == (where, code)
    assert caught.value.expected


def test_an_unknown_field_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(BadRecord, match="has no such field") as caught:
        from_json("order", order("ammount", value="1"))
    assert caught.value.expected == "'amount'"


def test_an_unknown_symbol_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadRecord, match="'clik'") as caught:
        from_json("click", {"event_id": "e", "event_time": 0, "user_id": "u", "action": "clik"})
    assert "view, click, cart" in caught.value.expected


def test_a_value_in_a_message_is_cut_short() -> None:
    with pytest.raises(BadRecord) as caught:
        from_json("order", order("items", value="x" * 10_000))
    assert len(str(caught.value)) < 200


def test_an_attribute_keeps_its_type() -> None:
    attributes = {"n": 1, "d": Decimal("0.5"), "s": "x", "b": True, "z": None}
    got = from_json("order", order("attributes", value=attributes))["attributes"]
    assert got == {"n": 1.0, "d": 0.5, "s": "x", "b": True, "z": None}
    assert [type(value) for value in got.values()] == [float, float, str, bool, type(None)]


def test_a_table_may_leave_out_a_field_by_a_null() -> None:
    assert from_json("order", order("attributes", value=None))["attributes"] == {}


def test_rows_of_a_parquet_table_are_understood() -> None:
    schema = pa.schema(
        {
            "event_id": pa.string(),
            "event_time": pa.timestamp("ms", "UTC"),
            "user_id": pa.string(),
            "action": pa.string(),
            "attributes": pa.map_(pa.string(), pa.float64()),
            "position": pa.int32(),
        }
    )
    row = ("e", datetime(2026, 1, 1, tzinfo=UTC), "u", "view", [("a", 0.5)], None)
    table = pa.table({name: [value] for name, value in zip(schema.names, row, strict=True)}, schema)
    record = from_json("click", table.to_pylist()[0])
    assert (record["attributes"], record["position"]) == ({"a": 0.5}, None)
    assert record["event_time"] == 1_767_225_600_000


def test_a_record_reads_well() -> None:
    row = to_json("order", records.order())
    assert row["event_time"] == "2023-11-14T22:13:20.000Z"
    assert (row["amount"], row["items"][0]["unit_price"]) == ("12.50", "12.50")
    assert to_json("order", {"amount": money(0.0125)}) == {"amount": "0.0125"}
    assert to_json("fraud_score", {"probability": float32(0.1)}) == {"probability": 0.1}
    assert to_json("fraud_score", {"probability": math.nan}) == {"probability": "NaN"}
    assert to_json("order", {"event_time": 2**62}) == {"event_time": 2**62}
    assert to_json("dead_letter", {"value": b"\0\xff"}) == {"value": "AP8="}


def test_a_row_goes_over_the_wire() -> None:
    registry = MemoryRegistry()
    message = Encoder(registry, "o", "order")(from_json("order", ORDER))
    assert to_json("order", Decoder(registry, "order")(message))["amount"] == "25.90"
