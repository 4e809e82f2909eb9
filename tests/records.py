"""Small, valid records in physical Avro types, for tests that need an event and care about one of its fields."""

from typing import Any

NOON_MS = 1_700_000_000_000


def money(units: float) -> bytes:
    """decimal(18, 4) of an amount in units of currency."""
    return round(units * 10_000).to_bytes(8, "big", signed=True)


def click(**fields: Any) -> dict[str, Any]:
    return _event() | {
        "action": "view", "item_id": "item-1", "query": None, "request_id": None, "position": None,
        "impression_id": None, "ad_id": None,
    } | fields  # fmt: skip


def order(**fields: Any) -> dict[str, Any]:
    return _event() | {
        "order_id": "order-1", "items": [line()], "amount": money(12.5), "currency": "GBP",
        "payment": {"method": "card", "instrument": "card-1", "bin": "424242", "issuer_country": "GB"},
        "email": "mail-1", "billing_address": "home-1", "shipping_address": "home-1", "ip": "10.0.0.1",
        "device_id": "device-1", "country": "GB",
    } | fields  # fmt: skip


def line(**fields: Any) -> dict[str, Any]:
    return {"item_id": "item-1", "quantity": 1, "unit_price": money(12.5), "request_id": None} | fields


def impression(**fields: Any) -> dict[str, Any]:
    slate = [{"ad_id": f"ad-{n}", "position": n, "bid": money(0.2), "shown": True} for n in range(3)]
    return _event() | {
        "request_id": "request-1", "placement": "home", "context_item_id": None, "query": None, "slate": slate,
    } | fields  # fmt: skip


def _event() -> dict[str, Any]:
    return {
        "event_id": "event-1", "event_time": NOON_MS, "user_id": "user-1", "session_id": None, "device": None,
        "attributes": {},
    }  # fmt: skip
