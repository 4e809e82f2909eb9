"""The real shop's file: cleaned by stated rules, in time order, and read from its columns the second time."""

import lzma
from pathlib import Path

import pytest

from schemas.errors import DataUnavailable
from streams.sources import retail
from streams.sources.cleaning import CleaningReport
from streams.sources.shop import Shop
from streams.sources.taxonomy import CATEGORIES, STYLES, classify

HEAD = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country"
LINES = """\
500002,85048,RED RETROSPOT MUG ,3,12/2/2010 8:05,2.55,13085.0,United Kingdom
500002,85048,RED RETROSPOT MUG ,3,12/2/2010 8:05,2.55,13085.0,United Kingdom
500002,84029e,WOOLLY HOT WATER BOTTLE,1,12/2/2010 8:05,4.25,13085.0,United Kingdom
C500003,85048,RED RETROSPOT MUG ,-3,12/2/2010 9:00,2.55,13085.0,United Kingdom
500001,84029E,WOOLLY  HOT WATER BOTTLE,2,12/1/2010 16:30,4.15,17850.0,EIRE
500001,85048,damaged,1,12/1/2010 16:30,2.1,17850.0,EIRE
500001,85048,RED RETROSPOT MUG ,12,12/1/2010 16:30,1.5,17850.0,EIRE
500004,85048,RED RETROSPOT MUG ,1,12/3/2010 8:00,2.55,,United Kingdom
500005,POST,POSTAGE,1,12/3/2010 8:10,18,17850.0,EIRE
500005,85048,RED RETROSPOT MUG ,6,12/3/2010 8:10,0,17850.0,EIRE
500006,22423,REGENCY CAKESTAND 3 TIER,1,12/4/2010 10:00,12.75,12346.0,Unspecified
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file of the same form, where the fetched one would be."""
    path = tmp_path / "online_retail.csv.xz"
    path.write_bytes(lzma.compress(f"{HEAD}\n{LINES}".encode()))
    monkeypatch.setattr(retail, "fetch", lambda *_, **__: path)
    return path


@pytest.fixture
def loaded(source: Path, tmp_path: Path) -> tuple[Shop, CleaningReport]:
    return retail.load(folder=tmp_path)


def test_orders_come_in_time_order_with_their_own_lines(loaded: tuple[Shop, CleaningReport]) -> None:
    orders, items = loaded[0].orders, loaded[0].items
    assert orders.ids == ["500001", "500002", "500006"]
    assert [orders.customers[customer] for customer in orders.customer] == ["17850", "13085", "12346"]
    first = [(items.ids[orders.item[n]], int(orders.quantity[n]), int(orders.price[n])) for n in range(3)]
    assert first == [("84029E", 2, 41_500), ("85048", 1, 21_000), ("85048", 12, 15_000)]
    assert orders.lines(2) == slice(5, 6)


def test_countries_are_codes_and_no_country_is_none(loaded: tuple[Shop, CleaningReport]) -> None:
    orders = loaded[0].orders
    assert [orders.countries[country] for country in orders.country] == ["IE", "GB", None]


def test_an_item_has_its_commonest_text_and_its_median_price(loaded: tuple[Shop, CleaningReport]) -> None:
    items = loaded[0].items
    mug = items.ids.index("85048")
    assert (items.texts[mug], int(items.price[mug])) == ("RED RETROSPOT MUG", 21_000)
    assert items.texts[items.ids.index("84029E")] == "WOOLLY HOT WATER BOTTLE"


def test_the_report_counts_each_line_under_the_first_rule_that_takes_it(
    loaded: tuple[Shop, CleaningReport],
) -> None:
    report = loaded[1]
    assert report.lines == 11
    assert report.removed == {
        "duplicate": 1, "cancellation": 1, "no_customer": 1, "returned": 0, "no_price": 1, "not_a_product": 1,
    }  # fmt: skip
    assert report.found["returned"] == 1
    assert report.kept == report.lines - sum(report.removed.values())
    assert "6 lines kept: 3 orders of 3 customers, 3 items, 2010-12-01 to 2010-12-04" in str(report)


def test_fees_and_gifts_stay_in_where_a_protocol_wants_them(source: Path, tmp_path: Path) -> None:
    shop, report = retail.load(products_only=False, folder=tmp_path)
    assert report.kept == 8
    assert "POST" in shop.items.ids


def test_the_second_time_nothing_is_parsed(
    loaded: tuple[Shop, CleaningReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retail, "read_lines", lambda *_: pytest.fail("parsed again"))
    again, report = retail.load(folder=tmp_path)
    assert again.orders.ids == loaded[0].orders.ids
    assert again.items.texts == loaded[0].items.texts
    assert report == loaded[1]


def test_a_file_that_is_no_order_table_is_named(source: Path, tmp_path: Path) -> None:
    source.write_bytes(lzma.compress(b"a,b\n1,2\n"))
    with pytest.raises(DataUnavailable, match="no column Country, Customer ID"):
        retail.load(folder=tmp_path)


def test_a_damaged_archive_is_named(source: Path, tmp_path: Path) -> None:
    source.write_bytes(b"not xz")
    with pytest.raises(DataUnavailable, match="not a table of order lines"):
        retail.load(folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "category", "style"),
    [
        ("RED RETROSPOT MUG", "kitchen", "retrospot"),
        ("PACK OF 12 CHRISTMAS NAPKINS", "christmas", "plain"),
        ("SOMETHING ELSE", "other", "plain"),
    ],
)
def test_the_first_row_of_words_that_is_met_names_the_category(text: str, category: str, style: str) -> None:
    categories, styles = classify([text])
    assert (CATEGORIES[categories[0]], STYLES[styles[0]]) == (category, style)
