"""Avro without a registry: what others write by the same schema is read, and what is not of it is told apart."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadRecord, SchemaError
from schemas.unframed import MARK, UnframedDecoder, fingerprint
from tests.schema_values import field, record_of, reference_bytes

OLD = record_of([field("a", "long"), field("b", ["null", "string"])])
NEW = record_of([field("a", "long"), field("b", ["null", "string"]), field("c", "double")])
BARE, SINGLE = UnframedDecoder([OLD], single_object=False), UnframedDecoder([OLD, NEW], single_object=True)

numbers, texts = st.integers(-(2**63), 2**63 - 1), st.none() | st.text(max_size=9)


def framed(schema: Any, record: dict[str, Any]) -> bytes:
    return MARK + fingerprint(schema) + reference_bytes(schema, record)


def error_of(decoder: UnframedDecoder, value: bytes | None) -> tuple[str, str]:
    [found] = decoder.decode_many([value])
    assert isinstance(found, BadRecord)
    assert found.__traceback__ is None
    return found.code, found.where


def test_the_fingerprint_is_avros_own_of_the_canonical_form() -> None:
    """The first two are Avro's published test data, low byte first."""
    assert fingerprint("int") == (0x7275D51A3F395C8F).to_bytes(8, "little")
    assert fingerprint("string") == (0x8F014872634503C7).to_bytes(8, "little")
    documented = {**OLD, "doc": "said of it", "fields": [{**OLD["fields"][0], "doc": "more"}, OLD["fields"][1]]}
    assert fingerprint(documented) == fingerprint(OLD) != fingerprint(NEW)


@given(numbers, texts)
def test_a_bare_record_is_read_by_the_one_schema(number: int, text: str | None) -> None:
    record = {"a": number, "b": text}
    assert BARE.decode_many([reference_bytes(OLD, record)]) == [record]


@given(st.lists(st.tuples(numbers, texts, st.booleans()), max_size=5))
def test_each_single_object_is_read_by_its_own_schema(drawn: list[tuple[int, str | None, bool]]) -> None:
    records = [{"a": a, "b": b} | ({"c": 0.5} if new else {}) for a, b, new in drawn]
    assert SINGLE.decode_many([framed(NEW if "c" in each else OLD, each) for each in records]) == records


@given(st.binary(max_size=40))
def test_no_bytes_are_more_than_a_bad_record(value: bytes) -> None:
    for decoder in (BARE, SINGLE):
        for given_ in (value, MARK + fingerprint(OLD) + value):
            [found] = decoder.decode_many([given_])
            assert isinstance(found, dict | BadRecord)


def test_what_is_not_of_its_framing_or_schema_is_told_apart() -> None:
    whole = framed(OLD, {"a": 1, "b": "x"})
    assert error_of(SINGLE, whole[10:]) == ("undecodable", "byte 0")
    assert error_of(SINGLE, b"\0\0\0\0\7" + whole[10:]) == ("undecodable", "byte 0")
    assert error_of(SINGLE, MARK + b"\0" * 8 + whole[10:]) == ("unknown_schema", "header")
    assert error_of(SINGLE, whole[:7])[0] == error_of(SINGLE, b"")[0] == error_of(SINGLE, whole[:-1])[0] == "truncated"
    assert error_of(BARE, whole[10:-1])[0] == error_of(BARE, b"")[0] == "truncated"
    assert error_of(BARE, whole[10:] + b"\0")[0] == "undecodable"
    assert error_of(BARE, None)[0] == "undecodable"


def test_schemas_that_look_the_same_on_the_wire_are_refused() -> None:
    with pytest.raises(SchemaError, match="look the same"):
        UnframedDecoder([OLD, {**OLD, "doc": "other words"}], single_object=True)
    with pytest.raises(SchemaError, match="look the same"):
        UnframedDecoder([OLD, NEW], single_object=False)
