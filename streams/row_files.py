"""Rows of a file or of stdin, each with its place: NDJSON (one JSON object a line) or Parquet.
A line that is no JSON object is a BadRecord in its place, so that the caller decides what it means."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import BadRecord, SettingsError

STDIN = "-"
BATCH_ROWS = 1_000
PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class Row:
    """`where` is `file:line`, or `file:row` for Parquet; both count from 1."""

    where: str
    value: Mapping[str, Any] | BadRecord


@contextmanager
def read_rows(source: str, longest: int) -> Iterator[Iterator[Row]]:
    """The rows of the file `source`, or of stdin for `-`. A line of more than `longest` bytes is a BadRecord.

    SettingsError where there is no such file, or it is of neither format.
    """
    if source == STDIN:
        yield _lines(sys.stdin.buffer, "stdin", longest)
        return
    path = Path(source)
    try:
        file = path.open("rb")
    except OSError as error:
        raise SettingsError(
            f"{source} cannot be read: {error.strerror}", expected="an NDJSON or Parquet file, or - for stdin"
        ) from error
    with file:
        # Looked at, not read: a pipe could not seek back.
        if file.peek(len(PARQUET_MAGIC)).startswith(PARQUET_MAGIC):
            yield _parquet_rows(path)
        elif path.suffix == ".parquet":
            raise _not_parquet(path, "it does not begin with PAR1")
        else:
            yield _lines(file, source, longest)


def _lines(file: BinaryIO, name: str, longest: int) -> Iterator[Row]:
    number = 0
    while line := file.readline(longest + 1):
        number += 1
        where = f"{name}:{number}"
        if len(line) > longest:
            _skip_line(file, line)
            yield Row(where, _bad("oversized", where, "a line too long", f"at most {longest} bytes"))
        elif line.strip():
            yield Row(where, _object(line, where))


def _skip_line(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(1 << 16)


def _object(line: bytes, where: str) -> Mapping[str, Any] | BadRecord:
    expected = "one JSON object a line"
    try:
        value = json.loads(line.decode("utf-8-sig"), parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return _bad("undecodable", where, f"not JSON: {error}", expected)
    return value if isinstance(value, dict) else _bad("wrong_type", where, "not a JSON object", expected)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _bad(code: str, where: str, what: str, expected: str) -> BadRecord:
    return BadRecord(code, what, where=where, expected=expected)


def _parquet_rows(path: Path) -> Iterator[Row]:
    number = 0
    for rows in _batches(path):
        for row in rows:
            number += 1
            yield Row(f"{path}:{number}", _plain(row))


def _batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield batch.to_pylist(maps_as_pydicts="strict")
    except (pa.ArrowException, OSError, KeyError) as error:  # KeyError: a map with one key twice
        raise _not_parquet(path, str(error)) from error


def _plain(value: Any) -> Any:
    """As JSON would have it: no null in a struct (a column has no way to be absent), times in epoch ms."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, datetime):
        instant = value if value.tzinfo else value.replace(tzinfo=UTC)
        return round(instant.timestamp() * 1000)
    return value


def _not_parquet(path: Path, reason: str) -> SettingsError:
    return SettingsError(f"the Parquet file cannot be read: {reason}", where=str(path), expected="a whole Parquet file")
