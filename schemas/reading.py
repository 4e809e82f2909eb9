"""Compiles a writer's schema and ours into one function from bytes to a record, by Avro's schema resolution.
What can never resolve is a SchemaError here; what only some records break, the function raises itself."""

import copy
from collections.abc import Callable, Mapping
from struct import Struct, unpack_from
from typing import Any

from schemas import resolution, varint
from schemas.catalog import Schema, normalised
from schemas.codegen import MAX_DEPTH, Source
from schemas.decimals import MOST_BYTES, excess, sure_bytes
from schemas.errors import BadRecord, SchemaError
from schemas.resolution import definition, kind

Record = dict[str, Any]
Reader = Callable[[bytes], Record]

_BRANCHES = 64
"""As many branches of a union, or symbols of an enum, as one byte can number."""


def compile_reader(writer: Schema, reader: Schema, start: int = 0) -> Reader:
    """A function from a message, written as `writer` from `start` on, to a record of `reader`, physical.

    It raises IndexError or struct.error where the bytes end early, KeyError, ValueError or OverflowError
    where they are not of the writer's schema, BadRecord where a value has no place in ours. It allocates no
    more than the message can fill. SchemaError, with the field, where the two schemas do not resolve.
    """
    source = Source("read(d)")
    source.line(f"p = {start}")
    their, ours = normalised(writer), normalised(reader)
    result = _Compiler(source, their[1], ours[1]).value(their[0], ours[0], "")
    source.line("if p != len(d): ended(p, d)")
    source.line(f"return {result}")
    return source.compiled("Avro reader", _GIVEN)


def _ended(at: int, data: bytes) -> None:
    if at > len(data):
        raise IndexError("the bytes end early")
    raise ValueError(f"bytes after the record: {len(data) - at}")


def _misplaced(path: str, what: str, expected: str) -> None:
    raise BadRecord("wrong_type", what, where=path, expected=expected)


def _amount(path: str, data: bytes, at: int, size: int, precision: int) -> None:
    """Looks at a decimal that may have too many digits; one that the message does not hold ends early elsewhere."""
    what = f"a decimal of {size} bytes" if size > MOST_BYTES else excess(data[at : at + size], precision)
    if what:
        raise BadRecord("out_of_range", what, where=path, expected=f"at most {precision} digits")


_GIVEN = {
    **{name: getattr(varint, name) for name in ("long_at", "int_at", "length_at", "time_at", "count_at")},
    "float_at": Struct("<f").unpack_from,
    "double_at": Struct("<d").unpack_from,
    "unpack_from": unpack_from,
    "deepcopy": copy.deepcopy,
    "booleans": {0: False, 1: True},
    "ended": _ended,
    "misplaced": _misplaced,
    "amount": _amount,
}


class _Compiler:
    """Emits the code for a pair of schemas: `d` is the message, `p` the position, `n` a scratch number."""

    def __init__(self, source: Source, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        self._source, self._theirs, self._ours = source, theirs, ours
        self._depth = 0

    def value(self, writer: Schema, reader: Schema | None, path: str) -> str:
        """Emit what reads a value, and give the expression that then holds it. No reader: read and forget."""
        writer = definition(writer, self._theirs)
        reader = None if reader is None else definition(reader, self._ours)
        if self._depth > MAX_DEPTH:
            raise SchemaError("the schema is nested too deep, or in itself", where=path)
        self._depth += 1
        try:
            if isinstance(writer, list):
                return self._union(writer, reader, path)
            if isinstance(reader, list):
                reader = resolution.branch(writer, reader, self._ours, path)
            if reader is not None:
                resolution.check(writer, reader, path)
            return self._resolved(writer, reader, path)
        finally:
            self._depth -= 1

    def _resolved(self, writer: Schema, reader: Any, path: str) -> str:
        if isinstance(writer, dict) and kind(writer) in ("record", "error", "array", "map", "enum", "fixed"):
            emit: Callable[[Any, Any, str], str] = getattr(self, f"_{kind(writer)}")
            return emit(writer, reader, path)
        result = self._primitive(kind(writer), reader, path)
        promotion = None if reader is None else resolution.PROMOTIONS.get((kind(writer), kind(reader)))
        return result if promotion is None else self._assigned(promotion.format(result), path)

    def _assigned(self, expression: str, path: str) -> str:
        name = self._source.variable()
        self._source.line(f"{name} = {expression}", path)
        return name

    def _primitive(self, what: str, reader: Any, path: str) -> str:
        if what == "null":
            return "None"
        if what == "boolean":
            return self._fixed_width("booleans[d[p]]", 1, path)
        if what in ("float", "double"):
            return self._fixed_width(f"{what}_at(d, p)[0]", 4 if what == "float" else 8, path)
        if what in ("int", "long"):
            return self._number(what, reader, path)
        return self._bytes(".decode()" if what == "string" else "", reader, path)

    def _fixed_width(self, expression: str, size: int, path: str) -> str:
        name = self._assigned(expression, path)
        self._source.line(f"p += {size}", path)
        return name

    def _number(self, what: str, reader: Any, path: str) -> str:
        name = self._source.variable()
        if what == "long" and isinstance(reader, dict):  # a timestamp
            self._source.line(f"{name}, p = time_at(d, p)", path)
            return name
        self._source.line(f"if (n := d[p]) < 128: p += 1; {name} = n >> 1 ^ -(n & 1)", path)
        self._source.line(f"else: {name}, p = {what}_at(d, p)", path)
        return name

    def _bytes(self, convert: str, reader: Any, path: str) -> str:
        """A slice beyond the message's end is short, not an error; but `p` is then beyond it, which shows."""
        self._source.line("if (n := d[p]) & 129: n, p = length_at(d, p)", path)
        self._source.line("else: n >>= 1; p += 1", path)
        if isinstance(reader, dict) and reader.get("logicalType") == "decimal":
            precision = reader["precision"]
            self._source.line(f"if n > {sure_bytes(precision)}: amount({path!r}, d, p, n, {precision})", path)
        return self._assigned(f"d[p:(p := p + n)]{convert}", path)

    def _fixed(self, writer: Mapping[str, Any], reader: Any, path: str) -> str:
        return self._assigned(f"d[p:(p := p + {writer['size']})]", path)

    def _enum(self, writer: Mapping[str, Any], reader: Any, path: str) -> str:
        if len(writer["symbols"]) > _BRANCHES:
            raise SchemaError("too many symbols", where=path, expected=f"at most {_BRANCHES}")
        known = writer["symbols"] if reader is None else reader["symbols"]
        other = None if reader is None else reader.get("default")
        taken = {2 * n: one if one in known else other for n, one in enumerate(writer["symbols"])}
        symbols = {byte: symbol for byte, symbol in taken.items() if symbol is not None}
        return self._fixed_width(f"{self._source.constant(symbols)}[d[p]]", 1, path)

    def _array(self, writer: Mapping[str, Any], reader: Any, path: str) -> str:
        if self._takes_nothing(writer["items"]):
            # A few bytes could stand for any number of them, and blocks of many such make hours of a megabyte.
            raise SchemaError("the writer has a list of what takes no bytes", where=path, expected="items of a byte")
        items, source = self._assigned("[]", path), self._source
        with source.block("while True:", path):
            self._count(path)
            if (writer["items"], reader and reader["items"]) in (("float", "float"), ("double", "double")):
                letter, size = ("f", 4) if writer["items"] == "float" else ("d", 8)
                source.line(f"{items} += unpack_from(f'<{{n}}{letter}', d, p); p += {size} * n", path)
                return items
            with source.block("for _ in range(n):", path):
                item = self.value(writer["items"], reader and reader["items"], f"{path}[]")
                source.line(f"{items}.append({item})", path)
        return items

    def _takes_nothing(self, writer: Schema, depth: int = 0) -> bool:
        """Whether values of it have no bytes on the wire. A union has its branch's number, a list its end."""
        writer = definition(writer, self._theirs)
        if depth > MAX_DEPTH:
            return False  # in itself: refused as such
        if isinstance(writer, dict) and kind(writer) in ("record", "error"):
            return all(self._takes_nothing(field["type"], depth + 1) for field in writer["fields"])
        return kind(writer) == "null" or (isinstance(writer, dict) and writer.get("size") == 0)

    def _count(self, path: str) -> None:
        """The items of an array's or map's block; 0 ends it."""
        self._source.line("if (n := d[p]) & 129: n, p = count_at(d, p)", path)
        self._source.line("else: n >>= 1; p += 1", path)
        self._source.line("if not n: break", path)

    def _map(self, writer: Mapping[str, Any], reader: Any, path: str) -> str:
        pairs, source = self._assigned("{}", path), self._source
        with source.block("while True:", path):
            self._count(path)
            with source.block("for _ in range(n):", path):
                key = self._bytes(".decode()", None, path)
                value = self.value(writer["values"], reader and reader["values"], f"{path}[]")
                source.line(f"{pairs}[{key}] = {value}", path)
        return pairs

    def _record(self, writer: Mapping[str, Any], reader: Any, path: str) -> str:
        held: dict[str, str] = {}
        names = [field["name"] for field in writer["fields"]]
        for field in writer["fields"]:
            ours = None if reader is None else resolution.field_of(reader, field["name"], names)
            result = self.value(field["type"], ours and ours["type"], _joined(path, field["name"]))
            if ours is not None:
                held[ours["name"]] = result
        if reader is None:
            return "None"
        for field in reader["fields"]:
            if field["name"] not in held:
                held[field["name"]] = self._default(field, _joined(path, field["name"]))
        ordered = (f"{field['name']!r}: {held[field['name']]}" for field in reader["fields"])
        return "{" + ", ".join(ordered) + "}"

    def _default(self, field: Mapping[str, Any], path: str) -> str:
        if "default" not in field:
            raise SchemaError("the writer has no such field, and it has no default", where=path)
        value = resolution.default(field["type"], field["default"], self._ours)
        if isinstance(value, dict | list):
            return f"deepcopy({self._source.constant(value)})" if value else repr(value)
        return self._source.constant(value)

    def _union(self, writer: list[Any], reader: Any, path: str) -> str:
        """A branch that has no place in ours is an error of the records that take it, not of the schema."""
        if not 0 < len(writer) <= _BRANCHES:
            raise SchemaError(f"a union of {len(writer)}", where=path, expected=f"1 to {_BRANCHES} branches")
        source, name, failures = self._source, self._source.variable(), []
        source.line("n = d[p]; p += 1", path)
        for index, branch in enumerate(writer):
            with source.block(f"{'elif' if index else 'if'} n == {2 * index}:", path):
                mark = source.mark()
                try:
                    source.line(f"{name} = {self.value(branch, reader, path)}", path)
                except SchemaError as error:
                    failures.append(error)
                    source.rewind(mark)
                    source.line(f"misplaced({error.where!r}, {error.what!r}, {error.expected!r})", path)
        if len(failures) == len(writer):
            raise failures[-1]
        source.line("else: raise KeyError(n)", path)
        return name


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
