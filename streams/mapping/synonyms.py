"""What shops call the fields of the contract, the likeliest first: what `suggest` looks for in the names of paths.
Words are lower case, apart: `createdAt`, `created_at` and `CREATED-AT` are all `created at`.
"""

from collections.abc import Mapping, Sequence

SYNONYMS: Mapping[str, Sequence[str]] = {
    "event_id": ("event id", "message id", "uuid", "id"),
    "event_time": ("event time", "timestamp", "ts", "created at", "occurred at", "placed at", "time", "date"),
    "user_id": ("user id", "customer id", "client id", "member id", "account id", "buyer id", "user", "customer"),
    "session_id": ("session id", "session", "sid"),
    "device": ("device class", "device type", "device", "platform"),
    "action": ("action", "event type", "event name", "event", "type", "kind"),
    "item_id": ("item id", "product id", "sku", "article id", "product code", "variant id", "item", "product"),
    "query": ("query", "search term", "search", "q", "keyword"),
    "request_id": ("request id", "recommendation id"),
    "position": ("position", "rank", "index", "slot"),
    "impression_id": ("impression id",),
    "ad_id": ("ad id", "creative id", "banner id", "ad"),
    "order_id": ("order id", "order number", "order no", "order ref", "id", "number"),
    "items": ("items", "lines", "line items", "order lines", "products", "positions", "cart", "basket"),
    "amount": ("amount", "total", "grand total", "order total", "total price", "sum", "value"),
    "currency": ("currency", "currency code"),
    "quantity": ("quantity", "qty", "count", "units", "pieces"),
    "unit_price": ("unit price", "price", "price each", "item price", "amount"),
    "method": ("payment method", "method", "payment type", "type", "kind"),
    "instrument": ("card token", "instrument", "payment token", "token", "card id", "card fingerprint", "fingerprint"),
    "bin": ("card bin", "bin", "iin"),
    "issuer_country": ("issuer country", "card country"),
    "email": ("email hash", "email token", "email", "mail"),
    "billing_address": ("billing address", "billing hash", "billing"),
    "shipping_address": ("shipping address", "delivery address", "shipping hash", "shipping", "delivery"),
    "ip": ("ip address", "client ip", "ip", "remote address"),
    "device_id": ("device id", "device fingerprint", "fingerprint"),
    "country": ("shipping country", "delivery country", "country code", "country"),
    "placement": ("placement", "slot", "zone", "page"),
    "slate": ("slate", "ads", "banners", "creatives"),
    "bid": ("bid", "cpc", "price"),
    "shown": ("shown", "visible", "viewable", "in view"),
    "text": ("text", "title", "name", "description"),
    "category": ("category", "category name", "department"),
    "price": ("price", "unit price"),
    "updated_at": ("updated at", "modified at", "timestamp", "ts"),
    "target_id": ("target id", "order id", "order number"),
    "label_id": ("label id", "chargeback id", "id"),
    "observed_at": ("observed at", "received at", "created at", "timestamp"),
}  # fmt: skip
GUESTS = ("session id", "device id", "visitor id", "anonymous id", "cookie id")
