"""Why an order was flagged, in one sentence that a person understands, in English and in Chinese.
It names the groups of facts that raised the score most, by what is known of them, and the rules that fired.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.tasks.attribution import Contribution
from streams.tasks.fraud import COLUMN

MOST = 3
LEAST = 0.2
"""Log-odds: what raises them by less is not named."""

Fields = NDArray[np.float32]


class Said(NamedTuple):
    en: str
    zh: str


class _Known:
    """An order's facts in the units that people use."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def raw(self, name: str) -> float:
        return float(self._fields[COLUMN[name]])

    def count(self, name: str) -> int:
        return round(float(np.expm1(self.raw(name))))


def _amount(of: _Known) -> Said:
    over = float(np.exp(of.raw("amount_over_usual")))
    if of.count("orders") and over >= 1.5:
        return Said(f"the amount is {over:.1f} times the customer's usual", f"金额是该客户平时的 {over:.1f} 倍")
    return Said("the amount is unusual", "金额异常")


def _basket(of: _Known) -> Said:
    count = of.count("quantity")
    return Said(f"what was ordered ({count} pieces)", f"所购商品({count} 件)")


def _pace(of: _Known) -> Said:
    if hour := of.count("orders_1h"):
        return Said(f"{hour} {'order' if hour == 1 else 'orders'} in the hour before", f"此前一小时内有 {hour} 笔订单")
    if day := of.count("orders_24h"):
        return Said(f"{day} {'order' if day == 1 else 'orders'} in the day before", f"此前一天内有 {day} 笔订单")
    return Said("the pace of orders and clicks", "下单与浏览的节奏异常")


def _account(of: _Known) -> Said:
    if of.raw("guest") > 0:
        return Said("the customer has no account", "客户没有账户")
    if of.raw("is_first_event") > 0:
        return Said("nothing was known of the customer before", "此前没有该客户的任何记录")
    if (hours := of.count("account_hours")) < 48:
        return Said(f"the account is {hours} hours old", f"账户仅开立 {hours} 小时")
    return Said("the account's history", "账户历史")


KIND_NAMES = {"card": "付款卡", "device": "设备", "address": "地址", "email": "邮箱", "ip": "IP 地址"}


def _entity(kind: str) -> Callable[[_Known], Said]:
    english, chinese = ("IP address" if kind == "ip" else kind), KIND_NAMES[kind]

    def say(of: _Known) -> Said:
        if frauds := of.count(f"{kind}_frauds"):
            return Said(f"the {english} is linked to fraud ({frauds})", f"{chinese}与欺诈有关联({frauds} 起)")
        if (users := of.count(f"{kind}_users")) > 1:
            return Said(f"the {english} is shared by {users} customers", f"{chinese}被 {users} 位客户共用")
        if kind == "card" and of.raw("foreign_card") > 0:
            return Said("the card is from another country", "付款卡来自其他国家")
        if kind == "address" and of.raw("ships_elsewhere") > 0:
            return Said("it ships to another address than the bill", "收货地址与账单地址不同")
        if of.raw(f"{kind}_known") == 0:
            return Said(f"the {english} is new for this customer", f"该客户首次使用此{chinese}")
        if of.raw(f"{kind}_known") < 0:
            return Said(f"no {english} was given", f"未提供{chinese}")
        return Said(f"the {english}", f"{chinese}")

    return say


_WORDS: Mapping[str, Callable[[_Known], Said]] = {
    "amount": _amount,
    "basket": _basket,
    "pace": _pace,
    "account": _account,
    **{kind: _entity(kind) for kind in KIND_NAMES},
    "payment": lambda _: Said("the way of payment", "付款方式"),
    "time": lambda _: Said("the time of the order", "下单时间"),
    "attributes": lambda _: Said("the shop's own signals", "商店自有信号"),
    "history": lambda _: Said("what the customer did before", "客户此前的行为"),
}
_DECIDED = {"review": Said("Held for review", "已转人工审核"), "block": Said("Blocked", "已拦截")}


def sentences(
    decision: str, probability: float, contributions: Sequence[Contribution], fields: Fields, rules: Sequence[str] = ()
) -> dict[str, str]:
    """By language. rules: that fired, by id."""
    known = _Known(fields)
    raised = [each for each in contributions if each.logit >= LEAST][:MOST]
    why = [_WORDS[each.group](known) for each in raised]
    head = _DECIDED.get(decision, Said("Flagged", "已标记"))
    named = ", ".join(rules)
    english = f"{head.en}: fraud probability {probability:.0%}"
    chinese = f"{head.zh}:欺诈概率 {probability:.0%}"
    if why:
        english += f", mostly because {_joined([said.en for said in why])}"
        chinese += f",主要因为{'、'.join(said.zh for said in why)}"
    if named:
        english += f"; by rule {named}" if len(rules) == 1 else f"; by rules {named}"
        chinese += f";触发规则 {named}"
    return {"en": f"{english}.", "zh": f"{chinese}。"}


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
