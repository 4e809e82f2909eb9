"""Writers of columns: a type's values in many records, to bytes that are joined into the records.
Strings, floats, arrays and records have ways of their own; the rest goes through the compiled writer, value by value.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from operator import is_
from struct import Struct
from typing import Any, cast

from schemas import resolution, varint
from schemas.catalog import Schema, normalised
from schemas.codegen import MAX_DEPTH
from schemas.columns import Column, Columnar, Parts, Zipped
from schemas.errors import SchemaError
from schemas.resolution import definition, kind
from schemas.writing import compile_column, tell

_join = b"".join
_LENGTH, _MOST = varint.LENGTH, len(varint.LENGTH)
_ENDED = b"\0"
_LISTS, _ZIPPED, _BYTES = {list}, {Zipped}, {bytes}


class ColumnWriter:
    """Writes columns of one type. Equal types have one writer: `column_writer` gives it."""

    def __init__(self, schema: Schema, named: Mapping[str, Any]) -> None:
        self.write = compile_column(schema, named)

    def column(self, column: Column) -> Parts:
        return [self.write(column.values)]

    def one(self, value: Any) -> bytes:
        return self.write((value,))[0]

    def pieces(self, column: Column) -> list[Sequence[bytes]]:
        return [self.write(items) for items in column.values]

    def table(self, columns: Mapping[str, Columnar]) -> Parts:
        raise TypeError("columns for what is no record")


class _Strings(ColumnWriter):
    def column(self, column: Column) -> Parts:
        return [[_LENGTH[len(text)] + text if len(text) < _MOST else _length(len(text)) + text for text in column.utf8]]

    def pieces(self, column: Column) -> list[Sequence[bytes]]:
        return [list(map(tell, items)) for items in column.values]

    def arrays(self, column: Column) -> list[bytes]:
        return [_join((_length(len(pieces)), *pieces, _ENDED)) if pieces else _ENDED for pieces in column.pieces(self)]


class _Bytes(ColumnWriter):
    """Long ones are not copied together with their length."""

    def column(self, column: Column) -> Parts:
        values = column.values
        if set(map(type, values)) != _BYTES:
            return super().column(column)
        lengths = set(map(len, values))
        if len(lengths) == 1:
            return [_length(lengths.pop()), list(values)]
        return [[_length(len(value)) for value in values], list(values)]


class _Floats(ColumnWriter):
    """Of 32 bits; packed by the list, and cut where each is wanted alone."""

    def pieces(self, column: Column) -> list[Sequence[bytes]]:
        return [_floats_cut(len(packed))(packed) for packed in self._packed(column)]

    def arrays(self, column: Column) -> list[bytes]:
        return [_length(len(packed) // 4) + packed + _ENDED if packed else _ENDED for packed in self._packed(column)]

    def _packed(self, column: Column) -> list[bytes]:
        made: list[bytes] | None = column.made.get("packed")
        if made is None:
            made = column.made["packed"] = [_floats_packed(len(items))(*items) for items in column.values]
        return made


class _Arrays(ColumnWriter):
    def __init__(self, schema: Schema, named: Mapping[str, Any]) -> None:
        super().__init__(schema, named)
        self._items = column_writer(cast(dict[str, Any], schema)["items"], named)

    def column(self, column: Column) -> Parts:
        types = set(map(type, column.values))
        if types == _LISTS and isinstance(self._items, (_Strings, _Floats)):
            return [self._items.arrays(column)]
        if types == _ZIPPED and isinstance(self._items, _Records):
            return [self._zipped(column, self._items)]
        return super().column(column)

    def _zipped(self, column: Column, items: "_Records") -> list[bytes]:
        tables: list[dict[str, list[Any]]] = [zipped.columns for zipped in column.values]
        width = len(items.fields)
        if sum(map(len, tables)) != width * len(tables):
            raise ValueError(f"not the {width} fields that the schema has")
        inner = []
        for name, writer, _ in items.fields:
            lists = [table[name] for table in tables]
            inner.append(_found(lists, column.inside).pieces(writer))
        out, mixed = [], [_ENDED]
        for pieces in zip(*inner, strict=True):
            count = len(pieces[0])
            if len(mixed) != width * count + 2:
                mixed = [_length(count), *[b""] * (width * count), _ENDED]
            for first, own in enumerate(pieces, 1):
                mixed[first:-1:width] = own  # ValueError where one list is shorter
            out.append(_join(mixed) if count else _ENDED)
        return out


class _Records(ColumnWriter):
    """`fields`: name, writer, and the default as bytes."""

    def __init__(self, schema: Schema, named: Mapping[str, Any]) -> None:
        super().__init__(schema, named)
        self.fields: list[tuple[str, ColumnWriter, bytes | None]] = []
        for field in cast(dict[str, Any], schema)["fields"]:
            writer, default = column_writer(field["type"], named), None
            if "default" in field:
                default = writer.one(resolution.default(field["type"], field["default"], named))
            self.fields.append((field["name"], writer, default))

    def table(self, columns: Mapping[str, Columnar]) -> Parts:
        parts: Parts = []
        given = 0
        for name, writer, default in self.fields:
            column = columns.get(name)
            if column is not None:
                given += 1
                parts += column.made.get(writer) or column.parts(writer)  # a call less where it is known
            elif default is not None:
                parts.append(default)
            else:
                raise KeyError(name)
        if given != len(columns):
            raise ValueError(f"{len(columns) - given} fields more than the schema has")
        return parts


def record_writer(schema: Schema) -> ColumnWriter:
    """The writer of whole records, for `Table` and `joined`. SchemaError for a schema that it cannot do."""
    return column_writer(*normalised(schema))


def column_writer(schema: Schema, named: Mapping[str, Any]) -> ColumnWriter:
    """The one writer of a type; `named` has the types that it names."""
    schema = definition(schema, named)
    key = _key(schema, named)
    if key not in _WRITERS:
        plain = isinstance(schema, str) or "logicalType" not in schema
        _WRITERS[key] = (_SPECIAL.get(kind(schema), ColumnWriter) if plain else ColumnWriter)(schema, named)
    return _WRITERS[key]


_SPECIAL: dict[str, type[ColumnWriter]] = {
    "string": _Strings,
    "bytes": _Bytes,
    "float": _Floats,
    "array": _Arrays,
    "record": _Records,
}
_WRITERS: dict[str, ColumnWriter] = {}


def _key(schema: Schema, named: Mapping[str, Any], depth: int = 0) -> str:
    """Equal for types that are written alike: with names resolved, without docs."""
    schema = definition(schema, named)
    if depth > 2 * MAX_DEPTH:
        raise SchemaError("the schema is nested too deep, or in itself")
    if isinstance(schema, list):
        return f"[{', '.join(_key(branch, named, depth + 1) for branch in schema)}]"
    if isinstance(schema, str):
        return repr(schema)
    parts = {name: value for name, value in schema.items() if name in ("type", "logicalType", "symbols", "size")}
    inner = {name: _key(schema[name], named, depth + 1) for name in ("items", "values") if name in schema}
    fields = [
        (field["name"], _key(field["type"], named, depth + 1), "default" in field, field.get("default"))
        for field in schema.get("fields", ())
    ]
    return repr((sorted(parts.items()), inner, fields))


def joined(header: bytes, parts: Parts, count: int) -> list[bytes]:
    """`count` records that begin with `header`. ValueError where a part is of another number of records."""
    rows: list[Iterable[bytes]] = []
    fixed = header
    for part in parts:
        if isinstance(part, bytes):
            fixed += part
            continue
        if len(part) != count:
            raise ValueError(f"{len(part)} values for {count} records")
        if fixed:
            rows.append(repeat(fixed, count))
            fixed = b""
        rows.append(part)
    if fixed or not rows:
        rows.append(repeat(fixed, count))
    return list(map(_join, zip(*rows, strict=True)))


def _found(values: list[list[Any]], columns: Sequence[Column]) -> Column:
    """The one of `columns` that holds these very lists, or a new one."""
    for column in columns:
        if len(column.values) == len(values) and all(map(is_, column.values, values)):
            return column
    return Column(values)


def _length(count: int) -> bytes:
    return _LENGTH[count] if count < _MOST else varint.long_bytes(count << 1)


@lru_cache(1024)
def _floats_packed(count: int) -> Callable[..., bytes]:
    return Struct(f"<{count}f").pack


@lru_cache(1024)
def _floats_cut(size: int) -> Callable[[bytes], tuple[bytes, ...]]:
    return Struct("4s" * (size // 4)).unpack
