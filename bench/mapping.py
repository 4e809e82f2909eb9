"""What a mapped record costs, CPU µs: decoding, mapping, the checks and encoding; no broker. `python -m bench.mapping`.
The orders have three lines; what `headrace mapping run` adds for Kafka is the same for all of them.
"""

import json
import struct
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro

from bench.report import show
from schemas.catalog import Schema
from schemas.registry import MemoryRegistry
from streams.config import Settings
from streams.mapping.compiling import Compiled
from streams.mapping.document import parse
from streams.mapping.mapper import Mapper
from streams.raw import RawRecord

RECORDS, ROUNDS = 4_000, 3
NOW_MS = 1_800_000_000_000

ORDERS = """
name = "orders"
source = "shop.orders"
format = "json"
target = "order"
{when}
[fields]
event_time = "placed_at"
user_id = {{ path = "customer.id", guest = "session" }}
order_id = "number"
amount = {{ path = "total.minor", unit = "minor" }}
currency = "total.currency"
country = {country}
payment.method = {{ path = "pay.kind", values = {{ CC = "card" }}, otherwise = "other" }}
payment.instrument = "pay.token"
items.each = "lines"
items.fields.item_id = "sku"
items.fields.quantity = "qty"
items.fields.unit_price = {{ path = "minor", unit = "minor" }}
"""
CLICKS = """
name = "clicks"
source = "shop.clicks"
format = "{form}"
target = "click"
[fields]
event_time = {{ path = "at", time = "epoch_ms" }}
user_id = "user"
action = {{ value = "view" }}
item_id = "page.product"
"""
VISIT: Schema = {
    "type": "record", "name": "Visit", "fields": [
        {"name": "at", "type": "long"}, {"name": "user", "type": "string"},
        {"name": "page", "type": {"type": "record", "name": "Page", "fields": [{"name": "product", "type": "string"}]}},
    ],
}  # fmt: skip


def main() -> None:
    order = {
        "kind": "placed", "number": "SO-17", "placed_at": "2026-03-01T12:00:00+01:00", "session": "s1",
        "customer": {"id": 1017}, "total": {"minor": 3897, "currency": "GBP"}, "pay": {"kind": "CC", "token": "t17"},
        "ship_to": {"country": "GB"}, "lines": [{"sku": f"item-{n}", "qty": 1, "minor": 1299} for n in range(3)],
    }  # fmt: skip
    visit = {"at": 1_772_362_800_000, "user": "u17", "page": {"product": "item-7"}}
    registry = MemoryRegistry()
    body = BytesIO()
    fastavro.schemaless_writer(body, VISIT, visit)
    framed = struct.pack(">bI", 0, registry.register("shop.clicks-value", VISIT)) + body.getvalue()
    plain = ORDERS.format(when="", country='"ship_to.country"')
    cel = ORDERS.format(when="""when = 'source.kind == "placed"'""", country="{ cel = 'source.ship_to.country' }")
    show(
        "mapping",
        {
            "json_order_us": cost(registry, plain, as_json(order)),
            "json_order_two_cel_us": cost(registry, cel, as_json(order)),
            "json_click_us": cost(registry, CLICKS.format(form="json"), as_json(visit)),
            "avro_click_us": cost(registry, CLICKS.format(form="avro"), framed),
        },
    )


def cost(registry: MemoryRegistry, text: str, value: bytes) -> float:
    """CPU µs a record, the best of some rounds."""
    mapper = Mapper(Settings(), registry, Compiled(parse(text, "bench")), Path())
    raw = RawRecord("shop", 0, 7, NOW_MS, b"k", value)
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(RECORDS):
            mapper(raw, NOW_MS)
        taken.append(time.process_time() - began)
    return min(taken) / RECORDS * 1e6


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


if __name__ == "__main__":
    main()
