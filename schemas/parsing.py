"""Values as people and files write them to physical ones, by schema: the reading half of `values`.
Strict: nothing is guessed, and each error says where, what was there and what was expected."""

import base64
import binascii
import difflib
import math
import struct
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from schemas.catalog import Schema
from schemas.errors import BadRecord
from schemas.logical import milliseconds_of, unscaled_of
from schemas.resolution import default, kind

_BITS = {"int": 32, "long": 64}
_EXPECTED = {
    "null": "null",
    "boolean": "true or false",
    "int": "a whole number of 32 bits",
    "long": "a whole number of 64 bits",
    "float": "a finite number",
    "double": "a finite number",
    "string": "a string",
    "bytes": "bytes, or a string of base64",
    "array": "a list",
    "map": "an object",
    "record": "an object",
    "timestamp-millis": "a time with its zone, such as 2026-01-31T12:00:00Z, or milliseconds since 1970",
}


def parse(schema: Schema, value: Any, path: str = "") -> Any:
    """The physical value of `schema` that a JSON or table value means. BadRecord with the field's path."""
    if isinstance(schema, list):
        return _union(schema, value, path)
    unit = schema.get("logicalType") if isinstance(schema, dict) else None
    read = _READERS.get(unit or kind(schema)) or _READERS[kind(schema)]
    try:
        return read(schema, value, path)
    except _Mismatch as error:
        raise BadRecord(error.code, error.what or _shown(value), where=path, expected=_expected(schema)) from None


class _Mismatch(Exception):
    """A value that is not of its type; `_value` knows the place and the type."""

    def __init__(self, what: str = "", code: str = "wrong_type") -> None:
        self.what, self.code = what, code


def _union(schema: list[Any], value: Any, path: str) -> Any:
    """The branch goes by the value's Python type where there are several beside null."""
    if value is None and "null" in schema:
        return None
    others = [branch for branch in schema if branch != "null"]
    if len(others) > 1:
        fitting = [branch for branch in others if isinstance(value, _PYTHON[kind(branch)])]
        exact = [branch for branch in fitting if (kind(branch) == "boolean") is isinstance(value, bool)]
        if not exact:
            raise BadRecord("wrong_type", _shown(value), where=path, expected=_expected(schema))
        others = exact
    return parse(others[0], value, path)


def _record(schema: dict[str, Any], value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _Mismatch
    fields = {field["name"]: field for field in schema["fields"]}
    for name in value:
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            expected = f"{near[0]!r}" if near else "one of " + ", ".join(fields)
            what = f"{schema['name']} has no such field"
            raise BadRecord("wrong_type", what, where=_joined(path, str(name)), expected=expected)
    return {name: _field(field, value, _joined(path, name)) for name, field in fields.items()}


def _field(field: dict[str, Any], row: Mapping[str, Any], path: str) -> Any:
    value, optional = row.get(field["name"]), "default" in field
    if field["name"] not in row and not optional:
        raise BadRecord("wrong_type", "it is missing", where=path, expected=_expected(field["type"]))
    nullable = field["type"] == "null" or "null" in field["type"]
    if optional and (field["name"] not in row or (value is None and not nullable)):
        return default(field["type"], field["default"], {})
    return parse(field["type"], value, path)


def _array(schema: dict[str, Any], value: Any, path: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _Mismatch
    return [parse(schema["items"], one, f"{path}[{number}]") for number, one in enumerate(value)]


def _map(schema: dict[str, Any], value: Any, path: str) -> dict[str, Any]:
    """An Arrow map comes as a list of pairs."""
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        value = dict(value)
    if not isinstance(value, Mapping):
        raise _Mismatch
    if strange := [key for key in value if not isinstance(key, str)]:
        raise _Mismatch(f"the key {strange[0]!r} is no string")
    return {
        _string("string", key, path): parse(schema["values"], one, f"{path}[{key!r}]") for key, one in value.items()
    }


def _null(schema: Schema, value: Any, path: str) -> None:
    if value is not None:
        raise _Mismatch


def _boolean(schema: Schema, value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise _Mismatch
    return value


def _whole(schema: Schema, value: Any, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Mismatch
    limit = 1 << _BITS[kind(schema)] - 1
    if not -limit <= value < limit:
        raise _Mismatch(code="out_of_range")
    return value


def _number(schema: Schema, value: Any, path: str) -> float:
    if not isinstance(value, int | float | Decimal) or isinstance(value, bool):
        raise _Mismatch
    try:
        number = float(value)
        if kind(schema) == "float":  # what will come back off the wire
            number = struct.unpack("<f", struct.pack("<f", number))[0]
    except (OverflowError, ValueError):
        raise _Mismatch(code="out_of_range") from None
    if not math.isfinite(number):
        raise _Mismatch(code="out_of_range")
    return number


def _string(schema: Schema, value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _Mismatch
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Mismatch("half a surrogate pair, which UTF-8 cannot hold") from None
    return value


def _bytes(schema: Schema, value: Any, path: str) -> bytes:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise _Mismatch from None
    if not isinstance(value, bytes | bytearray | memoryview):
        raise _Mismatch
    return bytes(value)


def _enum(schema: dict[str, Any], value: Any, path: str) -> str:
    if value not in schema["symbols"]:
        raise _Mismatch
    symbol: str = value
    return symbol


def _time(schema: Schema, value: Any, path: str) -> int:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise _Mismatch from None
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise _Mismatch(f"{value.isoformat()} has no zone")
        return milliseconds_of(value)
    return _whole("long", value, path)


def _amount(schema: dict[str, Any], value: Any, path: str) -> bytes:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise _Mismatch
    try:
        amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise _Mismatch from None
    try:
        if isinstance(value, float):
            amount = amount.quantize(Decimal(1).scaleb(-schema["scale"]))
            if value < 0 and amount.is_zero():  # a sign must not be rounded away: below nothing is refused by name
                raise _Mismatch(code="out_of_range")
        return unscaled_of(amount, schema["precision"], schema["scale"])
    except (InvalidOperation, ValueError):
        raise _Mismatch(code="out_of_range") from None


_READERS: dict[str, Callable[[Any, Any, str], Any]] = {
    "record": _record,
    "array": _array,
    "map": _map,
    "null": _null,
    "boolean": _boolean,
    "int": _whole,
    "long": _whole,
    "float": _number,
    "double": _number,
    "string": _string,
    "bytes": _bytes,
    "enum": _enum,
    "timestamp-millis": _time,
    "decimal": _amount,
}
_PYTHON: dict[str, type | tuple[type, ...]] = {
    "boolean": bool,
    "int": int,
    "long": int,
    "float": (int, float, Decimal),
    "double": (int, float, Decimal),
    "string": str,
    "enum": str,
    "bytes": bytes,
    "array": (list, tuple),
    "map": Mapping,
    "record": Mapping,
}


def _expected(schema: Schema) -> str:
    if isinstance(schema, list):
        return " or ".join(_expected(branch) for branch in schema)
    what = kind(schema)
    unit = schema.get("logicalType") if isinstance(schema, dict) else None
    if isinstance(schema, dict) and unit == "decimal":
        return f'an amount of {schema["precision"]} digits, {schema["scale"]} of them decimals, such as "12.95"'
    if isinstance(schema, dict) and what == "enum":
        return "one of " + ", ".join(schema["symbols"])
    return _EXPECTED.get(unit or what, what)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
