"""What the columns of fraud's features are called, in English and in Chinese: beside the sentences of the reasons.
Names, not sentences: what a column says of one order is for `sentences`.
"""

from collections.abc import Mapping

from streams.tasks.fraud import FIELDS, PAYMENT_METHODS
from streams.tasks.sentences import KIND_NAMES, Said

_METHODS = {
    "card": Said("card", "银行卡"),
    "paypal": Said("PayPal", "PayPal"),
    "bank_transfer": Said("bank transfer", "银行转账"),
    "invoice": Said("invoice", "账单付款"),
    "wallet": Said("wallet", "电子钱包"),
    "voucher": Said("voucher", "礼券"),
}

_NAMED = {
    "amount": Said("amount", "金额"),
    "lines": Said("lines", "商品行数"),
    "quantity": Said("pieces", "商品件数"),
    "top_line_share": Said("share of the largest line", "最大一行的占比"),
    "usual_amount": Said("usual amount", "平时金额"),
    "amount_over_usual": Said("amount against the usual", "金额与平时之比"),
    "orders": Said("orders so far", "历史订单数"),
    "clicks": Said("clicks so far", "历史点击数"),
    "account_hours": Said("age of the account", "账户时长"),
    "is_first_event": Said("first event", "首次出现"),
    "orders_1h": Said("orders in the last hour", "过去一小时的订单数"),
    "orders_24h": Said("orders in the last day", "过去一天的订单数"),
    "orders_7d": Said("orders in the last week", "过去一周的订单数"),
    "amount_24h": Said("amount in the last day", "过去一天的金额"),
    "clicks_30m": Said("clicks in the last half hour", "过去半小时的点击数"),
    "clicks_1h": Said("clicks in the last hour", "过去一小时的点击数"),
    "hours_since_first_order": Said("time since the first order", "距首单的时间"),
    "hours_since_order": Said("time since the last order", "距上一单的时间"),
    "foreign_card": Said("card from another country", "境外卡"),
    "ships_elsewhere": Said("ships to another address", "收货与账单地址不同"),
    "guest": Said("no account", "无账户"),
    "hour_sin": Said("hour of the day", "下单时刻"),
    "hour_cos": Said("hour of the day", "下单时刻"),
    "weekday_sin": Said("day of the week", "星期几"),
    "weekday_cos": Said("day of the week", "星期几"),
}


def _of_kind(english: str, chinese: str, kind: str) -> dict[str, Said]:
    return {
        f"{kind}_known": Said(f"whether the {english} is known", f"是否用过此{chinese}"),
        f"{kind}_users": Said(f"users of the {english}", f"使用此{chinese}的人数"),
        f"{kind}_frauds": Said(f"frauds of the {english}", f"与此{chinese}有关的欺诈数"),
    }


def _named() -> dict[str, Said]:
    named = dict(_NAMED)
    for kind, chinese in KIND_NAMES.items():
        named |= _of_kind("IP address" if kind == "ip" else kind, chinese, kind)
    for method in PAYMENT_METHODS:
        said = _METHODS[method]
        named[f"paid_by_{method}"] = Said(f"paid by {said.en}", f"以{said.zh}支付")
    return {field: named[field] for field in FIELDS}


FIELD_WORDS: Mapping[str, Said] = _named()
"""Of every column of FIELDS."""
