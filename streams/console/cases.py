"""All that the store knows of a case, seen from one alert of it and read in one state: the alert, its answer, the other
orders of the case, its history. The order itself is on its topic and is read from there, by `orders`.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streams.console.answers import Label, answer, overruled
from streams.console.figures import Figures, figures
from streams.console.grouping import LINKING, MOST_USERS
from streams.console.rows import Change, unpacked
from streams.console.similar import Similar, nearest
from streams.console.store import SEEN, labels_of

MOST_KIN = 12
MOST_ORDERS = 100
"""Of a case, on its page; the queue has the others."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """Of one analyst, where two must agree. `who`: as the audit log calls them."""

    who: str
    value: float
    at: int


@dataclass(frozen=True, slots=True)
class Tie:
    """A token of the order and who else has it, by alerts. A crowded one is shared by so many that it says nothing.
    known, frauds: users that had it and frauds with it, alerted or not, as the worker knew when it scored the order."""

    kind: str
    token: str
    users: int
    alerts: tuple[str, ...]
    known: int = 0
    frauds: int = 0

    @property
    def crowded(self) -> bool:
        return self.users > MOST_USERS

    @property
    def links(self) -> bool:
        return self.kind in LINKING and not self.crowded


@dataclass(frozen=True, slots=True)
class Case:
    """From one alert. `kin`: alerts that share a token with it, by alert_id; `orders`: the newest of its case, itself
    among them, and `figures` what they all come to."""

    alert: sqlite3.Row
    detail: dict[str, Any]
    row: np.void | None
    labels: list[Label]
    opinions: list[Opinion]
    changes: list[Change]
    ties: list[Tie]
    kin: dict[str, sqlite3.Row]
    orders: list[sqlite3.Row]
    figures: Figures
    similar: list[Similar]

    @property
    def answer(self) -> Label | None:
        return answer(self.labels)

    @property
    def overruled(self) -> Label | None:
        return overruled(self.labels)


def find(connection: sqlite3.Connection, alert_id: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute(
        f"SELECT a.*, {SEEN} FROM alerts a WHERE alert_id = ?", (alert_id,)
    ).fetchone()
    return row


def case(connection: sqlite3.Connection, alert_id: str) -> Case | None:
    alert = find(connection, alert_id)
    if alert is None:
        return None
    detail = connection.execute("SELECT detail FROM details WHERE alert_id = ?", (alert_id,)).fetchone()[0]
    packed = connection.execute("SELECT row, fields FROM features WHERE alert_id = ?", (alert_id,)).fetchone()
    order_id = alert["order_id"]
    found = json.loads(detail)
    ties = _ties(connection, alert, {one["entity"]: one for one in found.get("linked", [])})
    orders = connection.execute(
        "SELECT * FROM alerts WHERE grp = ? ORDER BY raised_at DESC, alert_id LIMIT ?", (alert["grp"], MOST_ORDERS)
    ).fetchall()
    return Case(
        alert=alert,
        detail=found,
        row=unpacked(packed["row"]) if packed else None,
        labels=labels_of(connection, order_id),
        opinions=opinions(connection, order_id),
        changes=changes(connection, order_id),
        ties=ties,
        kin=_rows(connection, {one for tie in ties for one in tie.alerts}),
        orders=orders,
        figures=figures(connection, [alert["grp"]])[alert["grp"]],
        similar=nearest(connection, alert_id, packed["fields"]) if packed else [],
    )


def opinions(connection: sqlite3.Connection, order_id: str) -> list[Opinion]:
    query = "SELECT who, value, at FROM opinions WHERE order_id = ? ORDER BY at"
    return [Opinion(*row) for row in connection.execute(query, (order_id,))]


def changes(connection: sqlite3.Connection, order_id: str) -> list[Change]:
    query = "SELECT * FROM changes WHERE order_id = ? ORDER BY at, change_id"
    return [Change(*row) for row in connection.execute(query, (order_id,))]


def _ties(connection: sqlite3.Connection, alert: sqlite3.Row, known: Mapping[str, Mapping[str, int]]) -> list[Tie]:
    """In the order of how much they tie; all in all to at most MOST_KIN other alerts. known: by type:token."""
    tokens = [
        row[0] for row in connection.execute("SELECT token FROM entities WHERE alert_id = ?", (alert["alert_id"],))
    ]
    found = []
    for token in tokens:
        kind, _, name = token.partition(":")
        users = connection.execute("SELECT count(DISTINCT user_id) FROM entities WHERE token = ?", (token,)).fetchone()[
            0
        ]
        others: list[str] = []
        if users <= MOST_USERS:
            query = (
                "SELECT e.alert_id FROM entities e JOIN alerts a USING (alert_id) WHERE e.token = ? "
                "AND e.alert_id <> ? ORDER BY a.raised_at DESC LIMIT ?"
            )
            others = [row[0] for row in connection.execute(query, (token, alert["alert_id"], MOST_KIN))]
        told = known.get(token, {})
        found.append(Tie(kind, name, users, tuple(others), told.get("users", 0), told.get("frauds", 0)))
    ranks = {kind: rank for rank, kind in enumerate((*LINKING, "ip"))}
    found.sort(key=lambda tie: (ranks.get(tie.kind, len(ranks)), tie.token))
    return _limited(found)


def _limited(ties: list[Tie]) -> list[Tie]:
    """With at most MOST_KIN alerts in all: first those that most tokens lead to."""
    uses = Counter(one for tie in ties for one in tie.alerts)
    kept = {one for one, _ in uses.most_common(MOST_KIN)}
    return [replace(tie, alerts=tuple(one for one in tie.alerts if one in kept)) for tie in ties]


def _rows(connection: sqlite3.Connection, alert_ids: set[str]) -> dict[str, sqlite3.Row]:
    marks = ",".join("?" * len(alert_ids))
    found = connection.execute(f"SELECT * FROM alerts WHERE alert_id IN ({marks})", sorted(alert_ids))
    return {row["alert_id"]: row for row in found}
