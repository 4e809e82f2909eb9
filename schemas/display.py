"""Physical values as JSON has them, by schema: the writing half of `values`.
Numbers keep as many digits as tell them apart, so that what was 0.1 in a float is shown as 0.1."""

import base64
import math
import struct
from collections.abc import Callable
from typing import Any

from schemas.catalog import Schema
from schemas.logical import amount_of, time_of
from schemas.resolution import kind


def shown(schema: Schema, value: Any) -> Any:
    """The JSON value of a physical one. A field that a record leaves out stays out."""
    if isinstance(schema, list):
        others = [branch for branch in schema if branch != "null"]
        return _plain("union", value) if value is None or len(others) > 1 else shown(others[0], value)
    unit = schema.get("logicalType") if isinstance(schema, dict) else None
    write: Callable[[Any, Any], Any] = _WRITERS.get(unit or kind(schema), _plain)
    return write(schema, value)


def _record(schema: dict[str, Any], value: Any) -> dict[str, Any]:
    fields = [field for field in schema["fields"] if field["name"] in value]
    return {field["name"]: shown(field["type"], value[field["name"]]) for field in fields}


def _array(schema: dict[str, Any], value: Any) -> list[Any]:
    return [shown(schema["items"], one) for one in value]


def _map(schema: dict[str, Any], value: Any) -> dict[str, Any]:
    return {key: shown(schema["values"], one) for key, one in value.items()}


def _time(schema: Schema, value: int) -> str | int:
    try:
        return time_of(value).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:  # beyond the year 9999
        return value


def _amount(schema: dict[str, Any], value: bytes) -> str:
    """At least two decimals, as money is written."""
    whole, _, decimals = f"{amount_of(value, schema['scale']):f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def _float(schema: Schema, value: float) -> Any:
    """The shortest number that is the same float of 32 bits."""
    if not math.isfinite(value):
        return _plain(schema, value)
    packed = struct.pack("<f", value)
    [rounded] = struct.unpack("<f", packed)
    texts = (f"{rounded:.{digits}g}" for digits in range(6, 10))
    return next((float(text) for text in texts if _packed(text) == packed), value)


def _packed(text: str) -> bytes:
    try:
        return struct.pack("<f", float(text))
    except OverflowError:  # rounded up beyond the largest
        return b""


def _bytes(schema: Schema, value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _plain(schema: Schema, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


_WRITERS: dict[str, Callable[[Any, Any], Any]] = {
    "record": _record,
    "array": _array,
    "map": _map,
    "float": _float,
    "bytes": _bytes,
    "timestamp-millis": _time,
    "decimal": _amount,
}
