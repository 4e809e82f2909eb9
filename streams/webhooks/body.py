"""From an alert on its topic to what an endpoint gets, and whether it wants it.
The body is the alert in its contract's JSON, without the packed features.
"""

import json
from typing import Any

import xxhash

from schemas.reading import Record
from schemas.values import to_json
from streams.config_sections import Endpoint
from streams.webhooks.schedule import Delivery, Place

CONTRACT = "fraud_alert"
LEFT_OUT = "features"


def wanted(endpoint: Endpoint, alert: Record) -> bool:
    """By the endpoint's filters. An alert whose loss nobody knows passes any minimum."""
    loss = alert["expected_loss"]
    return alert["decision"] in endpoint.decisions and (loss is None or loss >= endpoint.min_expected_loss)


def body(alert: Record) -> bytes:
    row: dict[str, Any] = to_json(CONTRACT, alert)
    row.pop(LEFT_OUT)
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def delivery(endpoint: str, alert: Record, value: bytes, place: Place, appended_ms: int = 0) -> Delivery:
    """value: the alert's bytes at `place` of its topic."""
    topic, partition, offset = place
    return Delivery(
        id=xxhash.xxh3_128_hexdigest(f"{endpoint}/{topic}/{partition}/{offset}".encode()),
        alert_id=alert["alert_id"],
        order_id=alert["order_id"],
        decision=alert["decision"],
        body=body(alert),
        alert=value,
        place=place,
        appended_ms=appended_ms,
    )
