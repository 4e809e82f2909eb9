"""The compiled codecs against fastavro, which is the reference for what the bytes mean."""

import io
import math
import struct
import tracemalloc
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from fastavro import parse_schema, schemaless_reader
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import catalog
from schemas.codegen import failed_at
from schemas.errors import BadRecord
from schemas.reading import Reader, compile_reader
from schemas.varint import long_bytes
from schemas.writing import Writer, compile_writer
from tests.schema_values import MONEY, field, read, record_of, reference_bytes, shortest, values

READERS: dict[str, Reader] = {n: compile_reader(catalog.load(n), catalog.load(n)) for n in catalog.names()}
WRITERS: dict[str, Writer] = {n: compile_writer(catalog.load(n)) for n in catalog.names()}
REFERENCES = {n: parse_schema(catalog.physical(n)) for n in catalog.names()}

quick = settings(max_examples=25, deadline=None)
contracts = pytest.mark.parametrize("name", catalog.names())


@contracts
@given(data=st.data())
@quick
def test_what_is_written_is_what_fastavro_writes(name: str, data: st.DataObject) -> None:
    record = data.draw(values(catalog.load(name)))
    assert WRITERS[name](record) == reference_bytes(REFERENCES[name], record)


@contracts
@given(data=st.data())
@quick
def test_what_fastavro_writes_is_read_as_it_was(name: str, data: st.DataObject) -> None:
    record = data.draw(values(catalog.load(name)))
    assert READERS[name](reference_bytes(REFERENCES[name], record)) == record


@contracts
@given(data=st.data())
@quick
def test_whatever_bytes_are_accepted_mean_the_same_to_fastavro(name: str, data: st.DataObject) -> None:
    """Ours refuses more: negative branch numbers, booleans of 2, numbers too large, bytes after the end."""
    message = data.draw(garbled(WRITERS[name](data.draw(values(catalog.load(name))))))
    try:
        record = READERS[name](message)
    except (LookupError, ValueError, OverflowError, struct.error, BadRecord):
        return
    assert repr(record) == repr(schemaless_reader(io.BytesIO(message), REFERENCES[name], None))


@st.composite
def garbled(draw: st.DrawFn, message: bytes) -> bytes:
    """The message with a part of it replaced by anything."""
    start = draw(st.integers(0, len(message)))
    end = draw(st.integers(start, min(len(message), start + 8)))
    return message[:start] + draw(st.binary(max_size=8)) + message[end:]


def test_a_field_left_out_takes_its_default() -> None:
    schema = record_of([field("a", "int"), field("b", {"type": "array", "items": "int"}, default=[])])
    write = compile_writer(schema)
    assert write({"a": 1}) == write({"a": 1, "b": []})


@pytest.mark.parametrize(
    ("record", "path"),
    [
        ({"lines": []}, "user"),
        ({"user": "u", "lines": [], "extra": 1}, ""),
        ({"user": 1, "lines": []}, "user"),
        ({"user": "u", "lines": "text"}, "lines"),
        ({"user": "u", "lines": [{"price": "1", "kind": "a"}]}, "lines[].price"),
        ({"user": "u", "lines": [{"price": 1 << 31, "kind": "a"}]}, "lines[].price"),
        ({"user": "u", "lines": [{"price": 1.0, "kind": "a"}]}, "lines[].price"),
        ({"user": "u", "lines": [{"price": 1, "kind": "z"}]}, "lines[].kind"),
        ({"user": "u\ud800", "lines": []}, "user"),
    ],
)
def test_a_record_that_is_not_of_the_schema_is_refused_with_its_field(record: Any, path: str) -> None:
    line = record_of([field("price", "int"), field("kind", {"type": "enum", "name": "K", "symbols": ["a"]})], "L")
    items = {"type": "array", "items": {**line, "namespace": "x"}}
    write = compile_writer(record_of([field("user", "string"), field("lines", items)]))
    with pytest.raises((LookupError, TypeError, ValueError, AttributeError, OverflowError)) as caught:
        write(record)
    assert failed_at(caught.value.__traceback__)[0] == path


def test_numpy_numbers_are_written_as_what_they_are() -> None:
    schema = record_of([field("n", "int"), field("m", "long"), field("p", {"type": "array", "items": "float"})])
    numbers = {"n": np.uint8(200), "m": np.int32(2**31 - 1), "p": np.array([0.5, 2], np.float32)}
    assert read(schema, schema, numbers) == {"n": 200, "m": 2**31 - 1, "p": [0.5, 2.0]}


def test_keys_without_end_are_refused_by_their_count() -> None:
    writer = record_of([field("nulls", {"type": "map", "values": "null"})])
    with pytest.raises(IndexError):
        compile_reader(writer, record_of([]))(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"\0")


@pytest.mark.parametrize("count", [1 << 62, -(1 << 62), -(1 << 63), 1 << 31, 10_000])
@pytest.mark.parametrize(
    "of",
    [
        "bytes",
        "string",
        {"type": "array", "items": "string"},
        {"type": "array", "items": "float"},
        {"type": "array", "items": record_of([field("n", "boolean")], "Small")},
        {"type": "map", "values": "null"},
    ],
)
def test_a_huge_count_or_length_allocates_nothing(of: Any, count: int) -> None:
    schema = record_of([field("a", of), field("b", "int")])
    decode = compile_reader(schema, schema)
    message = long_bytes(count << 1 ^ count >> 63) + b"\0" * 40
    tracemalloc.start()
    with pytest.raises((IndexError, OverflowError, struct.error)):
        decode(message)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000


@pytest.mark.parametrize(
    "unscaled", [b"\x7f" * 10, b"\0" * 9, *map(shortest, (10**18, -(10**18), 2**63 - 1, -(2**63)))]
)
def test_an_amount_of_more_digits_than_its_schema_is_refused_by_reader_and_writer_alike(unscaled: bytes) -> None:
    schema = record_of([field("a", MONEY)])
    with pytest.raises(BadRecord) as caught:
        compile_reader(schema, schema)(long_bytes(len(unscaled) << 1) + unscaled)
    assert (caught.value.code, caught.value.expected) == ("out_of_range", "at most 18 digits")
    with pytest.raises(OverflowError, match="at most 18 digits"):
        compile_writer(schema)({"a": unscaled})


@given(st.integers(4, 18), st.integers(-(10**18), 10**18), st.integers(0, 3))
def test_what_the_reader_takes_of_amounts_is_what_the_writer_takes(precision: int, number: int, padding: int) -> None:
    """Also of amounts that another client has written longer than they need to be."""
    schema = record_of([field("a", {**MONEY, "precision": precision})])
    unscaled = (b"\xff" if number < 0 else b"\0") * padding + shortest(number)
    fits = abs(number) < 10**precision and len(unscaled) <= 8
    message = long_bytes(len(unscaled) << 1) + unscaled
    for takes, wrong in (
        (lambda: compile_reader(schema, schema)(message)["a"], BadRecord),
        (lambda: compile_writer(schema)({"a": unscaled}), OverflowError),
    ):
        with nullcontext() if fits else pytest.raises(wrong):
            assert takes() in (unscaled, message)


def test_an_amount_that_its_message_does_not_hold_is_cut_off_and_not_too_long() -> None:
    schema = record_of([field("a", MONEY)])
    with pytest.raises(IndexError):
        compile_reader(schema, schema)(b"\x10" + b"\x7f" * 3)


@pytest.mark.parametrize("message", [b"\x80" * 11, b"\xff" * 9 + b"\x03", b"\x80\x80\x80\x80\x20"])
def test_a_number_beyond_its_type_is_refused(message: bytes) -> None:
    schema = record_of([field("a", "int")])
    with pytest.raises(OverflowError):
        compile_reader(schema, schema)(message)


def test_not_a_number_survives() -> None:
    schema = record_of([field("a", "float"), field("b", "double")])
    got = read(schema, schema, {"a": math.nan, "b": -math.inf})
    assert math.isnan(got["a"])
    assert got["b"] == -math.inf
