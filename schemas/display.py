"""Physical values as JSON has them, by schema: the writing half of `values`.
Numbers keep as many digits as tell them apart, so that what was 0.1 in a float is shown as 0.1."""

import base64
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

from schemas.catalog import Schema
from schemas.logical import amount_of, time_of
from schemas.resolution import definition, kind

Named = Mapping[str, Schema]


def shown(schema: Schema, value: Any, named: Named | None = None) -> Any:
    """The JSON value of a physical one. A field that a record leaves out stays out.

    `named`: the types that `schema` refers to by name. Any Avro schema will do; a logical type that is not of ours,
    or does not fit its type, is passed over, as is which of several branches of a union it was.
    """
    named = named or {}
    schema = definition(schema, named)
    if isinstance(schema, list):
        others = [branch for branch in schema if branch != "null"]
        return _plain(schema, value, named) if value is None or len(others) > 1 else shown(others[0], value, named)
    unit = schema.get("logicalType") if isinstance(schema, dict) else None
    known = str(unit) if (unit, type(value)) in _UNITS else kind(schema)
    write: Callable[[Any, Any, Named], Any] = _WRITERS.get(known, _plain)
    return write(schema, value, named)


def _record(schema: dict[str, Any], value: Any, named: Named) -> dict[str, Any]:
    fields = [field for field in schema["fields"] if field["name"] in value]
    return {field["name"]: shown(field["type"], value[field["name"]], named) for field in fields}


def _array(schema: dict[str, Any], value: Any, named: Named) -> list[Any]:
    return [shown(schema["items"], one, named) for one in value]


def _map(schema: dict[str, Any], value: Any, named: Named) -> dict[str, Any]:
    return {key: shown(schema["values"], one, named) for key, one in value.items()}


def _time(schema: Schema, value: int, named: Named) -> str | int:
    try:
        return time_of(value).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:  # beyond the year 9999
        return value


def _amount(schema: dict[str, Any], value: bytes, named: Named) -> str:
    """At least two decimals, as money is written."""
    whole, _, decimals = f"{amount_of(value, schema.get('scale', 0)):f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def _float(schema: Schema, value: float, named: Named) -> Any:
    """The shortest number that is the same float of 32 bits."""
    if not math.isfinite(value):
        return _plain(schema, value, named)
    packed = struct.pack("<f", value)
    [rounded] = struct.unpack("<f", packed)
    texts = (f"{rounded:.{digits}g}" for digits in range(6, 10))
    return next((float(text) for text in texts if _packed(text) == packed), value)


def _packed(text: str) -> bytes:
    try:
        return struct.pack("<f", float(text))
    except OverflowError:  # rounded up beyond the largest
        return b""


def _plain(schema: Schema, value: Any, named: Named) -> Any:
    """By the value alone."""
    match value:
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case list():
            return [_plain(schema, one, named) for one in value]
        case dict():
            return {key: _plain(schema, one, named) for key, one in value.items()}
    return value


_UNITS = {("timestamp-millis", int), ("decimal", bytes)}
_WRITERS: dict[str, Callable[[Any, Any, Named], Any]] = {
    "record": _record,
    "error": _record,
    "array": _array,
    "map": _map,
    "float": _float,
    "timestamp-millis": _time,
    "decimal": _amount,
}
