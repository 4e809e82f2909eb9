"""Scores in words, as a shop's people would say them. What the simulator knows and nobody else could is in brackets.
Pure: records in, sentences out.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from streams.events import Record
from streams.sources.world import World

REMEMBERED = 20_000


class Narrator:
    """Remembers the newest events that were published, to say what a score is about."""

    def __init__(self, world: World) -> None:
        items, ads = world.catalog()
        self._world = world
        self._items = {item["item_id"]: _title(item["text"]) for item in items}
        self._ads = {ad["ad_id"]: _title(ad["text"]) for ad in ads}
        self._events: OrderedDict[str, Record] = OrderedDict()

    def published(self, event_id: str, record: Record) -> None:
        self._events[event_id] = record
        while len(self._events) > REMEMBERED:
            self._events.popitem(last=False)

    def fraud(self, score: Mapping[str, Any]) -> str:
        """`order 541696, 27 x PARTY BUNTING, GB: fraud 0.91, review (simulated fraud: card testing)`."""
        order = self._events.get(score["event_id"])
        about = ""
        if order is not None:
            line = max(order["items"], key=lambda line: line["quantity"])
            more = f" and {len(order['items']) - 1} more" if len(order["items"]) > 1 else ""
            name = self._items.get(line["item_id"], line["item_id"])
            about = f", {line['quantity']} x {name}{more}, {order['country'] or '?'}"
        why = f": {', '.join(score['reasons'][:3])}" if score["reasons"] else ""
        verdict = f"fraud {score['probability']:.2f}, {score['decision']}{why}{self._truth(score)}"
        return f"order {score['order_id']}{about}: {verdict}"

    def recommendation(self, score: Mapping[str, Any]) -> str:
        click = self._events.get(score["event_id"])
        item = self._items.get(click["item_id"], "") if click is not None and click["item_id"] else ""
        looked = f"looks at {item}" if item else "looks around"
        best = ", ".join(self._items.get(item["item_id"], item["item_id"]) for item in score["items"][:2])
        return f"user {score['user_id']} {looked}: next {best}{_mark(score)}"

    def ctr(self, score: Mapping[str, Any]) -> str:
        best = max(score["ads"], key=lambda ad: ad["probability"])
        name = self._ads.get(best["ad_id"], best["ad_id"])
        return (
            f"{score['placement']}, {len(score['ads'])} ads: best {name}, click {best['probability']:.3f}{_mark(score)}"
        )

    def _truth(self, score: Mapping[str, Any]) -> str:
        truth = self._world.truth(score["event_id"])
        fraud = truth is not None and bool(truth.outcomes[0])
        kind = f": {truth.kind.replace('_', ' ')}" if truth is not None and truth.kind else ""
        return (f" (simulated fraud{kind})" if fraud else "") + _mark(score)


def _mark(score: Mapping[str, Any]) -> str:
    if score["fallback"]:
        return f" [{score['fallback']} fallback]"
    return " [late]" if score["late"] else ""


def _title(text: str) -> str:
    return text.split("|")[0].split(". ")[0].strip()[:40]
