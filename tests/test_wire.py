"""Confluent's framing: what comes in is a record or a BadRecord, and nothing else, whatever the bytes."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import catalog
from schemas.errors import BadRecord, RegistryUnavailable, UnknownSchema
from schemas.registry import MemoryRegistry, subject_of
from schemas.wire import Decoder, Encoder
from tests import records
from tests.schema_values import values

quick = settings(max_examples=100, deadline=None)
CONTRACTS = ("click", "order", "ad_impression", "label", "served")


def codec(name: str = "click") -> tuple[MemoryRegistry, Encoder, Decoder]:
    registry = MemoryRegistry()
    return registry, Encoder(registry, "events", name), Decoder(registry, name)


def refused(decoder: Decoder, value: bytes | None) -> BadRecord:
    with pytest.raises(BadRecord) as caught:
        decoder(value)
    [same] = decoder.decode_many([value])
    assert str(same) == str(caught.value)
    return caught.value


def test_a_message_is_a_zero_the_schemas_id_and_the_record() -> None:
    _, encode, decode = codec()
    assert encode(records.click())[:5] == bytes([0, 0, 0, 0, encode.schema_id])
    assert decode(encode(records.click())) == records.click()


@quick
@given(data=st.data(), name=st.sampled_from(catalog.names()))
def test_a_record_comes_back_as_it_was(data: st.DataObject, name: str) -> None:
    _, encode, decode = codec(name)
    record = data.draw(values(catalog.load(name)))
    assert decode(encode(record)) == record


def test_the_contract_is_registered_under_its_topic() -> None:
    assert subject_of("events.clicks") == "events.clicks-value"


def test_a_newer_writers_fields_are_left_out() -> None:
    registry, encode, decode = codec()
    newer = {
        **catalog.load("click"),
        "fields": [*catalog.load("click")["fields"], {"name": "x", "type": "int"}],
    }
    header = registry.register("other", newer).to_bytes(5, "big")
    assert decode(header + encode(records.click())[5:] + b"\x0e") == records.click()


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda v: None, "undecodable", "without a value"),
        (lambda v: b"", "truncated", "0 bytes"),
        (lambda v: v[:3], "truncated", "3 bytes"),
        (lambda v: v[:5], "truncated", "at event_id"),
        (lambda v: v[:-1], "truncated", "ends early"),
        (lambda v: v + b"\0", "undecodable", "after the record: 1"),
        (lambda v: b'{"event_id": 1}', "undecodable", "first byte is 123"),
        (lambda v: v[:4] + b"\x63" + v[5:], "unknown_schema", "schema id 99"),
        (lambda v: v[:1] + b"\xff\xff\xff\xff" + v[5:], "unknown_schema", "schema id 4294967295"),
        (lambda v: v.replace(b"event-1", b"event\xff\xff"), "undecodable", "at event_id"),
        (lambda v: v[:5] + b"\xff" * 12, "undecodable", "more than 64 bits"),
    ],
)
def test_a_bad_message_says_what_and_where(change: Any, code: str, says: str) -> None:
    _, encode, decode = codec()
    error = refused(decode, change(encode(records.click())))
    assert error.code == code
    assert says in str(error)


def test_a_message_of_another_contract_is_of_the_wrong_type() -> None:
    registry, _, decode = codec()
    error = refused(decode, Encoder(registry, "orders", "order")(records.order()))
    assert (error.code, error.expected) == ("wrong_type", "record headrace.Click")


@pytest.mark.parametrize("schema", ["string", {"type": "record"}, {"type": "nonsense"}, [], 5])
def test_a_message_of_a_schema_of_no_use_is_of_the_wrong_type(schema: Any) -> None:
    registry, _, decode = codec()
    header = registry.register("other", schema).to_bytes(5, "big")
    assert refused(decode, header + b"\0").code == "wrong_type"


TYPES = ["record", "array", "map", "enum", "fixed", "string", "null", "int", "Click", "headrace.Click"]
WORDS = [*TYPES, "", 0, None, True]
KEYS = ["type", "name", "fields", "items", "values", "symbols", "size", "default", "logicalType", "aliases"]
JSON = st.recursive(
    st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


@quick
@given(schema=JSON, field_type=JSON, value=st.binary(max_size=20))
def test_any_schema_that_a_registry_may_give_ends_in_a_record_or_a_bad_record(
    schema: Any, field_type: Any, value: bytes
) -> None:
    registry, _, decode = codec()
    click = catalog.load("click")
    wider = {**click, "fields": [{"name": "odd", "type": field_type}, *click["fields"]]}
    for one in (schema, wider):
        header = registry.register("other", one).to_bytes(5, "big")
        [result] = decode.decode_many([header + value])
        assert isinstance(result, dict | BadRecord)


def test_money_of_another_scale_is_refused_before_it_is_misread() -> None:
    registry, encode, decode = codec("catalog_item")
    pence = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}
    fields = [{**one, "type": ["null", pence]} if one["name"] == "price" else one for one in encode._schema["fields"]]
    item = {"item_id": "a", "text": "a", "updated_at": 0, "price": b"\1"}
    header = registry.register("other", {**encode._schema, "fields": fields}).to_bytes(5, "big")
    error = refused(decode, header + encode(item)[5:])
    assert (error.code, error.where) == ("wrong_type", "price")
    assert "decimal(18, 2)" in error.what


def test_good_messages_come_through_between_bad_ones_in_order() -> None:
    _, encode, decode = codec()
    good = encode(records.click())
    results = decode.decode_many([good, None, good[:9], b"\1", good])
    assert [getattr(result, "code", "good") for result in results] == [
        "good", "undecodable", "truncated", "undecodable", "good",
    ]  # fmt: skip


def test_errors_hold_no_frames() -> None:
    registry, encode, decode = codec()
    other = Encoder(registry, "orders", "order")(records.order())
    for error in decode.decode_many([encode(records.click())[:9], other, b"\0\0\0\0\x63xx"]):
        assert isinstance(error, BadRecord)
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


@quick
@given(value=st.binary(max_size=200), framed=st.booleans(), name=st.sampled_from(CONTRACTS))
def test_any_bytes_give_a_record_or_a_bad_record(value: bytes, framed: bool, name: str) -> None:
    _, encode, decode = codec(name)
    header = bytes([0, 0, 0, 0, encode.schema_id]) if framed else b""
    [result] = decode.decode_many([header + value])
    assert isinstance(result, dict | BadRecord)


@quick
@given(data=st.data(), name=st.sampled_from(CONTRACTS))
def test_a_good_message_with_any_damage_gives_a_record_or_a_bad_record(data: st.DataObject, name: str) -> None:
    _, encode, decode = codec(name)
    message = bytearray(encode(data.draw(values(catalog.load(name)))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(message) - 1))
        message[at] = data.draw(st.integers(0, 255))
    [result] = decode.decode_many([bytes(message)])
    assert isinstance(result, dict | BadRecord)


def test_a_silent_registry_stops_unknown_schemas_and_not_known_ones() -> None:
    registry, encode, decode = codec()
    message = encode(records.click())
    decode(message)
    registry.available = False
    assert decode.decode_many([message]) == [records.click()]
    with pytest.raises(RegistryUnavailable):
        decode.decode_many([message, b"\0\0\0\0\x09xx"])
    registry.available = True
    assert isinstance(decode.decode_many([message, b"\0\0\0\0\x09xx"])[1], UnknownSchema)


def test_a_known_schema_is_asked_for_once() -> None:
    registry, encode, decode = codec()
    decode.decode_many([encode(records.click())] * 3)
    assert registry.requests == 2  # the registration, and one question


def test_a_record_that_is_not_of_the_contract_is_refused_with_its_field() -> None:
    _, encode, _ = codec("order")
    changes: list[tuple[dict[str, Any], str]] = [
        ({"items": [records.line(quantity="2")]}, "items[].quantity"),
        ({"amount": 12.5}, "amount"),
        ({"colour": "red"}, "order"),
    ]
    for change, where in changes:
        with pytest.raises(BadRecord) as caught:
            encode({**records.order(), **change})
        assert (caught.value.code, caught.value.where) == ("wrong_type", where)


def test_logical_codecs_speak_datetimes_and_decimals() -> None:
    registry = MemoryRegistry()
    encode, decode = Encoder(registry, "o", "order", logical=True), Decoder(registry, "order", logical=True)
    record = decode(encode(records.order()))
    assert str(record["amount"]) == "12.5000"
    assert record["event_time"].isoformat() == "2023-11-14T22:13:20+00:00"
    assert decode(encode(record)) == record


def test_a_time_without_a_zone_is_not_written() -> None:
    encode = Encoder(MemoryRegistry(), "o", "order", logical=True)
    local = datetime.fromisoformat("2026-01-01T00:00:00")
    with pytest.raises(BadRecord) as caught:
        encode({**records.order(), "event_time": local})
    assert (caught.value.code, caught.value.where) == ("wrong_type", "event_time")


def test_a_time_beyond_the_calendar_is_out_of_range_for_people_and_fine_for_machines() -> None:
    registry, encode, decode = codec("order")
    message = encode(records.order(event_time=2**62))
    assert decode(message)["event_time"] == 2**62
    with pytest.raises(BadRecord) as caught:
        Decoder(registry, "order", logical=True)(message)
    assert (caught.value.code, caught.value.where) == ("out_of_range", "event_time")
