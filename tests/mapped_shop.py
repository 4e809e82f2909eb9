"""A stranger's shop: topics of its own in JSON and Avro, and the mappings that a person would write for them."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import confluent_kafka
import fastavro
from confluent_kafka.admin import AdminClient, NewTopic

from streams.config import Settings
from streams.offsets import places
from tests import shop

ORDERS = """
name = "{name}"
source = "{source}"
format = "{format}"
target = "order"
when = 'source.kind == "order.placed"'

[fields]
event_time = "placed_at"
user_id = {{ path = "customer.id", guest = "session" }}
session_id = "session"
order_id = "number"
amount = {{ path = "total.minor", unit = "minor" }}
currency = "total.currency"
email = "customer.email_hash"
country = {{ cel = 'source.ship_to.country' }}
payment.method = {{ path = "pay.kind", values = {{ CC = "card", PP = "paypal" }}, otherwise = "other" }}
payment.instrument = "pay.token"
items.each = "lines"
items.fields.item_id = "sku"
items.fields.quantity = "qty"
items.fields.unit_price = {{ path = "minor", unit = "minor" }}

[attributes]
include = ["basket.*"]
"""
AVRO_SCHEMA: dict[str, Any] = {
    "type": "record", "name": "Pageview", "namespace": "com.shop", "fields": [
        {"name": "visitor", "type": ["null", "string"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "page", "type": {"type": "record", "name": "Page", "fields": [
            {"name": "product", "type": ["null", "int"]}, {"name": "what", "type": "string"}]}},
        {"name": "value", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    ],
}  # fmt: skip
CLICKS = """
name = "{name}"
source = "{source}"
format = "avro"
target = "click"

[fields]
event_time = "at"
user_id = {{ path = "visitor", guest = "$key" }}
action = {{ path = "page.what", values = {{ PRODUCT = "view", BASKET = "cart" }}, otherwise = "unknown" }}
item_id = {{ cel = '"item-" + string(source.page.product)' }}
attributes.worth = {{ cel = 'double(source.value)' }}
"""


def order(number: int, /, **changed: Any) -> dict[str, Any]:
    """As the shop has it: nested, ISO times with a zone, amounts in pence, ids as numbers."""
    return {
        "kind": "order.placed", "number": f"SO-{number}",
        "placed_at": f"2026-03-01T12:{number // 60 % 60:02d}:{number % 60:02d}+01:00",
        "customer": {"id": 1000 + number % 7, "email_hash": f"m{number % 7}"}, "session": f"s{number}",
        "total": {"minor": 2598, "currency": "GBP"}, "ship_to": {"country": "GB"},
        "pay": {"kind": "CC", "token": f"tok-{number % 7}"},
        "lines": [{"sku": f"item-{number % 40}", "qty": 2, "minor": 1299}],
        "basket": {"age_s": 12.5, "coupon": None}, "note": "never mapped",
    } | changed  # fmt: skip


def make_topic(settings: Settings, name: str, partitions: int = 3) -> str:
    admin = AdminClient(settings.librdkafka())
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result()
    shop.wait_for(lambda: name in admin.list_topics().topics)
    shop.wait_for(lambda: admin.list_topics(name).topics[name].error is None)
    return name


def produce(settings: Settings, topic: str, values: list[bytes | None], key: bytes | None = None) -> None:
    """Without a key, in turn over the partitions."""
    count = len(places(settings, topic))
    producer = confluent_kafka.Producer(settings.librdkafka() | {"enable.idempotence": True})
    for number, value in enumerate(values):
        producer.produce(topic, value, key, number % count)
        producer.poll(0)
    assert producer.flush(60) == 0


def as_json(*orders: dict[str, Any]) -> list[bytes | None]:
    return [json.dumps(one).encode() for one in orders]


def framed(schema_id: int, body: bytes) -> bytes:
    return struct.pack(">bI", 0, schema_id) + body


def avro_body(record: dict[str, Any]) -> bytes:
    """As a stranger's client writes it; amounts as their bytes."""
    plain = json.loads(json.dumps(AVRO_SCHEMA).replace('"logicalType"', '"was"'))
    body = io.BytesIO()
    fastavro.schemaless_writer(body, plain, record)
    return body.getvalue()


def write_mapping(folder: Path, text: str, **values: str) -> str:
    path = folder / f"{values['name']}.toml"
    path.write_text(text.format(**values), "utf-8")
    return str(path)
