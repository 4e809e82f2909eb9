"""Compiles a schema into one function from a record of physical values to bytes.
Defaults fill what a record leaves out; an unknown field or a wrong type is an error."""

from collections.abc import Callable, Iterable, Mapping
from operator import index
from struct import Struct, pack
from typing import Any

from schemas import resolution, varint
from schemas.catalog import Schema, normalised
from schemas.codegen import MAX_DEPTH, Source
from schemas.columns import Zipped
from schemas.decimals import excess, sure_bytes
from schemas.errors import SchemaError
from schemas.resolution import definition, kind

Writer = Callable[[Mapping[str, Any]], bytes]

TOLD = 1 << 16  # strings

_PYTHON_TYPES = {
    "null": "type(None)",
    "boolean": "bool",
    "int": "int",
    "long": "int",
    "float": "float",
    "double": "float",
    "string": "str",
    "enum": "str",
    "bytes": "bytes",
    "fixed": "bytes",
    "array": "list",
    "map": "dict",
    "record": "dict",
}


def compile_writer(schema: Schema, header: bytes = b"") -> Writer:
    """A function from a record to `header` and its bytes as `schema` lays out. The record is not changed.

    It raises KeyError, TypeError, ValueError, AttributeError, OverflowError or struct.error where the record
    is not of the schema; `codegen.failed_at` then names the field. SchemaError for one that it cannot do.
    """
    source = Source("write(r)")
    schema, named = normalised(schema)
    parts = _Compiler(source, named).value(schema, "r", "")
    source.line(f"return b''.join(({source.constant(header)}, {', '.join(parts)}))")
    return source.compiled("Avro writer", _GIVEN)


def compile_column(schema: Schema, named: Mapping[str, Any]) -> Callable[[Iterable[Any]], list[bytes]]:
    """A function from values to the bytes of each, as `compile_writer` writes and raises. `named`: see `normalised`."""
    source = Source("write(values)")
    source.line("out = []; append = out.append")
    with source.block("for r in values:"):
        parts = _Compiler(source, named).value(schema, "r", "")
        source.line(f"append({_whole(parts)})")
    source.line("return out")
    return source.compiled("Avro column writer", _GIVEN)


def _completed(record: Mapping[str, Any], defaults: Mapping[str, Any], size: int) -> Mapping[str, Any]:
    """The record with the defaults of what it leaves out, where that makes a record of `size` fields."""
    whole = {**defaults, **record}
    if len(whole) > size:
        raise ValueError(f"{len(whole) - size} fields more than the schema has")
    return whole  # what is still missing is a KeyError of its own line


def _as_bytes(value: Any) -> bytes:
    if not isinstance(value, bytearray | memoryview):
        raise TypeError(f"{value!r} is not bytes")
    return bytes(value)


def _amount(value: bytes, precision: int) -> None:
    if what := excess(value, precision):
        raise OverflowError(f"{what}, and at most {precision} digits have a place")


class _Told(dict[str, bytes]):
    """Strings as they are written. Ids inside arrays (items, ads) come again and again: a look-up is four times as
    fast as encoding. Bounded: it starts anew when full."""

    def __missing__(self, text: str) -> bytes:
        encoded = text.encode()
        if len(self) >= TOLD:
            self.clear()
        told = self[text] = varint.long_bytes(len(encoded) << 1) + encoded
        return told


_told = _Told()
tell = _told.__getitem__
"""A string's length and bytes."""

_GIVEN = {
    "zipped": Zipped,
    "ended": varint.ENDED,
    "length": varint.LENGTH,
    "long_bytes": varint.long_bytes,
    "continued": varint.CONTINUED,
    "long_rest": varint.LONG_REST,
    "int_rest": varint.INT_REST,
    "float_bytes": Struct("<f").pack,
    "double_bytes": Struct("<d").pack,
    "pack": pack,
    "index": index,
    "booleans": {False: b"\0", True: b"\1"},
    "completed": _completed,
    "as_bytes": _as_bytes,
    "amount": _amount,
    "told": _told,
    "tell": tell,
}


class _Compiler:
    """Emits the code for one schema: `z` and `s` are scratch. Methods give the expressions of the parts."""

    def __init__(self, source: Source, named: Mapping[str, Any]) -> None:
        self._source, self._named = source, named
        self._depth = self._arrays = 0

    def value(self, schema: Schema, held: str, path: str) -> list[str]:
        """Emit what encodes the value that the expression `held` gives; the parts to join, in order."""
        schema = definition(schema, self._named)
        if self._depth > MAX_DEPTH:
            raise SchemaError("the schema is nested too deep, or in itself", where=path)
        self._depth += 1
        emit: Callable[[Any, str, str], list[str]] = getattr(self, f"_{kind(schema)}")
        parts = emit(schema, held, path)
        self._depth -= 1
        return parts

    def _assigned(self, expression: str, path: str) -> str:
        name = self._source.variable()
        self._source.line(f"{name} = {expression}", path)
        return name

    def _null(self, schema: Schema, held: str, path: str) -> list[str]:
        self._source.line(f"if {held} is not None: raise TypeError('not null')", path)
        return []

    def _boolean(self, schema: Schema, held: str, path: str) -> list[str]:
        return [self._assigned(f"booleans[{held}]", path)]

    def _int(self, schema: Schema, held: str, path: str) -> list[str]:
        return self._number("int", held, path)

    def _long(self, schema: Schema, held: str, path: str) -> list[str]:
        return self._number("long", held, path)

    def _number(self, what: str, held: str, path: str) -> list[str]:
        """numpy's integers become Python's first: theirs wrap around when shifted."""
        name = self._assigned(held, path)
        self._source.line(f"if type({name}) is not int: {name} = index({name})", path)
        self._source.line(f"z = {name} << 1 ^ {name} >> 63", path)
        longer = f"continued[z & {varint.CHUNK - 1}] + {what}_rest[z >> 14]"
        return [self._assigned(f"ended[z] if z < {varint.CHUNK} else {longer}", path)]

    def _float(self, schema: Schema, held: str, path: str) -> list[str]:
        return [self._assigned(f"float_bytes({held})", path)]

    def _double(self, schema: Schema, held: str, path: str) -> list[str]:
        return [self._assigned(f"double_bytes({held})", path)]

    def _string(self, schema: Schema, held: str, path: str) -> list[str]:
        if self._arrays:
            return [self._assigned(f"told[{held}]", path)]
        return self._sized(self._assigned(f"{held}.encode()", path), path)

    def _bytes(self, schema: Schema, held: str, path: str) -> list[str]:
        name = self._assigned(held, path)
        self._source.line(f"if type({name}) is not bytes: {name} = as_bytes({name})", path)
        if isinstance(schema, dict) and schema.get("logicalType") == "decimal":
            precision = schema["precision"]
            self._source.line(f"if len({name}) > {sure_bytes(precision)}: amount({name}, {precision})", path)
        return self._sized(name, path)

    def _sized(self, name: str, path: str) -> list[str]:
        return [self._assigned(f"{self._length(name)}", path), name]

    def _length(self, name: str) -> str:
        return f"length[s] if (s := len({name})) < {varint.CHUNK // 2} else long_bytes(s << 1)"

    def _fixed(self, schema: Mapping[str, Any], held: str, path: str) -> list[str]:
        name = self._assigned(held, path)
        self._source.line(f"if len({name}) != {schema['size']}: raise ValueError('not of its size')", path)
        return [name]

    def _enum(self, schema: Mapping[str, Any], held: str, path: str) -> list[str]:
        symbols = {symbol: varint.long_bytes(2 * n) for n, symbol in enumerate(schema["symbols"])}
        return [self._assigned(f"{self._source.constant(symbols)}[{held}]", path)]

    def _array(self, schema: Mapping[str, Any], held: str, path: str) -> list[str]:
        items, source = self._assigned(held, path), self._source
        source.line(f"if type({items}) is str: raise TypeError('a string, not an array')", path)
        result = self._assigned("b'\\0'", path)
        with source.block(f"if len({items}):", path):
            if schema["items"] in ("float", "double"):
                packed = f"pack(f'<{{len({items})}}{schema['items'][0]}', *{items})"
                source.line(f"{result} = ({self._length(items)}) + {packed} + b'\\0'", path)
                return [result]
            if schema["items"] == "string":
                joined = f"b''.join([{self._length(items)}, *map(tell, {items}), b'\\0'])"
                source.line(f"{result} = {joined}", f"{path}[]")
                return [result]
            parts = self._assigned(f"[{self._length(items)}]", path)
            self._arrays += 1
            of = definition(schema["items"], self._named)
            if isinstance(of, dict) and of["type"] == "record" and of["fields"] and self._arrays == 1:
                items = self._zipped(of, items, parts, path)
            with source.block(f"for {(item := source.variable())} in {items}:", path):
                inner = self.value(of, item, f"{path}[]")
                source.line(f"{parts} += ({', '.join(inner)},)", path)
            self._arrays -= 1
            source.line(f"{parts}.append(b'\\0'); {result} = b''.join({parts})", path)
        return [result]

    def _zipped(self, schema: Mapping[str, Any], items: str, parts: str, path: str) -> str:
        """Emit what encodes `Zipped` items into the list `parts`; the expression for what is left to be encoded."""
        source, fields = self._source, schema["fields"]
        whole = self._assigned(f"type({items}) is zipped and len({items}.columns) == {len(fields)}", path)
        with source.block(f"if {whole}:", path):
            names = [source.variable() for _ in fields]
            lists = ", ".join(f"{items}.columns[{field['name']!r}]" for field in fields)
            with source.block(f"for {', '.join(names)}, in zip({lists}, strict=True):", path):
                inner: list[str] = []
                for name, field in zip(names, fields, strict=True):
                    inner += self.value(field["type"], name, f"{path}[].{field['name']}")
                source.line(f"{parts} += ({', '.join(inner)},)" if inner else "pass", path)
        return f"() if {whole} else {items}"

    def _map(self, schema: Mapping[str, Any], held: str, path: str) -> list[str]:
        pairs, source = self._assigned(held, path), self._source
        result = self._assigned("b'\\0'", path)
        with source.block(f"if {pairs}:", path):
            parts = self._assigned(f"[{self._length(pairs)}]", path)
            key, item = source.variable(), source.variable()
            with source.block(f"for {key}, {item} in {pairs}.items():", path):
                inner = self._string("string", key, path) + self.value(schema["values"], item, f"{path}[]")
                source.line(f"{parts} += ({', '.join(inner)},)", path)
            source.line(f"{parts}.append(b'\\0'); {result} = b''.join({parts})", path)
        return [result]

    def _record(self, schema: Mapping[str, Any], held: str, path: str) -> list[str]:
        fields = schema["fields"]
        name = self._assigned(held, path)
        defaults = {
            field["name"]: resolution.default(field["type"], field["default"], self._named)
            for field in fields
            if "default" in field
        }
        filled = f"completed({name}, {self._source.constant(defaults)}, {len(fields)})"
        self._source.line(f"if len({name}) != {len(fields)}: {name} = {filled}", path)
        parts: list[str] = []
        for field in fields:
            at = f"{path}.{field['name']}" if path else field["name"]
            parts += self.value(field["type"], f"{name}[{field['name']!r}]", at)
        return parts

    def _union(self, schema: list[Any], held: str, path: str) -> list[str]:
        """The branch goes by the value's Python type; so no two branches may share one."""
        name, result = self._assigned(held, path), self._source.variable()
        tests = self._tests(schema, name, path)
        for number, (branch, test) in enumerate(tests):
            with self._source.block(f"{'elif' if number else 'if'} {test}:" if test else "else:", path):
                marker = repr(varint.long_bytes(2 * schema.index(branch)))
                parts = self.value(branch, name, path)
                self._source.line(f"{result} = {' + '.join([marker, *parts])}", path)
        if tests[-1][1]:
            self._source.line(f"else: raise TypeError(f'{{{name}!r}} is of no branch')", path)
        return [result]

    def _tests(self, schema: list[Any], name: str, path: str) -> list[tuple[Any, str]]:
        """Each branch with the condition under which it is taken; none for the last of two if one is null."""
        tests: dict[str, Any] = {}
        for branch in schema:
            python = _PYTHON_TYPES[kind(definition(branch, self._named))]
            if tests.setdefault(python, branch) is not branch:
                raise SchemaError(f"two branches of a union are {python} in Python", where=path)
        if len(tests) == 2 and "type(None)" in tests:
            null = tests.pop("type(None)")
            return [(null, f"{name} is None"), (*tests.values(), "")]
        whole_floats = "float" in tests and "int" not in tests
        accepted = {python: "(float, int)" if python == "float" and whole_floats else python for python in tests}
        return [(branch, f"type({name}) in {_tuple(accepted[python])}") for python, branch in tests.items()]


def _whole(parts: list[str]) -> str:
    """An expression of the parts as one."""
    return " + ".join(parts) if 0 < len(parts) < 4 else f"b''.join([{', '.join(parts)}])"


def _tuple(types: str) -> str:
    return types if types.startswith("(") else f"({types},)"
