"""Which type of a writer's schema resolves to which of a reader's, one level at a time, as Avro has it.
Stricter than Avro in one thing: an amount or a time resolves only to one of the same unit and scale."""

from collections.abc import Container, Mapping
from typing import Any

from schemas.catalog import Schema
from schemas.errors import SchemaError

PROMOTIONS = {
    ("int", "long"): "{}",
    ("int", "float"): "float({})",
    ("int", "double"): "float({})",
    ("long", "float"): "float({})",
    ("long", "double"): "float({})",
    ("float", "double"): "{}",
    ("string", "bytes"): "{}.encode()",
    ("bytes", "string"): "{}.decode()",
}
"""Writer's and reader's primitive type to the expression that turns a value of one into the other's."""

_UNITS = ("decimal", "timestamp-", "local-timestamp-", "time-", "date", "duration")


def kind(schema: Schema) -> str:
    """`union`, `record`, `array`, `string` and so on."""
    if isinstance(schema, list):
        return "union"
    return schema if isinstance(schema, str) else str(schema["type"])


def definition(schema: Schema, named: Mapping[str, Any]) -> Schema:
    """The schema itself where it is a named type's name, or an object around a schema."""
    while True:
        if isinstance(schema, str) and schema in named:
            schema = named[schema]
        elif isinstance(schema, dict) and not isinstance(schema["type"], str):
            schema = schema["type"]
        elif isinstance(schema, dict) and schema["type"] in named:
            schema = named[schema["type"]]
        else:
            return schema


def check(writer: Schema, reader: Schema, path: str) -> None:
    """SchemaError unless a value written as `writer` can be read as `reader`; looks inside of neither."""
    if not _resolves(writer, reader) or not _same_unit(writer, reader):
        raise SchemaError(f"the writer has {told(writer)}", where=path, expected=told(reader))


def branch(writer: Schema, readers: list[Any], named: Mapping[str, Any], path: str) -> Schema:
    """The first branch of the reader's union of the writer's own type, else the first it can become."""
    branches = [definition(one, named) for one in readers]
    for one in sorted(branches, key=lambda one: kind(one) != kind(writer)):
        if _resolves(writer, one) and _same_unit(writer, one):
            return one
    raise SchemaError(f"the writer has {told(writer)}", where=path, expected=told(branches))


def told(schema: Schema) -> str:
    """The type in words."""
    if isinstance(schema, list):
        return "one of " + ", ".join(told(one) for one in schema)
    if isinstance(schema, str):
        return schema
    unit = schema.get("logicalType")
    if unit == "decimal":
        return f"decimal({schema.get('precision')}, {schema.get('scale', 0)})"
    return str(unit) if unit else f"{kind(schema)} {schema.get('name', '')}".rstrip()


def field_of(reader: Mapping[str, Any], name: str, names: Container[str]) -> dict[str, Any] | None:
    """The reader's field that takes the writer's field `name`: by its name, else by an alias, unless another
    of the writer's `names` has a better claim."""
    fields: list[dict[str, Any]] = reader["fields"]
    by_name = (field for field in fields if field["name"] == name)
    by_alias = (field for field in fields if name in field.get("aliases", ()) and field["name"] not in names)
    return next(by_name, None) or next(by_alias, None)


def default(schema: Schema, value: Any, named: Mapping[str, Any]) -> Any:
    """A field's default as a physical value, from its JSON; a union's default is of its first branch.
    TypeError, AttributeError, ValueError or KeyError where it is not of its type."""
    schema = definition(schema, named)
    if isinstance(schema, list):
        return default(schema[0], value, named)
    if isinstance(schema, str):
        return _primitive(schema, value)
    match kind(schema):
        case "array":
            return [default(schema["items"], one, named) for one in value]
        case "map":
            return {key: default(schema["values"], one, named) for key, one in value.items()}
        case "record":
            return {
                field["name"]: default(field["type"], value.get(field["name"], field.get("default")), named)
                for field in schema["fields"]
            }
        case "fixed":
            return _primitive("bytes", value)
        case "enum" if value not in schema["symbols"]:
            raise ValueError(f"{value!r} is no symbol")
        case other:
            return _primitive(other, value)


def _primitive(kind: str, value: Any) -> Any:
    if kind == "bytes":
        return value.encode("latin-1")
    if kind in ("float", "double"):
        return float(value)
    expected = {"null": type(None), "boolean": bool, "int": int, "long": int}.get(kind, str)
    if type(value) is not expected:
        raise TypeError(f"{value!r} is no {kind}")
    return value


def _resolves(writer: Schema, reader: Schema) -> bool:
    if kind(writer) != kind(reader):
        return (kind(writer), kind(reader)) in PROMOTIONS
    if not isinstance(writer, dict) or not isinstance(reader, dict) or "name" not in reader:
        return True
    names = {reader["name"].rpartition(".")[2], *reader.get("aliases", ())}
    known = writer["name"] in names or writer["name"].rpartition(".")[2] in names
    return known and writer.get("size") == reader.get("size")


def _same_unit(writer: Schema, reader: Schema) -> bool:
    """A plain number passes as a timestamp in milliseconds: that is what the contract calls it."""
    theirs, ours = _unit(writer), _unit(reader)
    return theirs == ours or (theirs is None and ours == ("timestamp-millis", 0))


def _unit(schema: Schema) -> tuple[str, int] | None:
    if not isinstance(schema, dict):
        return None
    unit = schema.get("logicalType")
    return (unit, schema.get("scale", 0)) if isinstance(unit, str) and unit.startswith(_UNITS) else None
