"""The three input events: what is checked beyond their schema, and what each adds to its user's state.
A shop's record comes in with physical Avro types and goes out as columns; nothing here knows Kafka or a model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash

from schemas.errors import BadRecord
from streams.batch import CLICKS, IMPRESSIONS, KINDS, ORDERS, EventBatch
from streams.catalog import Catalogue

Record = Mapping[str, Any]

MAX_ID_CHARS = 256
MAX_ATTRIBUTES = 256
MAX_ORDER_LINES = 500
MAX_SLATE = 8
ENTRY_LINES = 15  # order lines that enter the history; the order itself is one more entry
EARLIEST_MS = 946_684_800_000  # 2000-01-01: anything before is a unit error
CLOCK_SKEW_MS = 86_400_000  # a shop's clock may run ahead of the broker's by a day

_COUNTED = np.eye(3, 5, dtype=np.int64)  # by topic: what an event adds to the totals, but for an order's sums

ENTITY_FIELDS = ("card", "device", "address", "email", "ip")


class Entry(NamedTuple):
    """One token of a user's history: see streams.batch.KINDS; value in minor units."""

    kind: int
    item: int
    value: int
    quantity: int


class EventType(NamedTuple):
    """What the hot path needs to know of one input topic."""

    topic: int
    name: str
    schema: str
    check: Callable[[Record], None]
    entries: Callable[[Record, Catalogue], list[Entry]]


def money(unscaled: bytes) -> int:
    """Minor units (1/10,000 of the currency's unit) of a decimal(18, 4)."""
    return int.from_bytes(unscaled, "big", signed=True)


def check(record: Record, event_type: EventType, broker_time: int) -> None:
    """Raises BadRecord (out_of_range) for a value that no shop can mean.

    `broker_time`: the broker's timestamp of the message, in ms.
    """
    user_id, event_id, time, attributes = (
        record["user_id"],
        record["event_id"],
        record["event_time"],
        record["attributes"],
    )
    if not 0 < len(user_id) <= MAX_ID_CHARS:
        raise _out_of_range("user_id", user_id, f"1 to {MAX_ID_CHARS} characters")
    if not 0 < len(event_id) <= MAX_ID_CHARS:
        raise _out_of_range("event_id", event_id, f"1 to {MAX_ID_CHARS} characters")
    if not EARLIEST_MS <= time <= broker_time + CLOCK_SKEW_MS:
        raise _out_of_range("event_time", time, "UTC epoch ms, from the year 2000 to a day past the broker's clock")
    if attributes and len(attributes) > MAX_ATTRIBUTES:
        raise _out_of_range("attributes", len(attributes), f"at most {MAX_ATTRIBUTES}")
    event_type.check(record)


def check_click(record: Record) -> None:
    position = record["position"]
    if position is not None and position < 0:
        raise _out_of_range("position", position, "0 or more")


def check_order(record: Record) -> None:
    lines = record["items"]
    _require(bool(record["order_id"]), "order_id", record["order_id"], "an id")
    _require(1 <= len(lines) <= MAX_ORDER_LINES, "items", len(lines), f"1 to {MAX_ORDER_LINES} lines")
    _require(0 <= money(record["amount"]) < 10**15, "amount", money(record["amount"]) / 1e4, "0 up to 100 billion")
    _require(len(record["currency"]) == 3, "currency", record["currency"], "an ISO 4217 code")
    for number, line in enumerate(lines):
        if not (1 <= line["quantity"] <= 1_000_000 and money(line["unit_price"]) >= 0):
            raise _out_of_range(f"items[{number}]", dict(line), "quantity 1 to 1,000,000 and a price of 0 or more")


def check_impression(record: Record) -> None:
    slate = record["slate"]
    _require(bool(record["request_id"]), "request_id", record["request_id"], "an id")
    _require(1 <= len(slate) <= MAX_SLATE, "slate", len(slate), f"1 to {MAX_SLATE} ads")
    for number, ad in enumerate(slate):
        if not 0 <= ad["position"] < 256:
            raise _out_of_range(f"slate[{number}].position", ad["position"], "0 to 255")
        if ad["bid"] is not None and money(ad["bid"]) < 0:
            raise _out_of_range(f"slate[{number}].bid", money(ad["bid"]) / 1e4, "0 or more")


def click_entries(record: Record, catalog: Catalogue) -> list[Entry]:
    row = catalog.items.get(record["item_id"], 0)
    kind = KINDS.get(record["action"], KINDS["unknown"])
    return [Entry(kind, row, round(catalog.price(row) * 10_000), 1)]


def order_entries(record: Record, catalog: Catalogue) -> list[Entry]:
    """The order itself (its amount, its number of lines), then its dearest lines."""
    lines = [
        Entry(
            KINDS["purchase"],
            catalog.items.get(line["item_id"], 0),
            money(line["unit_price"]),
            line["quantity"],
        )
        for line in record["items"]
    ]
    if len(lines) > ENTRY_LINES:
        lines = sorted(lines, key=lambda entry: entry.value * entry.quantity, reverse=True)[:ENTRY_LINES]
    return [Entry(KINDS["order"], 0, money(record["amount"]), len(record["items"])), *lines]


def impression_entries(record: Record, catalog: Catalogue) -> list[Entry]:
    return [Entry(KINDS["impression"], catalog.items.get(record["context_item_id"], 0), 0, len(record["slate"]))]


EVENT_TYPES = (
    EventType(CLICKS, "clicks", "click", check_click, click_entries),
    EventType(ORDERS, "orders", "order", check_order, order_entries),
    EventType(IMPRESSIONS, "impressions", "ad_impression", check_impression, impression_entries),
)


def entity_token(kind: str, token: str) -> int:
    """The hash under which a card, device, address, email or ip is known everywhere."""
    return xxhash.xxh3_64_intdigest(f"{kind}:{token}".encode())


def order_entities(record: Record) -> tuple[str | None, ...]:
    """An order's entities in the order of ENTITY_FIELDS; the shipping address is the one that counts."""
    address = record["shipping_address"] or record["billing_address"]
    return (record["payment"]["instrument"], record["device_id"], address, record["email"], record["ip"])


def event_batch(
    records: Sequence[Record],
    topic: Sequence[int],
    partition: Sequence[int],
    offset: Sequence[int],
    catalog: Catalogue,
) -> EventBatch:
    """Columns of N checked records in arrival order."""
    topics = np.array(topic, np.uint8)
    increments = _COUNTED.take(topics, axis=0)
    tokens = np.zeros((len(records), 5), np.uint64)
    entries: list[Entry] = []
    counts: list[int] = []
    for number, (record, kind) in enumerate(zip(records, topic, strict=True)):
        new = EVENT_TYPES[kind].entries(record, catalog)
        entries += new
        counts.append(len(new))
        if kind == ORDERS:
            increments[number, 3] = new[0].value
            increments[number, 4] = sum(line["quantity"] for line in record["items"])
            tokens[number] = [
                entity_token(name, value) if value else 0
                for name, value in zip(ENTITY_FIELDS, order_entities(record), strict=True)
            ]
    kinds, items, values, quantities = zip(*entries, strict=True) if entries else ((), (), (), ())
    event = np.arange(len(records), dtype=np.int32)
    return EventBatch(
        users=[record["user_id"] for record in records],
        topic=topics,
        partition=np.array(partition, np.int32),
        offset=np.array(offset, np.int64),
        time=np.array([record["event_time"] for record in records], np.int64),
        event_hash=np.array([xxhash.xxh3_64_intdigest(record["event_id"].encode()) for record in records], np.uint64),
        increments=increments,
        tokens=tokens,
        entry_event=event if len(entries) == len(records) else event.repeat(counts),
        entry_kind=np.array(kinds, np.uint8),
        entry_item=np.array(items, np.int32),
        entry_value=np.array(values, np.int64),
        entry_quantity=np.array(quantities, np.int32),
    )


def _require(holds: bool, field: str, value: object, expected: str) -> None:
    if not holds:
        raise _out_of_range(field, value, expected)


def _out_of_range(field: str, value: object, expected: str) -> BadRecord:
    shown = repr(value)
    if isinstance(value, float) and not math.isfinite(value):
        shown = "not a finite number"
    return BadRecord(
        "out_of_range",
        f"{field} is {shown[:200]}",
        where=field,
        expected=expected,
        todo="publish the event again with the value mended, under the same event_id",
    )
