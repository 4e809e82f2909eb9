"""Online Retail II, a real shop's two years of orders: read, cleaned by stated rules, and kept as columns.
Its clock is British time without a zone; it is taken as UTC, so that hours of the day are the shop's own.
"""

import json
import lzma
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from schemas.errors import DataUnavailable
from streams.sources.cleaning import CleaningReport, cleaned
from streams.sources.countries import ISO_CODES
from streams.sources.fetch import cache_folder, fetch
from streams.sources.shop import MINOR_UNITS, Items, Orders, Shop
from streams.sources.taxonomy import classify

NAME = "Online Retail II"
FORMAT = 1
COLUMNS = (
    "Invoice",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "Price",
    "Customer ID",
    "Country",
)


def load(*, products_only: bool = True, folder: Path | None = None) -> tuple[Shop, CleaningReport]:
    """The shop and how its lines were cleaned; the first call takes seconds, later ones read what it kept.

    Without `products_only`, postage, fees and lines given away stay in, as some published protocols have it.
    Raises DataUnavailable.
    """
    home = (folder or cache_folder()) / f"online-retail-clean-{FORMAT}{'' if products_only else '-all'}"
    if not (home / "report.json").is_file():
        lines, report = cleaned(read_lines(fetch("online-retail", folder=folder)), products_only=products_only)
        _keep(home, lines, report)
    return _read(home)


def read_lines(path: Path) -> pa.Table:
    """The file's lines: Invoice, StockCode, Description, Quantity, Price, Country, customer (int32), time
    (ms).
    """
    try:
        raw = pa.csv.read_csv(pa.BufferReader(lzma.decompress(path.read_bytes())))
    except (lzma.LZMAError, pa.ArrowInvalid) as error:
        raise DataUnavailable(f"not a table of order lines: {error}", where=str(path)) from error
    if missing := sorted(set(COLUMNS) - set(raw.column_names)):
        raise DataUnavailable(f"no column {', '.join(missing)}", where=str(path), expected=", ".join(COLUMNS))
    time = pc.strptime(raw["InvoiceDate"], format="%m/%d/%Y %H:%M", unit="ms").cast(pa.int64())
    customer = raw["Customer ID"].cast(pa.int32())
    return (
        raw.drop_columns(["InvoiceDate", "Customer ID"]).append_column("customer", customer).append_column("time", time)
    )


def _keep(home: Path, lines: pa.Table, report: CleaningReport) -> None:
    """Written beside and moved into place: a reader never sees half of it."""
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".clean-") as scratch:
        ready = Path(scratch, "ready")
        ready.mkdir()
        for name, table in _tables(lines).items():
            pa.parquet.write_table(table, ready / f"{name}.parquet")
        (ready / "report.json").write_text(json.dumps(asdict(report)), encoding="utf-8")
        try:
            ready.rename(home)
        except OSError:
            if not (home / "report.json").is_file():
                raise


def _tables(lines: pa.Table) -> dict[str, pa.Table]:
    """Items by id, orders by time, and the lines of the orders, in their order."""
    items = _items(lines)
    invoices = lines["Invoice"].combine_chunks().dictionary_encode()
    invoice = invoices.indices.to_numpy()
    times = lines["time"].to_numpy()
    start = np.full(len(invoices.dictionary), np.iinfo(np.int64).max)
    np.minimum.at(start, invoice, times)
    names = invoices.dictionary.to_numpy(zero_copy_only=False)
    by_time = np.lexsort((names, start))
    rank = np.empty(len(by_time), np.int64)
    rank[by_time] = np.arange(len(by_time))
    line_order = np.argsort(rank[invoice], kind="stable")
    first = np.unique(rank[invoice[line_order]], return_index=True)[1]
    heads = lines.take(line_order[first])
    orders = pa.table(
        {
            "id": heads["Invoice"],
            "time": start[by_time],
            "customer": heads["customer"],
            "country": pa.array([ISO_CODES.get(name) for name in heads["Country"].to_pylist()], pa.string()),
            "lines": np.diff(np.append(first, len(line_order))),
        }
    )
    rows = pc.index_in(lines["StockCode"], items["id"].combine_chunks())
    columns = {"item": rows, "quantity": lines["Quantity"].cast(pa.int32()), "price": _minor(lines["Price"])}
    return {"items": items, "orders": orders, "lines": pa.table(columns).take(line_order)}


def _minor(price: Any) -> Any:
    return pc.round(pc.multiply(price, MINOR_UNITS)).cast(pa.int64())


def _items(lines: pa.Table) -> pa.Table:
    """Each code with its most common description (the longer, then the later in the alphabet, on a tie) and
    median price.
    """
    counted = lines.group_by(["StockCode", "Description"]).aggregate([([], "count_all")])
    counted = counted.append_column("length", pc.utf8_length(counted["Description"]))
    order = [(name, "descending") for name in ("count_all", "length", "Description")]
    counted = counted.sort_by([("StockCode", "ascending"), *order])
    first = np.unique(counted["StockCode"].to_numpy(), return_index=True)[1]
    best = counted.take(first)
    sold = (
        lines.select(["StockCode"])
        .append_column("price", _minor(lines["Price"]))
        .sort_by([("StockCode", "ascending"), ("price", "ascending")])
    )
    edges = np.append(np.unique(sold["StockCode"].to_numpy(), return_index=True)[1], len(sold))
    median = sold["price"].to_numpy()[(edges[:-1] + edges[1:] - 1) // 2]
    return pa.table({"id": best["StockCode"], "text": best["Description"], "price": median})


def _read(home: Path) -> tuple[Shop, CleaningReport]:
    try:
        tables = {name: pa.parquet.read_table(home / f"{name}.parquet") for name in ("items", "orders", "lines")}
        report = CleaningReport(**json.loads((home / "report.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise DataUnavailable(f"{error}", where=str(home), todo="delete that folder and run again") from error
    return Shop(NAME, True, _item_columns(tables["items"]), _order_columns(tables["orders"], tables["lines"])), report


def _item_columns(table: pa.Table) -> Items:
    texts = table["text"].to_pylist()
    category, style = classify(texts)
    return Items(table["id"].to_pylist(), texts, category, style, table["price"].to_numpy())


def _order_columns(orders: pa.Table, lines: pa.Table) -> Orders:
    customers, customer = np.unique(orders["customer"].to_numpy(), return_inverse=True)
    countries = orders["country"].combine_chunks().dictionary_encode(null_encoding="encode")
    return Orders(
        ids=orders["id"].to_pylist(),
        time=orders["time"].to_numpy(),
        customer=customer.astype(np.int32),
        country=countries.indices.to_numpy().astype(np.int16),
        offsets=np.concatenate([[0], np.cumsum(orders["lines"].to_numpy())]).astype(np.int64),
        item=lines["item"].to_numpy(),
        quantity=lines["quantity"].to_numpy(),
        price=lines["price"].to_numpy(),
        customers=[str(number) for number in customers.tolist()],
        countries=countries.dictionary.to_pylist(),
    )
