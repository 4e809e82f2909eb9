"""Many records at once, given by columns: no dict is made for a record, and no value is encoded twice.
What all records share is encoded once; a column that two schemas have in the same type is encoded once for both.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Protocol, TypeAlias, overload

Parts: TypeAlias = list[bytes | list[bytes]]
"""What stands one after the other in each record: bytes that all have, or some of each record's own."""


class Writer(Protocol):
    """Writes columns of one type: `schemas.column_writing` has the only one of each type. It raises what
    `schemas.writing.compile_writer` says, and names no field."""

    def one(self, value: Any) -> bytes: ...

    def column(self, column: "Column") -> Parts:
        """A value for each record."""

    def pieces(self, column: "Column") -> list[Sequence[bytes]]:
        """Items of lists, one by one."""

    def table(self, columns: "Mapping[str, Columnar]") -> Parts:
        """Records inside of records."""


class Columnar(ABC):
    """What a field is in all records. Give the same object to all schemas that have the field: `made` holds what it
    was encoded to, by the writer of its type."""

    __slots__ = ("made",)

    made: dict[Any, Any]

    def parts(self, writer: Writer) -> Parts:
        """The field as bytes."""
        made: Parts | None = self.made.get(writer)
        if made is None:
            made = self.made[writer] = self._encoded(writer)
        return made

    @abstractmethod
    def _encoded(self, writer: Writer) -> Parts: ...

    @abstractmethod
    def rows(self, count: int) -> Iterable[Any]:
        """The field's value in each of `count` records."""


class Fixed(Columnar):
    """A value that all records share."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value, self.made = value, {}

    def _encoded(self, writer: Writer) -> Parts:
        return [writer.one(self.value)]

    def rows(self, count: int) -> Iterable[Any]:
        return repeat(self.value, count)


class Column(Columnar):
    """A value for each record. `inside`: columns of lists that a column of `Zipped` may hold too, to encode once."""

    __slots__ = ("inside", "values")

    def __init__(self, values: Sequence[Any], inside: "Sequence[Column]" = ()) -> None:
        self.values, self.inside, self.made = values, inside, {}

    @property
    def utf8(self) -> list[bytes]:
        """Of strings: each as it is in a message's key."""
        made: list[bytes] | None = self.made.get("utf8")
        if made is None:
            made = self.made["utf8"] = [value.encode() for value in self.values]
        return made

    def pieces(self, writer: Writer) -> list[Sequence[bytes]]:
        """Of lists: the items of each, encoded one by one; `writer` is of the items' type."""
        made: list[Sequence[bytes]] | None = self.made.get(("pieces", writer))
        if made is None:
            made = self.made["pieces", writer] = writer.pieces(self)
        return made

    def _encoded(self, writer: Writer) -> Parts:
        return writer.column(self)

    def rows(self, count: int) -> Iterable[Any]:
        return self.values


class Table(Columnar):
    """A record inside of each record, or the whole of it, by its own columns."""

    __slots__ = ("columns",)

    def __init__(self, columns: Mapping[str, Columnar]) -> None:
        self.columns, self.made = columns, {}

    def _encoded(self, writer: Writer) -> Parts:
        return writer.table(self.columns)

    def rows(self, count: int) -> Iterable[dict[str, Any]]:
        """Each record as a dict. ValueError where a column has another length than `count`."""
        columns = [column.rows(count) for column in self.columns.values()]
        for row in zip(range(count), *columns, strict=True):
            yield dict(zip(self.columns, row[1:], strict=True))


class Zipped(Sequence[dict[str, Any]]):
    """An array of records, as one list for each field: written faster, and read like the list of dicts that it is."""

    __slots__ = ("columns",)

    def __init__(self, **columns: list[Any]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        lengths = [*map(len, self.columns.values())]
        shortest = min(lengths, default=0)
        if not shortest and any(lengths):  # where there is more, iterating says so
            raise ValueError("lists of different lengths")
        return shortest

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, row, strict=True))

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, at: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return list(self)[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list
