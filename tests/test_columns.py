"""Records by columns: the same bytes and the same errors as one by one, and no value encoded twice."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from fastavro import parse_schema
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import catalog, varint
from schemas.catalog import Schema
from schemas.column_writing import joined, record_writer
from schemas.columns import Column, Columnar, Fixed, Table, Zipped
from schemas.errors import BadRecord
from schemas.registry import MemoryRegistry
from schemas.wire import Encoder
from schemas.writing import compile_writer
from tests import records
from tests.schema_values import INTS, MONEY, field, record_of, reference_bytes, values

quick = settings(max_examples=25, deadline=None)
contracts = pytest.mark.parametrize("name", catalog.names())

LINE = record_of([field("id", "string"), field("n", ["null", "int"]), field("x", "float")], "Line")
TYPES: list[Schema] = [
    *("int", "long", "string", "double", "boolean", "float", "bytes", "null"),
    ["null", "string"], INTS, MONEY, LINE,
    *({"type": "array", "items": of} for of in ("string", "float", "double", ["null", "long"], INTS, LINE)),
    {"type": "map", "values": "string"},
    {"type": "enum", "name": "E", "symbols": ["a", "b"]},
]  # fmt: skip


@st.composite
def tables(draw: st.DrawFn, schema: dict[str, Any], rows: list[dict[str, Any]]) -> Table:
    """The rows by columns, in one of the ways that are open to each field; defaults may be left out."""
    columns: dict[str, Columnar] = {}
    for one in schema["fields"]:
        name, of, column = one["name"], one["type"], [row[one["name"]] for row in rows]
        if "default" in one and all(repr(value) == repr(one["default"]) for value in column) and draw(st.booleans()):
            continue
        ways: list[Columnar] = [Column(column)]
        if len(set(map(repr, column))) == 1:  # 0.0 is not -0.0 here
            ways.append(Fixed(column[0]))
        if isinstance(of, dict) and of["type"] == "record":
            ways.append(draw(tables(of, column)))
        if isinstance(of, dict) and of["type"] == "array" and isinstance(of["items"], dict) and "fields" in of["items"]:
            ways.append(zipped(of["items"], column))
        columns[name] = draw(st.sampled_from(ways))
    return Table(columns)


def zipped(schema: dict[str, Any], lists: list[list[dict[str, Any]]]) -> Column:
    names = [one["name"] for one in schema["fields"]]
    made = [Zipped(**{name: [item[name] for item in items] for name in names}) for items in lists]
    return Column(made, [Column([one.columns[names[0]] for one in made])])


def drawn(data: st.DataObject, schema: dict[str, Any]) -> tuple[list[dict[str, Any]], Table]:
    one = values(schema)
    rows = data.draw(st.lists(one, min_size=1, max_size=4) | one.map(lambda row: [row] * 3))
    return rows, data.draw(tables(schema, rows))


@contracts
@given(data=st.data())
@quick
def test_columns_of_a_contract_give_what_fastavro_writes(name: str, data: st.DataObject) -> None:
    rows, table = drawn(data, catalog.load(name))
    encode = Encoder(MemoryRegistry(), "topic", name)
    header = b"\0" + encode.schema_id.to_bytes(4, "big")
    reference = parse_schema(catalog.physical(name))
    assert encode.many(table, len(rows)) == [header + reference_bytes(reference, row) for row in rows]


@given(data=st.data(), types=st.lists(st.sampled_from(TYPES), min_size=1, max_size=6, unique_by=str))
@settings(max_examples=200, deadline=None)
def test_columns_of_any_type_give_what_the_writer_gives(data: st.DataObject, types: list[Schema]) -> None:
    named = [of if of != LINE else {**LINE, "name": f"Line{number}"} for number, of in enumerate(types)]
    schema = record_of([field(f"f{number}", renamed(of, number)) for number, of in enumerate(named)])
    rows, table = drawn(data, schema)
    write = compile_writer(schema, b"head")
    assert joined(b"head", table.parts(record_writer(schema)), len(rows)) == [write(row) for row in rows]


def renamed(of: Any, number: int) -> Any:
    """An array's record under a name of its own: two of one name are no schema."""
    if isinstance(of, dict) and isinstance(of.get("items"), dict) and "fields" in of["items"]:
        return {**of, "items": {**of["items"], "name": f"Item{number}"}}
    return of


@given(data=st.data())
@quick
def test_zipped_items_are_written_as_the_list_that_they_are(data: st.DataObject) -> None:
    schema = record_of([field("lines", {"type": "array", "items": LINE})])
    lines = data.draw(st.lists(values(LINE), max_size=4))
    column = zipped(LINE, [lines])
    assert column.values[0] == lines
    assert compile_writer(schema)({"lines": column.values[0]}) == compile_writer(schema)({"lines": lines})


def test_zipped_items_read_like_a_list_of_dicts() -> None:
    items = Zipped(a=[1, 2, 3], b=["x", "y", "z"])
    assert len(items) == 3
    assert items[1] == {"a": 2, "b": "y"}
    assert items[1:] == [{"a": 2, "b": "y"}, {"a": 3, "b": "z"}]
    assert items == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}, {"a": 3, "b": "z"}]
    assert items != [{"a": 1, "b": "x"}]
    assert len(Zipped()) == 0


class Counted:
    """A number that counts how often it was encoded."""

    def __init__(self, number: int) -> None:
        self.number, self.times = number, 0

    def __index__(self) -> int:
        self.times += 1
        return self.number


def test_a_column_that_two_contracts_have_in_one_type_is_encoded_once() -> None:
    registry, times = MemoryRegistry(), [Counted(1), Counted(1_700_000_000_000)]
    column = Column(times)
    for name in ("click", "order"):
        record = getattr(records, name)()
        rest = {key: Fixed(value) for key, value in record.items() if key != "event_time"}
        encode = Encoder(registry, name, name)
        expected = [encode({**record, "event_time": time.number}) for time in times]
        assert encode.many(Table({**rest, "event_time": column}), 2) == expected
    assert [time.times for time in times] == [1, 1]


def test_a_column_of_strings_gives_the_keys_of_messages_too() -> None:
    assert Column(["é", ""]).utf8 == ["é".encode(), b""]


def test_a_column_that_two_contracts_have_in_two_types_is_encoded_for_each() -> None:
    column = Column([1, 2])
    for of in ("long", "double", ["null", "long"]):
        schema = record_of([field("n", of)])
        write = compile_writer(schema)
        assert joined(b"", Table({"n": column}).parts(record_writer(schema)), 2) == [write({"n": 1}), write({"n": 2})]


def test_columns_of_people_are_datetimes_and_decimals() -> None:
    encode = Encoder(MemoryRegistry(), "orders", "order", logical=True)
    record = records.order()
    row = {**record, "event_time": datetime(2026, 1, 1, tzinfo=UTC), "amount": Decimal("12.5")}
    assert encode.many(Table({name: Fixed(value) for name, value in row.items()}), 2) == [encode(row)] * 2


ITEM: dict[str, Any] = {"item_id": ["a", "b"], "score": [0.5, 0.25]}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"event_id": Column(["a", 7])}, "event_id"),
        ({"event_id": Column(["a", "\ud800"])}, "event_id"),
        ({"event_time": Column([1, 2**63])}, "event_time"),
        ({"event_time": Column([1, "2"])}, "event_time"),
        ({"scored_at": Fixed(None)}, "scored_at"),
        ({"timings": Table({"queue_us": Column([1, 2**31]), "infer_us": Fixed(1)})}, "timings.queue_us"),
        ({"timings": Table({"queue_us": Column([1, 2])})}, "timings.infer_us"),
        ({"timings": Fixed(5)}, "timings"),
        ({"cut": Table({"clicks": Fixed(1), "orders": Fixed(1), "impressions": Fixed(1), "x": Fixed(1)})}, "cut"),
        ({"items": Column([[], "text"])}, "items"),
        ({"items": Column([[], [{"item_id": "a"}]])}, "items[].score"),
        ({"items": Column([Zipped(**ITEM), Zipped(**{**ITEM, "score": ["0.5", 0.25]})])}, "items[].score"),
        ({"items": Column([Zipped(**ITEM), Zipped(**{**ITEM, "item_id": ["a", None]})])}, "items[].item_id"),
        ({"items": Column([Zipped(**ITEM), Zipped(**{**ITEM, "item_id": ["a"]})])}, "items"),
        ({"items": Column([Zipped(**ITEM), Zipped(**{**ITEM, "score": []})])}, "items"),
        ({"items": Column([Zipped(**ITEM), Zipped(**{**ITEM, "item_id": []})])}, "items"),
        ({"items": Column([Zipped(**ITEM), Zipped(**{**ITEM, "score": [0.5, 1e39]})])}, "items[].score"),
        ({"colour": Fixed("red")}, "recommendation_score"),
        ({"user_id": None}, "user_id"),
    ],
)
def test_columns_that_are_not_of_the_contract_are_refused_as_their_records_are(
    change: dict[str, Columnar | None], where: str
) -> None:
    columns: dict[str, Columnar | None] = {
        **{name: Column(["a", "b"]) for name in ("event_id", "user_id")},
        **{name: Fixed("x") for name in ("release", "engine")},
        **{name: Fixed(5) for name in ("event_time", "scored_at")},
        "timings": Table({"queue_us": Column([1, 2]), "infer_us": Fixed(1)}),
        "cut": Fixed({"clicks": 1, "orders": 1, "impressions": 1}),
        "items": Column([Zipped(**ITEM), Zipped(**ITEM)]),
    }
    encode = Encoder(MemoryRegistry(), "scores", "recommendation_score")
    assert len(encode.many(table_of(columns), 2)) == 2
    table = table_of(columns | change)
    with pytest.raises(BadRecord) as caught:
        encode.many(table, 2)
    assert (caught.value.code, caught.value.where) == ("wrong_type", where)
    with pytest.raises(BadRecord) as again:
        [encode(row) for row in table.rows(2)]
    assert str(again.value) == str(caught.value)


def table_of(columns: dict[str, Columnar | None]) -> Table:
    return Table({name: column for name, column in columns.items() if column is not None})


@pytest.mark.parametrize("count", [1, 3])
def test_a_column_of_another_length_is_no_records(count: int) -> None:
    schema = record_of([field("a", "int"), field("b", "int")])
    parts: Sequence[Any] = Table({"a": Column([1, 2]), "b": Fixed(1)}).parts(record_writer(schema))
    with pytest.raises(ValueError, match="2 values for"):
        joined(b"", list(parts), count)


def test_what_is_remembered_of_numbers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varint, "KEPT", 4)
    schema = record_of([field("n", "long")])
    write, reference = compile_writer(schema), parse_schema(schema)
    for number in range(0, 1 << 50, 1 << 46):
        assert write({"n": number}) == reference_bytes(reference, {"n": number})
    assert len(varint.LONG_REST) <= 4
