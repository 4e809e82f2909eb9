"""Confluent's wire format: a zero byte, the schema's id in four bytes, and the Avro record.
Records have physical values here, an int for a time and bytes for an amount; `logical=True` is for people."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from struct import Struct
from struct import error as StructError
from typing import Any

from schemas import catalog
from schemas.catalog import Schema
from schemas.codegen import failed_at
from schemas.column_writing import ColumnWriter, joined, record_writer
from schemas.columns import Table
from schemas.display import shown
from schemas.errors import BadRecord, SchemaError
from schemas.logical import to_logical, to_physical
from schemas.reading import Reader, Record, compile_reader
from schemas.registry import Registry, subject_of
from schemas.writing import compile_writer

HEADER = 5
_framed = Struct(">BI")

_NOT_OF_SCHEMA = (KeyError, ValueError, OverflowError)
_ENDED_EARLY = (IndexError, StructError)
_NOT_WRITABLE = (*_NOT_OF_SCHEMA, *_ENDED_EARLY, TypeError, AttributeError)


class Encoder:
    """Records of the contract `name` to messages of `topic`. Making one registers the contract: SchemaError
    or RegistryUnavailable. A record that is not of the contract is a BadRecord of code wrong_type."""

    def __init__(self, registry: Registry, topic: str, name: str, *, logical: bool = False) -> None:
        self.name, self._logical = name, logical
        self._schema = catalog.load(name)
        self.schema_id = registry.register(subject_of(topic), self._schema)
        self._header = _framed.pack(0, self.schema_id)
        self._write = compile_writer(self._schema, self._header)

    def __call__(self, record: Mapping[str, Any]) -> bytes:
        """The message's value."""
        if self._logical:
            record = to_physical(self._schema, record)
        try:
            return self._write(record)
        except _NOT_WRITABLE as error:
            where, _ = failed_at(error.__traceback__)
            why = f"{error} is missing, or no symbol" if isinstance(error, KeyError) else str(error)
            raise BadRecord("wrong_type", why, where=where or self.name, expected=f"a {self.name}") from error

    @cached_property
    def _columns(self) -> ColumnWriter:
        return record_writer(self._schema)

    def many(self, table: Table, count: int) -> list[bytes]:
        """The values of `count` messages, given by columns; the same bytes and errors as one by one."""
        if not self._logical:
            try:
                return joined(self._header, table.parts(self._columns), count)
            except _NOT_WRITABLE:
                pass  # what is wrong, and where, is for the other way to say
        return [self(record) for record in table.rows(count)]


class Decoder:
    """Messages to records of the contract `name`, written with any schema that resolves to ours.

    A message gives a record or a BadRecord (undecodable, truncated, unknown_schema, wrong_type or
    out_of_range), or RegistryUnavailable where its schema is not known yet and the registry is silent.
    """

    header = HEADER
    """Bytes that tell the schema."""

    def __init__(self, registry: Registry, name: str, *, logical: bool = False) -> None:
        self.name, self._registry, self._logical = name, registry, logical
        self._schema = catalog.load(name)
        self._readers: dict[bytes, Reader] = {}  # by header

    def __call__(self, value: bytes | None) -> Record:
        """The record, or raises what `decode_many` returns."""
        record = self.decode_many((value,))[0]
        if isinstance(record, BadRecord):
            raise record
        return to_logical(self._schema, record) if self._logical else record

    def decode_many(self, values: Sequence[bytes | None]) -> list[Record | BadRecord]:
        """For each value a record in physical values, or what is wrong with it. RegistryUnavailable for all.

        The errors hold no frames: keep as many as you like."""
        readers, header = self._readers, self.header
        results: list[Record | BadRecord] = []
        for value in values:
            try:
                results.append(readers[value[:header]](value))  # type: ignore[index, arg-type]  # None: explained below
            except (*_NOT_OF_SCHEMA, *_ENDED_EARLY, TypeError, BadRecord):
                results.append(self._explained(value))
        return results

    def _explained(self, value: bytes | None) -> Record | BadRecord:
        """As `decode_many` for one value, the slow way: a header not seen before, or a bad message."""
        if value is None:
            return BadRecord("undecodable", "a message without a value", expected=f"a {self.name}")
        try:
            self._check_framing(value)
            if len(value) < self.header:
                what = f"the message is of {len(value)} bytes"
                raise BadRecord("truncated", what, where="header", expected=f"{self.header} bytes and a record")
            return (self._readers.get(value[: self.header]) or self._reader(value[: self.header]))(value)
        except BadRecord as error:
            return _detached(error)
        except (*_NOT_OF_SCHEMA, *_ENDED_EARLY) as error:
            return self._told(value, error)

    def _check_framing(self, value: bytes) -> None:
        if value[:1] not in (b"\0", b""):
            what = f"the first byte is {value[0]}"
            raise BadRecord("undecodable", what, where="byte 0", expected="0, of the Confluent wire format")

    def _reader(self, header: bytes) -> Reader:
        """Of a header that was not seen before."""
        _, schema_id = _framed.unpack(header)
        schema = self._registry.schema(schema_id)
        try:
            self._readers[header] = self._compiled(schema)
        except SchemaError as error:
            self._readers[header] = _refusal(self.name, schema_id, error)
        return self._readers[header]

    def _compiled(self, writer: Schema) -> Reader:
        return compile_reader(writer, self._schema, HEADER)

    def _told(self, value: bytes, error: Exception) -> BadRecord:
        field, at = failed_at(error.__traceback__)
        where = f"{field or self.name}, byte {min(at, len(value))}"
        if isinstance(error, _ENDED_EARLY) or at > len(value):
            what = f"the message ends early, after {len(value)} bytes"
            return BadRecord("truncated", what, where=where, expected=f"a {self.name}")
        what = f"no branch or symbol of number {error}" if isinstance(error, KeyError) else str(error)
        return BadRecord("undecodable", what, where=where, expected=f"a {self.name}")


class WritersDecoder(Decoder):
    """Messages to JSON values (`schemas.display`) by the schema that each was written with, whatever it is: for
    people, and for topics that have no contract here. Errors are those of `Decoder`."""

    def __init__(self, registry: Registry) -> None:
        self.name, self._registry, self._logical = "record of its schema", registry, False
        self._readers = {}

    def _compiled(self, writer: Schema) -> Reader:
        (schema, named), plain = catalog.normalised(writer), catalog.strip(writer)
        read = compile_reader(plain, plain, self.header)
        return lambda value: shown(schema, read(value), named)


def _refusal(name: str, schema_id: int, error: SchemaError) -> Reader:
    """A reader for messages whose schema never resolves to ours; each gets an error of its own."""
    where = f"{error.where or name}, schema id {schema_id}"

    def refuse(value: bytes) -> Record:
        raise BadRecord("wrong_type", error.what, where=where, expected=error.expected or name)

    return refuse


def _detached(error: BadRecord) -> BadRecord:
    """Without the frames that it was raised through: they hold the whole batch in memory."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
