"""The Avro contracts that ship with Headrace, by the file's name (`click`) or the record's (`Click`).
`load` gives one as written, `physical` without its logical types: longs and bytes, as the hot path has it."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import avro.errors
import avro.schema
from fastavro.schema import SchemaParseException, parse_schema

from schemas.errors import SchemaError

Schema: TypeAlias = str | list[Any] | dict[str, Any]
"""An Avro schema as JSON gives it: a name, a union, or an object."""

FOLDER = Path(__file__).parent / "avro"
PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_NOT_PHYSICAL = frozenset({"logicalType", "precision", "scale", "doc"})
SAID_CHARS = 300
_NESTING = frozenset({"type", "items", "values", "fields"})


def names() -> list[str]:
    """The contracts' names: their files', in order."""
    return sorted(path.stem for path in FOLDER.glob("*.avsc"))


@cache
def load(name: str) -> dict[str, Any]:
    """The contract `name` as its file says, logical types and docs included; shared: do not change it.
    SchemaError where there is none of this name, or the file is no Avro record."""
    if _stem(name) not in names():
        raise SchemaError(f"there is no contract {name!r}", where=str(FOLDER), expected=", ".join(names()))
    return read(FOLDER / f"{_stem(name)}.avsc")


def read(path: Path) -> dict[str, Any]:
    """The record schema in the file at `path`. SchemaError where it cannot be read or is not one."""
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SchemaError(f"unreadable: {error}", where=str(path), expected="a JSON file") from error
    try:
        normalised(schema)
    except SchemaError as error:
        raise SchemaError(error.what, where=str(path), expected=error.expected) from error
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise SchemaError("not a record", where=str(path), expected='{"type": "record", …}')
    return schema


@cache
def physical(name: str) -> dict[str, Any]:
    """`load(name)` without logical types and docs: a time is a long, an amount of money is bytes."""
    stripped = strip(load(name))
    assert isinstance(stripped, dict)
    return stripped


@cache
def fingerprint(name: str) -> str:
    """SHA-256, in hexadecimal, of the contract's parsing canonical form: equal where the wire format is."""
    return parsed(load(name)).fingerprint("sha256").hex()


def parsed(schema: Schema) -> avro.schema.Schema:
    """The schema as the avro package has it, logical types left out: it warns of those that it does not know,
    and others' schemas come this way. SchemaError where it is malformed."""
    try:
        return avro.schema.make_avsc_object(strip(schema))
    except (avro.errors.AvroException, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise malformed(error) from error


def normalised(schema: Schema) -> tuple[Schema, Mapping[str, Schema]]:
    """The schema with every name in full, and its named types by full name. SchemaError where malformed."""
    parsed(schema)
    named: dict[str, dict[Any, Any]] = {}
    try:
        return parse_schema(schema, named), named
    except (SchemaParseException, KeyError, TypeError, ValueError, RecursionError) as error:
        raise malformed(error) from error


def malformed(error: Exception) -> SchemaError:
    """In few words: what the libraries say may quote the whole of a stranger's schema."""
    return SchemaError(f"malformed: {str(error)[:SAID_CHARS]}", expected="an Avro schema")


def strip(schema: Schema) -> Schema:
    """The schema without logical types and docs."""
    if isinstance(schema, list):
        return [strip(branch) for branch in schema]
    if isinstance(schema, str):
        return schema
    kept = {key: _strip_part(key, value) for key, value in schema.items() if key not in _NOT_PHYSICAL}
    return kept["type"] if set(kept) == {"type"} else kept


def _strip_part(key: str, value: Any) -> Any:
    if key == "fields":
        return [strip(field) for field in value]
    return strip(value) if key in _NESTING else value


def _stem(name: str) -> str:
    """`FraudScore` to `fraud_score`; a file's name stays."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
