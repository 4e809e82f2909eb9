"""What was said on a whole case in one go: each order has its own entry in the audit log, and these name the case and
one another. So an undo, here or on another console, finds again which of them belong together.
"""

import json
import sqlite3

from streams.console.answers import verdicts
from streams.console.cases import changes, opinions
from streams.console.rows import OPINION, VERDICT, Change
from streams.console.store import labels_of

CASE, ORDERS, TOGETHER = "case", "orders", "together"
"""Of an entry's detail: the case's name then, how many orders it was said on, and what these entries have in common."""


def open_orders(connection: sqlite3.Connection, case: str) -> list[str]:
    """The newest first."""
    query = "SELECT order_id FROM alerts WHERE grp = ? AND answered = 0 ORDER BY raised_at DESC, alert_id"
    return [row[0] for row in connection.execute(query, (case,))]


def said_together(connection: sqlite3.Connection, case: str, own: str) -> tuple[str, list[str]]:
    """(what its entries have in common, the orders) of the newest verdict on the whole case that still stands for some:
    as their last verdict, or as the opinion of `own` that waits for a second one. ("", []) where there is none.

    Of orders that have left the case since, nothing is taken back.
    """
    query = (
        "SELECT c.* FROM changes c JOIN alerts a USING (order_id) WHERE a.grp = ? AND c.action IN (?, ?) "
        "ORDER BY c.change_id DESC"
    )
    found: dict[str, list[Change]] = {}
    for row in connection.execute(query, (case, VERDICT, OPINION)):
        change = Change(*row)
        if name := json.loads(change.detail).get(TOGETHER):
            found.setdefault(name, []).append(change)
    for name, said in found.items():
        orders = dict.fromkeys(change.order_id for change in said if stands(connection, change, own))
        if orders:
            return name, list(orders)
    return "", []


def stands(connection: sqlite3.Connection, change: Change, own: str) -> bool:
    """Whether it is what is said of its order now."""
    if change.action == VERDICT:
        last = verdicts(labels_of(connection, change.order_id))[-1:]
        return bool(last) and last[0].label_id == json.loads(change.detail).get("label_id")
    waits = "SELECT 1 FROM alerts WHERE order_id = ? AND waiting = 1"
    newest = max(
        (one.change_id for one in changes(connection, change.order_id) if one.action == OPINION and one.who == own),
        default=None,
    )
    return (
        change.change_id == newest
        and connection.execute(waits, (change.order_id,)).fetchone() is not None
        and any(one.who == own for one in opinions(connection, change.order_id))
    )
