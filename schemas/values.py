"""Records to JSON rows and back: times as ISO 8601, amounts as decimal numbers, bytes as base64.
For NDJSON and Parquet in, and for whatever a person or a script reads; not for the hot path."""

from collections.abc import Mapping
from typing import Any

from schemas import catalog
from schemas.display import shown
from schemas.parsing import parse


def from_json(name: str, row: Any) -> dict[str, Any]:
    """A row to a record of the contract `name`, in physical values, its defaults filled in.

    Times: ISO 8601 with a zone, epoch milliseconds, or an aware datetime. Amounts: a string, int, Decimal,
    or a float, which is rounded to the contract's scale. A null in a field that cannot be null takes the
    default: a table has no other way to leave it out. BadRecord (wrong_type, out_of_range) with the path.
    """
    record: dict[str, Any] = parse(catalog.load(name), row)
    return record


def to_json(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of the contract `name`, in physical values, as JSON has it; `from_json` makes the same of it.
    What JSON lacks does not go back: NaN and Infinity are strings."""
    row: dict[str, Any] = shown(catalog.load(name), record)
    return row
