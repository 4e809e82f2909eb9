"""What is taken out of Online Retail II before it is used, rule by rule, with the number of lines each finds.
A line may break several rules; `found` counts each rule alone, `removed` counts a line under the first rule
that takes it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

PRODUCT_CODE = r"^[0-9]{5}[A-Z]{0,2}$"
RULES = {
    "duplicate": "a line that stands there twice, word for word",
    "cancellation": "an invoice that begins with C",
    "no_customer": "a line without a customer",
    "returned": "a quantity of 0 or less: a return or a correction",
    "no_price": "a price of 0 or less: a gift, a write-off",
    "not_a_product": "a code that is no product: POST, DOT, M, BANK CHARGES, AMAZONFEE, ...",
}


@dataclass(frozen=True, slots=True)
class CleaningReport:
    """How many lines came in, what each rule found and took, and what is left."""

    lines: int
    found: dict[str, int]
    removed: dict[str, int]
    kept: int
    orders: int
    customers: int
    items: int
    first_day: str
    last_day: str

    def __str__(self) -> str:
        head = f"{self.lines:>9,} order lines"
        rows = [f"{-count:>9,} {RULES[rule]} ({self.found[rule]:,} in all)" for rule, count in self.removed.items()]
        tail = (
            f"{self.kept:>9,} lines kept: {self.orders:,} orders of {self.customers:,} customers, "
            f"{self.items:,} items, {self.first_day} to {self.last_day}"
        )
        return "\n".join([head, *rows, tail])


def cleaned(lines: pa.Table, *, products_only: bool = True) -> tuple[pa.Table, CleaningReport]:
    """The lines that are left, codes in capitals and texts trimmed, and the report. Input as
    retail.read_lines gives it.
    """
    breaks = _breaks(lines)
    if not products_only:
        del breaks["no_price"], breaks["not_a_product"]
    left = np.ones(len(lines), np.bool_)
    removed = {}
    for rule, broken in breaks.items():
        removed[rule] = int((left & broken).sum())
        left &= ~broken
    kept = lines.filter(pa.array(left))
    kept = kept.set_column(1, "StockCode", _code(kept["StockCode"]))
    kept = kept.set_column(2, "Description", _text(kept["Description"]))
    return kept, _report(lines, kept, {rule: int(broken.sum()) for rule, broken in breaks.items()}, removed)


def _breaks(lines: pa.Table) -> dict[str, NDArray[np.bool_]]:
    """Rule to (lines,) whether the line breaks it, in the order of RULES."""
    return {
        "duplicate": _duplicates(lines),
        "cancellation": _flags(pc.starts_with(lines["Invoice"], "C")),
        "no_customer": _flags(pc.is_null(lines["customer"])),
        "returned": _flags(pc.less_equal(lines["Quantity"], 0)),
        "no_price": _flags(pc.less_equal(lines["Price"], 0)),
        "not_a_product": ~_flags(pc.match_substring_regex(_code(lines["StockCode"]), PRODUCT_CODE)),
    }


def _duplicates(lines: pa.Table) -> NDArray[np.bool_]:
    """All but the first of equal lines."""
    names = lines.column_names
    numbered = lines.append_column("line", pa.array(np.arange(len(lines))))
    firsts = numbered.group_by(names).aggregate([("line", "min")])["line_min"].to_numpy()
    again = np.ones(len(lines), np.bool_)
    again[firsts] = False
    return again


def _flags(column: Any) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = column.to_numpy()
    return flags


def _code(column: Any) -> Any:
    return pc.utf8_upper(pc.utf8_trim_whitespace(column))


def _text(column: Any) -> Any:
    return pc.replace_substring_regex(pc.utf8_trim_whitespace(column), r"\s+", " ")


def _report(lines: pa.Table, kept: pa.Table, found: dict[str, int], removed: dict[str, int]) -> CleaningReport:
    days = np.array(pc.min_max(kept["time"]).as_py() and list(pc.min_max(kept["time"]).as_py().values()), "M8[ms]")
    first, last = np.datetime_as_string(days, unit="D")
    return CleaningReport(
        lines=len(lines),
        found=found,
        removed=removed,
        kept=len(kept),
        orders=len(pc.unique(kept["Invoice"])),
        customers=len(pc.unique(kept["customer"])),
        items=len(pc.unique(kept["StockCode"])),
        first_day=str(first),
        last_day=str(last),
    )
