"""What a perfect model would have said, kept beside the stream and never published: probabilities and
outcomes by event. A file of it is Parquet, one row for each order and for each ad that was shown.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from schemas.errors import DataUnavailable

ROWS_AT_ONCE = 20_000
SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("task", pa.string()),
        ("target_id", pa.string()),
        ("candidate_id", pa.string()),
        ("event_time", pa.int64()),
        ("probability", pa.float64()),
        ("outcome", pa.int8()),
        ("kind", pa.string()),
        ("script", pa.string()),
        ("cause", pa.string()),
        ("new", pa.float64()),
        ("conversion", pa.float64()),
        ("converted", pa.int8()),
    ]
)


@dataclass(frozen=True, slots=True)
class Truth:
    """Of an order ("fraud", one entry) or of an impression ("ctr", an entry for each shown ad, `candidates`
    names them).

    `probabilities` are exact given all that was published up to the event; `outcomes` (0 or 1) were drawn
    from them. `kind` is the fraud that struck, "" if none; `script` the campaign or look-alike that the order
    belongs to, "" if none; `cause` what gave the fraud away most, one of streams.sources.risk.CAUSES;
    `new` the probability of the new kind of fraud alone. `conversions`: of each shown ad the probability that its
    item is ordered if it is clicked, and `converted` whether it was clicked and ordered; empty without conversions.
    """

    event_id: str
    task: str
    target_id: str
    event_time: int
    probabilities: tuple[float, ...]
    outcomes: tuple[int, ...]
    candidates: tuple[str, ...] = ()
    kind: str = ""
    script: str = ""
    cause: str = ""
    new: float = 0.0
    conversions: tuple[float, ...] = ()
    converted: tuple[int, ...] = ()

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """In the order of SCHEMA."""
        names: tuple[str | None, ...] = self.candidates or (None,)
        told = zip(self.conversions, self.converted, strict=True) if self.conversions else repeat((None, None))
        for name, probability, outcome, bought in zip(names, self.probabilities, self.outcomes, told, strict=False):
            yield (
                *(self.event_id, self.task, self.target_id, name, self.event_time),
                *(probability, outcome, self.kind, self.script, self.cause, self.new, *bought),
            )


class TruthFile:
    """Writes a truth file as the events go by; it is complete, and there, once the `with` block ends."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._rows: list[tuple[Any, ...]] = []

    def __enter__(self) -> "TruthFile":
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pa.parquet.ParquetWriter(self._part, SCHEMA)
        except OSError as error:
            raise DataUnavailable(f"cannot be written: {error.strerror}", where=str(self._path)) from error
        return self

    def add(self, truth: Truth | None) -> None:
        if truth is not None:
            self._rows.extend(truth.rows())
            if len(self._rows) >= ROWS_AT_ONCE:
                self._write()

    def _write(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(SCHEMA)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
        self._rows.clear()

    def __exit__(self, *_: object) -> None:
        self._write()
        self._writer.close()
        self._part.replace(self._path)


def write_truth(path: Path, truths: Iterable[Truth]) -> None:
    with TruthFile(path) as file:
        for truth in truths:
            file.add(truth)


def read_truth(path: Path) -> pa.Table:
    """Columns of SCHEMA. Raises DataUnavailable."""
    try:
        return pa.parquet.read_table(path, schema=SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise DataUnavailable(f"no truth file: {error}", where=str(path)) from error
