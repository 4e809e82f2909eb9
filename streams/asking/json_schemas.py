"""The contracts as JSON Schema (2020-12): what `schemas.values` reads from JSON, and what it writes.
What `streams.events.check` asks of an event beyond its contract is a row of LIMITS here.
"""

from typing import Any, Literal

from schemas import catalog
from schemas.catalog import Schema
from schemas.resolution import kind
from streams.events import (
    EARLIEST_MS,
    MAX_ATTRIBUTES,
    MAX_ID_CHARS,
    MAX_ORDER_LINES,
    MAX_SLATE,
)

Way = Literal["in", "out"]
Json = dict[str, Any]

LATEST_MS = 7_258_118_400_000
"""2200-01-01: a schema has no way to say "a day from now"."""
_AN_ID: Json = {"minLength": 1, "maxLength": MAX_ID_CHARS}
_SOME: Json = {"minLength": 1}
LIMITS: dict[str, Json] = {
    **{f"{name}.{field}": _AN_ID for name in ("Click", "Order", "AdImpression") for field in ("user_id", "event_id")},
    **{f"{name}.attributes": {"maxProperties": MAX_ATTRIBUTES} for name in ("Click", "Order", "AdImpression")},
    "Click.position": {"minimum": 0},
    "Order.order_id": _SOME,
    "Order.items": {"minItems": 1, "maxItems": MAX_ORDER_LINES},
    "Order.amount": {"minimum": 0, "maximum": 99_999_999_999.9999, "pattern": r"^[0-9]{1,11}(\.[0-9]{1,4})?$"},
    "Order.currency": {"minLength": 3, "maxLength": 3},
    "OrderItem.quantity": {"minimum": 1, "maximum": 1_000_000},
    "OrderItem.unit_price": {"minimum": 0, "pattern": r"^[0-9]{1,14}(\.[0-9]{1,4})?$"},
    "AdImpression.request_id": _SOME,
    "AdImpression.slate": {"minItems": 1, "maxItems": MAX_SLATE},
    "SlateAd.position": {"minimum": 0, "maximum": 255},
    "SlateAd.bid": {"minimum": 0, "pattern": r"^[0-9]{1,14}(\.[0-9]{1,4})?$"},
}
"""By record and field."""
OF_TYPE = {
    "string": {"minLength", "maxLength", "pattern"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "array": {"minItems", "maxItems"},
    "object": {"maxProperties"},
}
"""Which limits are of which type."""


_EMPTY: Json = {"type": "array", "maxItems": 0, "description": "As some tables write an empty object."}


def json_schema(contract: str, way: Way) -> Json:
    """Of a contract's records: `in`, what is read, with every way of saying a value; `out`, what is written."""
    return _schema(catalog.load(contract), way, {})


def _schema(avro: Schema, way: Way, limits: Json) -> Json:
    if isinstance(avro, list):
        return {"anyOf": [_schema(branch, way, limits) for branch in avro]}
    unit = avro.get("logicalType") if isinstance(avro, dict) else None
    match unit or kind(avro), avro:
        case "record", dict():
            return _record(avro, way)
        case "array", dict():
            return _limited({"type": "array", "items": _schema(avro["items"], way, {})}, limits)
        case "map", dict():
            found = _limited({"type": "object", "additionalProperties": _schema(avro["values"], way, {})}, limits)
            return found if way == "out" else {"anyOf": [found, _EMPTY]}
        case "enum", dict():
            return {"type": "string", "enum": list(avro["symbols"])}
        case "timestamp-millis", _:
            return _time(way)
        case "decimal", dict():
            return _amount(avro, way, limits)
        case plain, _:
            return _limited(dict(_PLAIN[plain]), limits)


_PLAIN: dict[str, Json] = {
    "null": {"type": "null"},
    "boolean": {"type": "boolean"},
    "int": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "long": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "float": {"type": "number", "minimum": -3.4e38, "maximum": 3.4e38},
    "double": {"type": "number"},
    "string": {"type": "string"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
}


def _record(avro: Json, way: Way) -> Json:
    fields = avro["fields"]
    found: Json = {
        "type": "object",
        "properties": {field["name"]: _field(avro["name"], field, way) for field in fields},
        "required": [field["name"] for field in fields if way == "out" or "default" not in field],
        "additionalProperties": False,
    }
    return found | ({"description": avro["doc"]} if "doc" in avro else {})


def _field(record: str, field: Json, way: Way) -> Json:
    found = _schema(field["type"], way, LIMITS.get(f"{record}.{field['name']}", {}) if way == "in" else {})
    nullable = field["type"] == "null" or "null" in field["type"]
    if way == "in" and "default" in field and not nullable:
        found = {"anyOf": [found, {"type": "null"}]}  # a table has no other way to leave a field out
    return found | ({"description": field["doc"]} if "doc" in field else {})


def _time(way: Way) -> Json:
    text = {"type": "string", "format": "date-time"}
    if way == "out":
        return text
    note = "From the year 2000 to a day from now; as text from 2001, since a zone may lead out of 2000."
    number = {"type": "integer", "minimum": EARLIEST_MS, "maximum": LATEST_MS, "description": "UTC epoch ms"}
    return {"anyOf": [number, text | {"pattern": "^2(00[1-9]|0[1-9][0-9]|1[0-9]{2})-"}], "title": note}


def _amount(avro: Json, way: Way, limits: Json) -> Json:
    whole, scale = avro["precision"] - avro["scale"], avro["scale"]
    text = {"type": "string", "pattern": rf"^-?[0-9]{{1,{whole}}}(\.[0-9]{{1,{scale}}})?$"}
    if way == "out":
        return text
    bound = 10**whole
    number = {"type": "number", "exclusiveMinimum": -bound, "exclusiveMaximum": bound}
    return {"anyOf": [_limited(text, limits), _limited(number, limits)]}


def _limited(schema: Json, limits: Json) -> Json:
    return schema | {name: limit for name, limit in limits.items() if name in OF_TYPE.get(schema["type"], ())}
