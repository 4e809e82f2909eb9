"""Rows of NDJSON and Parquet files: each with its place, and a bad line is a bad row, not the end."""

import io
import json
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadRecord, SettingsError
from streams.row_files import Row, read_rows

LONGEST = 200
VALUES = st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=9))


def rows(path: Path) -> list[Row]:
    with read_rows(str(path), LONGEST) as found:
        return list(found)


def written(folder: Path, content: bytes, name: str = "rows.ndjson") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_each_line_is_a_row_with_its_number_and_blank_lines_count(tmp_path: Path) -> None:
    path = written(tmp_path, b'{"a": 1}\n\n{"a": 2}')
    assert rows(path) == [Row(f"{path}:1", {"a": 1}), Row(f"{path}:3", {"a": 2})]


def test_amounts_keep_every_digit(tmp_path: Path) -> None:
    path = written(tmp_path, b'{"amount": 12345678901234.5678}')
    assert rows(path)[0].value == {"amount": Decimal("12345678901234.5678")}


def test_a_byte_order_mark_and_windows_line_ends_are_taken(tmp_path: Path) -> None:
    path = written(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert [row.value for row in rows(path)] == [{"a": 1}, {"a": 2}]


BAD_LINES = [
    (b"{", "undecodable", "not JSON"),
    (b"\xff\xfe", "undecodable", "not JSON"),
    (b'{"a": NaN}', "undecodable", "NaN"),
    (b"[1]", "wrong_type", "not a JSON object"),
    (b"[" * 150, "undecodable", "not JSON"),
    (b'{"a": "' + b"x" * 300_000 + b'"}', "oversized", "too long"),
    (b"id,amount", "undecodable", "one JSON object a line"),
]


@pytest.mark.parametrize(("line", "code", "words"), BAD_LINES)
def test_a_bad_line_is_a_bad_row_in_its_place(line: bytes, code: str, words: str, tmp_path: Path) -> None:
    path = written(tmp_path, b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    first, bad, last = rows(path)
    assert (first.value, last.value) == ({"a": 1}, {"a": 3})
    assert isinstance(bad.value, BadRecord)
    assert bad.value.code == code
    assert f"{path}:2" in str(bad.value)
    assert words in str(bad.value)


@given(st.lists(VALUES, max_size=8))
def test_what_was_written_as_ndjson_is_read(values: list[dict[str, object]]) -> None:
    text = "\n".join(json.dumps(value) for value in values).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        with read_rows("-", 100_000) as found:
            assert [row.value for row in found] == values


def test_parquet_rows_look_as_json_would_have_them(tmp_path: Path) -> None:
    path = tmp_path / "orders.parquet"
    table = pa.table(
        {
            "event_time": pa.array([datetime(2026, 1, 2, tzinfo=UTC)], pa.timestamp("us", "UTC")),
            "amount": pa.array([Decimal("1.5000")], pa.decimal128(18, 4)),
            "device": pa.array([None], pa.string()),
            "items": [[{"item_id": "a", "request_id": None}]],
            "attributes": pa.array([[("vip", 1.0)]], pa.map_(pa.string(), pa.float64())),
        }
    )
    pq.write_table(table, path)
    assert rows(path) == [
        Row(
            f"{path}:1",
            {
                "event_time": 1767312000000,
                "amount": Decimal("1.5"),
                "items": [{"item_id": "a"}],
                "attributes": {"vip": 1.0},
            },
        )
    ]


def test_parquet_is_known_by_its_bytes_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.data"
    pq.write_table(pa.table({"a": [1, 2]}), path)
    assert [row.where for row in rows(path)] == [f"{path}:1", f"{path}:2"]


def test_a_file_that_is_not_there_or_not_whole_is_one_clear_error(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.table({"a": [1]}), whole)
    cut = written(tmp_path, whole.read_bytes()[:-9], "cut.parquet")
    text = written(tmp_path, b"a,b", "text.parquet")
    for path in (tmp_path / "none.ndjson", tmp_path, cut, text):
        with pytest.raises(SettingsError, match=str(path)):
            rows(path)
