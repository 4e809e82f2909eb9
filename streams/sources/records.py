"""Records of the event contracts in physical Avro types: int milliseconds, money as bytes, no missing field.
One function a contract, so that each field of it is written down in one place.
"""

from typing import Any

from streams.sources.people import Checkout
from streams.sources.shop import CURRENCY, Items, to_decimal

Record = dict[str, Any]


def click(
    event_id: str,
    time: int,
    user: str,
    session: str | None,
    device: str | None,
    action: str,
    item: str | None,
    query: str | None = None,
    impression: str | None = None,
    ad: str | None = None,
) -> Record:
    return {
        **_event(event_id, time, user, session, device, {}),
        "action": action,
        "item_id": item,
        "query": query,
        "request_id": None,
        "position": None,
        "impression_id": impression,
        "ad_id": ad,
    }


def impression(
    event_id: str,
    time: int,
    user: str,
    session: str | None,
    device: str | None,
    placement: str,
    item: str | None,
    query: str | None,
    slate: list[Record],
) -> Record:
    return {
        **_event(event_id, time, user, session, device, {}),
        "request_id": "r" + event_id,
        "placement": placement,
        "context_item_id": item,
        "query": query,
        "slate": slate,
    }


def order(
    event_id: str,
    time: int,
    user: str,
    session: str | None,
    order_id: str,
    lines: list[Record],
    amount: int,
    checkout: Checkout,
    country: str | None,
) -> Record:
    """`amount` in minor units."""
    card = checkout.card
    attributes = {"express": checkout.express, "refunds_90d": float(checkout.refunds)}
    return {
        **_event(event_id, time, user, session, checkout.device.kind, attributes),
        "order_id": order_id,
        "items": lines,
        "amount": to_decimal(amount),
        "currency": CURRENCY,
        "payment": {
            "method": checkout.method,
            "instrument": card.token if card else None,
            "bin": card.bin if card else None,
            "issuer_country": card.issuer if card else None,
        },
        "email": checkout.email,
        "billing_address": checkout.billing,
        "shipping_address": checkout.shipping,
        "ip": checkout.ip,
        "device_id": checkout.device.token,
        "country": country,
    }


def _event(event_id: str, time: int, user: str, session: str | None, device: str | None, attributes: Record) -> Record:
    """What the contracts of all events begin with."""
    return {
        "event_id": event_id,
        "event_time": time,
        "user_id": user,
        "session_id": session,
        "device": device,
        "attributes": attributes,
    }


def order_line(item: str, quantity: int, price: int) -> Record:
    """`price` in minor units."""
    return {"item_id": item, "quantity": quantity, "unit_price": to_decimal(price), "request_id": None}


def label(order_id: str, value: float, source: str, time: int, revision: int) -> Record:
    """A fraud label."""
    return {
        "label_id": f"{order_id}-{source}-{revision}",
        "task": "fraud",
        "target_id": order_id,
        "candidate_id": None,
        "name": "fraud",
        "value": value,
        "source": source,
        "observed_at": time,
        "revision": revision,
        "withdrawn": False,
    }


def catalog_items(items: Items, categories: tuple[str, ...], time: int) -> list[Record]:
    """CatalogItem records."""
    return [
        {
            "item_id": item,
            "text": text,
            "category": categories[category],
            "price": to_decimal(price),
            "currency": CURRENCY,
            "image": None,
            "available": True,
            "updated_at": time,
            "attributes": {},
        }
        for item, text, category, price in zip(
            items.ids, items.texts, items.category.tolist(), items.price.tolist(), strict=True
        )
    ]


def catalog_ad(ad: str, text: str, category: str | None, item: str | None, time: int) -> Record:
    """A CatalogAd record."""
    return {
        "ad_id": ad,
        "text": text,
        "category": category,
        "item_id": item,
        "image": None,
        "active": True,
        "updated_at": time,
        "attributes": {},
    }
