"""What the shop's customers do, drawn by seed: visits, orders, impressions, answers to ads, and what banks say later.
Pure, and with a clock as argument; all times lie AGO_MS back, so that event time can be closed at the end.
"""

import heapq
import random
from collections import defaultdict, deque
from typing import Any

from tests import shop
from tests.records import click, impression, line, money, order

Sent = list[tuple[str, dict[str, Any]]]

AGO_MS = 2 * 3_600_000
LATE_MS = 20_000
ANSWER_MS = 20_000  # an ad is answered within this time, or not at all
CLOSING_MS = 3_600_000
KINDS, WEIGHTS = ("clicks", "orders", "impressions"), (5, 3, 3)


class Customers:
    """Events by the setting of their topic; `labels` are of orders. Ids are unique for each `prefix`."""

    def __init__(self, rng: random.Random, users: int = 60, prefix: str = "") -> None:
        self._rng, self._users, self._prefix = rng, users, prefix
        self._number = 0
        self._shown: dict[str, deque[dict[str, Any]]] = defaultdict(lambda: deque(maxlen=8))
        self._recent: deque[tuple[str, dict[str, Any]]] = deque(maxlen=20)
        self._verdicts: list[tuple[int, int, dict[str, Any]]] = []  # when, number, label

    def act(self, now_ms: int, user: str = "") -> Sent:
        """One event, of `user` if one is named; sometimes an earlier one once more; and the labels that are due."""
        rng, self._number = self._rng, self._number + 1
        who = user or f"user-{int(self._users * rng.random() ** 2)}"
        when = now_ms - AGO_MS - (rng.randrange(LATE_MS) if rng.random() < 0.05 else 0)
        kind = rng.choices(KINDS, WEIGHTS)[0]
        event = self._event(kind, {"event_time": when, "user_id": who})
        said = [(kind, event)]
        if rng.random() < 0.02 and self._recent:
            said.append(rng.choice(self._recent))
        self._recent.append((kind, event))
        return said + self.verdicts(now_ms)

    def verdicts(self, now_ms: int) -> Sent:
        """Labels whose time has come."""
        due: Sent = []
        while self._verdicts and self._verdicts[0][0] <= now_ms:
            due.append(("labels", heapq.heappop(self._verdicts)[2]))
        return due

    def closing(self, now_ms: int, users: int = 60) -> Sent:
        """Events of an hour later, of users on all partitions: every window that is open closes."""
        sent: Sent = []
        for number in range(users):
            common = {"event_time": now_ms - AGO_MS + CLOSING_MS, "user_id": f"closing-{number}"}
            for kind in KINDS:
                self._number += 1
                sent.append((kind, self._plain(kind, common)))
        return sent

    def _event(self, kind: str, common: dict[str, Any]) -> dict[str, Any]:
        event, user = self._plain(kind, common), common["user_id"]
        if kind == "impressions":
            self._shown[user].append(event)
        if kind == "orders" and self._rng.random() < 0.3:
            self._judge(event)
        fresh = [one for one in self._shown[user] if 0 < common["event_time"] - one["event_time"] < ANSWER_MS]
        if kind == "clicks" and fresh and self._rng.random() < 0.5:
            answered = self._rng.choice(fresh)
            ad = self._rng.choice(answered["slate"])["ad_id"]
            event |= {"impression_id": answered["event_id"], "ad_id": ad, "item_id": ad.replace("ad", "item")}
        return event

    def _plain(self, kind: str, common: dict[str, Any]) -> dict[str, Any]:
        rng, ident = self._rng, f"{self._prefix}{kind[0]}{self._number}"
        item = f"item-{rng.randrange(shop.ITEMS)}"
        if kind == "clicks":
            return click(event_id=ident, item_id=item, action=rng.choice(["view", "click", "cart"]), **common)
        if kind == "impressions":
            slate = [
                {"ad_id": f"ad-{ad}", "position": place, "bid": money(0.2), "shown": True}
                for place, ad in enumerate(rng.sample(range(shop.ADS), 3))
            ]
            return impression(event_id=ident, request_id=f"r-{ident}", context_item_id=item, slate=slate, **common)
        lines = [
            line(item_id=f"item-{rng.randrange(shop.ITEMS)}", quantity=rng.randrange(1, 5),
                 unit_price=money(rng.random()))
            for _ in range(rng.randrange(1, 4))
        ]  # fmt: skip
        return order(
            event_id=ident, order_id=f"order-{ident}", items=lines, amount=money(rng.random() * 100),
            device_id=f"device-{rng.randrange(60)}", email=f"mail-{rng.randrange(60)}",
            ip=f"10.0.0.{rng.randrange(90)}", **common,
        )  # fmt: skip

    def _judge(self, order: dict[str, Any]) -> None:
        """The bank's word on an order, some seconds later; observed in event time just after it."""
        after_ms = self._rng.randrange(1_000, 15_000)
        label = {
            "label_id": f"bank-{order['order_id']}", "task": "fraud", "target_id": order["order_id"],
            "candidate_id": None, "name": "fraud", "value": float(self._rng.random() < 0.3), "source": "chargeback",
            "observed_at": order["event_time"] + after_ms, "revision": 0, "withdrawn": False,
        }  # fmt: skip
        heapq.heappush(self._verdicts, (order["event_time"] + AGO_MS + after_ms, self._number, label))
