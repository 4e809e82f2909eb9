"""A writer's schema and ours that differ: what is read, what is refused, and that fastavro agrees."""

import io
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalog import Schema
from schemas.errors import BadRecord, SchemaError
from schemas.reading import compile_reader
from tests.schema_values import MONEY, evolutions, field, read, record_of, reference_bytes, values

quick = settings(max_examples=100, deadline=None)


@pytest.mark.parametrize(
    ("writer", "reader", "value", "result"),
    [
        ("int", "long", 7, 7),
        ("int", "double", 7, 7.0),
        ("long", "float", -3, -3.0),
        ("float", "double", 0.5, 0.5),
        ("string", "bytes", "é", b"\xc3\xa9"),
        ("bytes", "string", b"\xc3\xa9", "é"),
        ("string", ["null", "string"], "x", "x"),
        (["null", "string"], "string", "x", "x"),
        (["null", "int"], ["string", "double", "null"], 3, 3.0),
        ({"type": "array", "items": "int"}, {"type": "array", "items": "float"}, [1, 2], [1.0, 2.0]),
        ("long", {"type": "long", "logicalType": "timestamp-millis"}, 1_700_000_000_000, 1_700_000_000_000),
    ],
)
def test_a_value_of_another_type_becomes_ours_where_avro_lets_it(
    writer: Schema, reader: Schema, value: Any, result: Any
) -> None:
    got = read(record_of([field("a", writer)]), record_of([field("a", reader)]), {"a": value})["a"]
    assert got == result
    assert type(got) is type(result)


@given(data=st.data())
@quick
def test_an_evolved_schema_reads_as_fastavro_resolves_it(data: st.DataObject) -> None:
    writer, reader = data.draw(evolutions())
    message = reference_bytes(parse_schema(writer), data.draw(values(writer)))
    expected = schemaless_reader(io.BytesIO(message), parse_schema(writer), parse_schema(reader))
    assert compile_reader(writer, reader)(message) == expected


def test_a_default_is_new_for_each_record() -> None:
    reader = record_of([field("a", "int"), field("m", {"type": "map", "values": "int"}, default={"k": 1})])
    decode = compile_reader(record_of([field("a", "int")]), reader)
    decode(b"\2")["m"]["k"] = 99
    assert decode(b"\2") == {"a": 1, "m": {"k": 1}}


def test_an_enum_symbol_that_we_lack_takes_our_default() -> None:
    theirs = {"type": "enum", "name": "E", "symbols": ["new", "old"]}
    ours = {"type": "enum", "name": "E", "symbols": ["old", "other"], "default": "other"}
    decode = compile_reader(record_of([field("e", theirs)]), record_of([field("e", ours)]))
    assert [decode(b"\0")["e"], decode(b"\2")["e"]] == ["other", "old"]


def test_a_renamed_field_is_found_by_its_alias() -> None:
    reader = record_of([field("new", "int", aliases=["old"])])
    assert read(record_of([field("old", "int")]), reader, {"old": 4}) == {"new": 4}


def test_a_null_that_ours_cannot_hold_is_an_error_of_that_record_alone() -> None:
    writer, reader = record_of([field("a", ["null", "int"])]), record_of([field("a", "int")])
    decode = compile_reader(writer, reader)
    assert decode(b"\2\6") == {"a": 3}
    with pytest.raises(BadRecord, match="null") as caught:
        decode(b"\0")
    assert (caught.value.code, caught.value.where) == ("wrong_type", "a")


NODE = record_of([field("next", ["null", "Node"])], "Node")


@pytest.mark.parametrize(
    ("writer", "reader", "where"),
    [
        (record_of([], "Other"), record_of([]), ""),
        (record_of([field("a", "string")]), record_of([field("a", "int")]), "a"),
        (record_of([]), record_of([field("a", "int")]), "a"),
        (record_of([field("a", {**MONEY, "scale": 2})]), record_of([field("a", MONEY)]), "a"),
        (record_of([field("a", "bytes")]), record_of([field("a", MONEY)]), "a"),
        (
            record_of([field("t", {"type": "long", "logicalType": "timestamp-micros"})]),
            record_of([field("t", {"type": "long", "logicalType": "timestamp-millis"})]),
            "t",
        ),
        (
            record_of([field("n", record_of([field("n", "Deep")], "Deep"))]),
            record_of([]),
            "n.n.n.n.n.n.n.n.n.n",
        ),
    ],
)
def test_schemas_that_never_resolve_are_refused_with_the_field(writer: Any, reader: Any, where: str) -> None:
    with pytest.raises(SchemaError) as caught:
        compile_reader(writer, reader)
    assert caught.value.where == where


def test_a_list_within_itself_is_read_as_deep_as_it_is_sane() -> None:
    decode = compile_reader(record_of([field("skipped", NODE), field("a", "int")]), record_of([field("a", "int")]))
    assert decode(b"\2\0\2") == {"a": 1}
    with pytest.raises(BadRecord, match="nested too deep"):
        decode(b"\2" * 50 + b"\0\2")


def test_a_schema_that_doubles_at_every_level_is_refused_before_it_fills_the_memory() -> None:
    writer = record_of([field("a", "int")], "R0")
    for level in range(6):
        again = [field(name, f"R{level}") for name in "bcdef"]
        writer = record_of([field("a", writer), *again], f"R{level + 1}")
    with pytest.raises(SchemaError, match="too large"):
        compile_reader(record_of([field("x", writer)]), record_of([]))
