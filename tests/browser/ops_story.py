"""What the operations pages read from a broker, told without one: an audit log, a dead letter's bytes, a backtest.
For pictures and tests of how the pages look; that they read what is there is tests/test_console_ops_kafka.py's.
"""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from schemas.errors import BadRecord
from schemas.registry import Registry
from schemas.wire import Encoder
from streams.audit.chain import Entry, following
from streams.console.ops import audit, letter_feed
from streams.console.ops.backtests import Backtest
from streams.deadletters import Letter, dead_letter
from streams.policy.decide import Policy
from streams.policy.lists import Lists
from streams.policy.trial import Decided, Trial
from streams.raw import RawRecord
from tests.console_ops import ROLES, House
from tests.records import money, order
from tests.test_policy import FIELDS_OF_NOTHING

MINUTE, DAY = 60_000, 86_400_000
LETTER = "0:4"
DOCUMENT = """
name = "summer"
[money]
currency = "GBP"
chargeback_fee = 15.0
margin = 0.25
goodwill = 5.0
review_cost = 4.0
review_catches = 0.9
review_rejects = 0.02
[budget]
alerts_per_day = 40
[[rules]]
id = "card_testing"
when = "order.amount < 5.0"
then = "block"
[[rules]]
id = "dear"
when = "order.amount > 400.0 && score > 0.2"
then = "review"
"""
ACTIONS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("login", "analyst", "session 9f2c1b", {"by": "password"}),
    ("verdict", "analyst", "605140", {"label_id": "605140-analyst-0-5e3a", "value": 1.0, "revision": 0}),
    ("verdict.withdrawn", "analyst", "605140", {"label_id": "605140-analyst-1-withdrawn", "value": 0.0, "revision": 1}),
    ("case.note", "analyst", "605139", {"note": "4f1b0a"}),
    ("policy.apply", "operator", "policy spring@1", {"standing": "live", "note": "card testing since Tuesday"}),
    ("lists.add", "analyst", "block/card:6f1e…", {"until": None, "reason": "card testing"}),
    ("release.rollback", "operator", "fraud/20260131T120000-aaaaaaaa", {"from": "fraud/20260131T130000-bbbbbbbb"}),
    ("letters.replay", "operator", "letters of events.orders", {"letters": 3}),
    ("users.role", "admin", "user vera", {"from": "viewer", "to": "analyst"}),
)


@contextmanager
def told(made: House) -> Iterator[None]:
    """While it lasts, the pages find these things; afterwards they look for a broker again."""
    made.here.backtests._found[1] = backtest(made.shown.now)  # nothing else makes one without a span of served orders
    entries = list(log_of(made))
    with (
        mock.patch.object(audit, "require_broker", return_value=None),
        mock.patch.object(audit, "newest", lambda settings, registry, count, before=None: entries[-count:]),
        mock.patch.object(audit, "read", return_value=entries),
        mock.patch.object(letter_feed, "show", lambda settings, registry, book, letter_id: letter(made, registry)),
    ):
        yield


def log_of(made: House) -> Iterator[Entry]:
    """A day's work."""
    last: Entry | None = None
    for role in ROLES:
        made.visitor(role)  # so that the log's pseudonyms have names
    for number, (action, who, subject, detail) in enumerate(ACTIONS * 2):
        at = made.shown.now - (len(ACTIONS) * 2 - number) * 11 * MINUTE
        person = made.here.audit.pseudonyms.of(who)
        last = following(last, at, person, action, subject, json.dumps(detail))
        yield replace(last, offset=number)


def knocks(made: House) -> None:
    """The letter into the list: an order of a currency that is no currency. And policies that say something."""
    base = {"task": "fraud", "digest": "", "applied_at": made.shown.now - 9 * MINUTE, "by": "0" * 16}
    spring, winter = (DOCUMENT.replace("summer", name).strip() + "\n" for name in ("spring", "winter"))
    winter = winter.replace("order.amount > 400.0", "order.amount > 250.0").replace(
        "alerts_per_day = 40", "alerts_per_day = 60"
    )
    for key, version, text in (
        ("live", "spring@1", spring),
        ("spring@1", "spring@1", spring),
        ("winter@2", "winter@2", winter),
    ):
        record = {"standing": "live" if key == "live" else "kept", "version": version, "document": text}
        made.shelf.policies.know(f"fraud/{key}", {**base, **record, "note": "fewer cards are tested"})
    made.shelf.letter(4, WRONG, made.shown.now - MINUTE)


WRONG = BadRecord(
    "out_of_range", "currency is 'gbp '", where="events.orders: currency", expected="three capital letters, as GBP",
    todo="mend the shop's producer, then `headrace deadletters replay`",
)  # fmt: skip


def letter(made: House, registry: Registry) -> Letter:
    value = Encoder(registry, "events.orders", "order")(order(order_id="605188", user_id="u17850", currency="GBP"))
    raw = RawRecord("events.orders", 1, 48_211, made.shown.now - MINUTE, b"u17850", value, (("source", b"checkout"),))
    return Letter(0, 4, {**dead_letter(raw, WRONG, made.shown.now - MINUTE), "sealed": ""}, False)


def backtest(now: int) -> Backtest:
    trial, draw = Trial(Policy.parse(DOCUMENT, Lists(), "summer.toml")), random.Random(5)
    start = now - 14 * DAY
    for number in range(2_000):
        fraud, amount = draw.random() < 0.03, round(draw.lognormvariate(4, 1), 2)
        chance = min(0.99, draw.betavariate(4, 3) if fraud else draw.betavariate(1, 30))
        before = "block" if chance > 0.8 else "review" if chance > 0.35 else "approve"
        event = order(event_time=start + number * 14 * DAY // 2_000, amount=money(amount), currency="GBP")
        trial.add([Decided(event, chance, FIELDS_OF_NOTHING, before, fraud if draw.random() < 0.6 else None)])
    return Backtest(1, "summer", start, now, now - MINUTE, "done", 40, trial.report(), 12)
