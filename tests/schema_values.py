"""Values for any Avro schema, drawn by hypothesis: what a contract's record may hold, in physical types."""

import copy
import io
import struct
from typing import Any

from fastavro import schemaless_writer
from hypothesis import strategies as st

from schemas.catalog import Schema
from schemas.reading import compile_reader
from schemas.resolution import kind
from schemas.writing import compile_writer

MONEY: dict[str, Any] = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4}

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LONG_TEXT = st.integers(60, 9_000).map("é".__mul__)
FLOATS = st.floats(width=32, allow_nan=False)


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Physical values of `schema`: the ones that come off the wire, so floats are of 32 bits."""
    if isinstance(schema, list):
        return st.one_of([values(branch) for branch in schema])
    if isinstance(schema, dict) and schema.get("logicalType") == "decimal":
        return amounts(schema["precision"])
    match kind(schema):
        case "record":
            return st.fixed_dictionaries({f["name"]: values(f["type"]) for f in schema["fields"]})  # type: ignore[index]
        case "array":
            return st.lists(values(schema["items"]), max_size=4)  # type: ignore[index]
        case "map":
            return st.dictionaries(TEXT, values(schema["values"]), max_size=3)  # type: ignore[index]
        case "enum":
            return st.sampled_from(schema["symbols"])  # type: ignore[index]
        case simple:
            return SIMPLE[simple]


SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1) | st.integers(10**12, 2 * 10**12),
    "float": FLOATS,
    "double": st.floats(allow_nan=False),
    "string": TEXT | TEXT | TEXT | LONG_TEXT,
    "bytes": st.binary(max_size=20),
}


def amounts(precision: int) -> st.SearchStrategy[bytes]:
    """The shortest two's complement of up to `precision` digits."""
    limit = 10**precision - 1
    return st.integers(-limit, limit).map(shortest)


def shortest(number: int) -> bytes:
    size = next(size for size in range(1, 10) if -(1 << 8 * size - 1) <= number < 1 << 8 * size - 1)
    return number.to_bytes(size, "big", signed=True)


def float32(number: float) -> float:
    """The nearest float of 32 bits."""
    rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return rounded


def reference_bytes(schema: Any, record: Any) -> bytes:
    out = io.BytesIO()
    schemaless_writer(out, schema, record)
    return out.getvalue()


def record_of(fields: list[dict[str, Any]], name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": fields}


def field(name: str, of: Schema, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": of, **more}


def read(writer: Schema, reader: Schema, record: Any) -> Any:
    """What a reader gets of what a writer wrote."""
    return compile_reader(writer, reader)(compile_writer(writer)(record))


INTS: Schema = {"type": "array", "items": "int"}
TYPES: list[Schema] = ["int", "long", "string", "double", ["null", "string"], INTS, "boolean", "float"]
WIDER: dict[str, list[Any]] = {"int": ["long", "double"], "long": ["double"], "string": [["null", "string"]]}


@st.composite
def evolutions(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A writer's record, and a reader's that dropped, added, widened and reordered fields."""
    names = draw(st.lists(st.sampled_from("abcdefg"), unique=True, min_size=1))
    written = [field(name, draw(st.sampled_from(TYPES))) for name in names]
    kept = [copy.deepcopy(one) for one in written if draw(st.booleans())]
    for one in kept:
        wider = WIDER.get(one["type"], []) if isinstance(one["type"], str) else []
        one["type"] = draw(st.sampled_from([one["type"], *wider]))
    added = [field("x", "long", default=5), field("y", {"type": "map", "values": "int"}, default={})]
    return record_of(written), record_of(draw(st.permutations(kept + added)))
