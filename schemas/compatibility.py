"""Whether a contract may change so: FULL_TRANSITIVE, in the terms of Avro's schema resolution.
Everyone who reads with the old one must read what is written with the new one, and the other way round."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from avro.compatibility import (
    ReaderWriterCompatibilityChecker,
    SchemaCompatibilityType,
    lookup_writer_field,
    schema_name_equals,
)
from avro.schema import ArraySchema, Field, MapSchema, NamedSchema, RecordSchema
from avro.schema import Schema as AvroSchema

from schemas import catalog
from schemas.catalog import Schema
from schemas.resolution import definition, kind, told

RELEASED = Path(__file__).parent / "released"
"""Every contract as it was released: `<name>/<number>.avsc`, never changed and never deleted."""


def released(name: str) -> list[Schema]:
    """The released versions of a contract, oldest first."""
    paths = sorted((RELEASED / name).glob("*.avsc"), key=lambda path: int(path.stem))
    return [catalog.read(path) for path in paths]


def check(old: Schema, new: Schema) -> list[str]:
    """What breaks if `old` becomes `new`, in words; empty where nothing does. Neither may contain itself.
    SchemaError for a malformed one."""
    before, after = catalog.parsed(old), catalog.parsed(new)
    return [
        *(f"the new schema cannot read old records: {problem}" for problem in _unreadable(after, before)),
        *(f"the old schema cannot read new records: {problem}" for problem in _unreadable(before, after)),
        *(f"the meaning changes: {problem}" for problem in _changed_units(old, new)),
    ]


def _unreadable(reader: AvroSchema, writer: AvroSchema, path: str = "") -> list[str]:
    """The avro package judges; the walk down to what it objects to only finds the field."""
    if isinstance(reader, RecordSchema) and isinstance(writer, RecordSchema):
        if schema_name_equals(reader, writer):
            return [problem for field in reader.fields for problem in _of_field(field, writer, path)]
    elif isinstance(reader, ArraySchema) and isinstance(writer, ArraySchema):
        return _unreadable(reader.items, writer.items, f"{path}[]")
    elif isinstance(reader, MapSchema) and isinstance(writer, MapSchema):
        return _unreadable(reader.values, writer.values, f"{path}[]")
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # avro has no types
    result = checker.get_compatibility(reader, writer)
    if result.compatibility is not SchemaCompatibilityType.incompatible:
        return []
    kinds = ", ".join(sorted({one.name.replace("_", " ") for one in result.incompatibilities}))
    details = ", ".join(sorted(result.messages))
    return [f"at {path or 'the top'}: {_told(writer)} is no {_told(reader)}: {kinds} ({details})"]


def _of_field(field: Field, writer: RecordSchema, path: str) -> list[str]:
    path = f"{path}.{field.name}".lstrip(".")
    written = lookup_writer_field(writer, field)
    if written is not None:
        return _unreadable(field.type, written.type, path)
    return [] if field.has_default else [f"at {path}: the records have no such field, and it has no default"]


def _told(schema: AvroSchema) -> str:
    return f"{schema.type} {schema.fullname}" if isinstance(schema, NamedSchema) else str(schema.type)


def _changed_units(old: Schema, new: Schema) -> list[str]:
    """Avro resolves the types below logical types, and so would read pence as pounds."""
    before, after = (dict(_units(*catalog.normalised(schema), "")) for schema in (old, new))
    return [
        f"at {key[0] or 'the top'}: {unit} becomes {after[key]}"
        for key, unit in before.items()
        if after.get(key, unit) != unit
    ]


def _units(schema: Schema, named: Mapping[str, Schema], path: str) -> Iterator[tuple[tuple[str, str], str]]:
    """For each simple value within, by its path and type, how it is to be understood."""
    schema = definition(schema, named)
    if isinstance(schema, list):
        for branch in schema:
            yield from _units(branch, named, path)
    elif isinstance(schema, dict) and kind(schema) == "record":
        for field in schema["fields"]:
            yield from _units(field["type"], named, f"{path}.{field['name']}".lstrip("."))
    elif isinstance(schema, dict) and kind(schema) in ("array", "map"):
        yield from _units(schema["items" if kind(schema) == "array" else "values"], named, f"{path}[]")
    else:
        yield (path, kind(schema)), told(schema)
