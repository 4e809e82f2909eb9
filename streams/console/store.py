"""The console's store: alerts, labels and what people did, folded from the topics into SQLite with the read offsets.
Each batch is one transaction, so a crash loses nothing and repeats nothing; without the file all is read anew.

One writer at a time, any number of readers, each thread with a connection of its own.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from streams.console import grouping, schema
from streams.console.answers import Label, answer
from streams.console.rows import (
    ASSIGNMENT,
    COLUMNS,
    OPINION,
    OPINION_WITHDRAWN,
    WITHDRAWAL,
    Change,
    alert_values,
    detail_of,
    fields_of,
)
from streams.events import Record

FILE = "console.db"
PRUNED_AT_ONCE = 5_000
_UPSERT = (
    f"INSERT INTO alerts ({', '.join(COLUMNS)}, grp) VALUES ({', '.join(f':{name}' for name in COLUMNS)}, :alert_id) "
    f"ON CONFLICT (alert_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in COLUMNS[1:])}"
)

Place = tuple[str, int]

SEEN = (
    "(SELECT count(*) FROM labels l WHERE l.order_id = a.order_id) * 1000 "
    "+ (SELECT count(*) FROM opinions o WHERE o.order_id = a.order_id) AS seen"
)
"""Of alerts `a`: a number that is another one whenever somebody has spoken."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What was read from the topics at once, and where to read on, by place: (id of the topic, offset)."""

    alerts: Sequence[Record] = ()
    labels: Sequence[tuple[str, Label]] = ()  # with the order_id
    changes: Sequence[Change] = ()
    offsets: Mapping[Place, tuple[str, int]] = field(default_factory=dict)
    deleted: Sequence[str] = ()  # order_ids of alerts whose person was forgotten


@dataclass(slots=True)
class Applied:
    """What a batch changed: alerts that are new, and orders that look otherwise than before."""

    new: list[str] = field(default_factory=list)
    orders: set[str] = field(default_factory=set)


class Store:
    """`writing` and `reading` give connections; `version` grows with every change."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._writer = schema.prepare(self.path)
        self._writer.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        self._lock = threading.RLock()
        self._readers = threading.local()
        self._opened: list[sqlite3.Connection] = [self._writer]
        self.version = 0

    def close(self) -> None:
        with self._lock:
            for connection in self._opened:
                connection.close()
            self._opened.clear()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the store for as long as the block lasts."""
        connection: sqlite3.Connection | None = getattr(self._readers, "connection", None)
        if connection is None:
            connection = self._readers.connection = schema.connect(self.path)
            connection.execute("PRAGMA query_only = ON")
            with self._lock:
                self._opened.append(connection)
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of the block, or nothing."""
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")
            self.version += 1

    # -- what comes from the topics --------------------------------------------------------------------------

    def offsets(self) -> dict[Place, tuple[str, int]]:
        with self.reading() as connection:
            found = connection.execute("SELECT topic, partition, topic_id, next FROM offsets").fetchall()
        return {(row["topic"], row["partition"]): (row["topic_id"], row["next"]) for row in found}

    def apply(self, batch: Batch) -> Applied:
        done = Applied()
        with self.writing() as connection:
            for order_id in batch.deleted:
                found = connection.execute("SELECT alert_id FROM alerts WHERE order_id = ?", (order_id,)).fetchall()
                remove(connection, [row[0] for row in found])
                done.orders.add(order_id)
            for record in batch.alerts:
                if _put_alert(connection, record):
                    done.new.append(record["alert_id"])
                done.orders.add(record["order_id"])
            for order_id, label in batch.labels:
                if _put_label(connection, order_id, label):
                    done.orders.add(order_id)
            for change in batch.changes:
                if put_change(connection, change):
                    done.orders.add(change.order_id)
            refresh(connection, done.orders)
            connection.executemany(
                "INSERT OR REPLACE INTO offsets (topic, partition, topic_id, next) VALUES (?, ?, ?, ?)",
                [(*place, *reached) for place, reached in batch.offsets.items()],
            )
        return done

    def settle(self) -> bool:
        """Empties the journal, which still has what was deleted. False while somebody reads: then again later."""
        with self._lock:
            return not self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]

    def old(self, before_ms: int) -> list[str]:
        """Orders whose alerts `prune` would forget now."""
        with self.reading() as connection:
            return [row["order_id"] for row in connection.execute(_OLD, (before_ms, PRUNED_AT_ONCE))]

    def prune(self, before_ms: int) -> int:
        """Forgets alerts that were raised before, and labels observed before that of no alert; how many alerts."""
        with self.writing() as connection:
            old = [row["alert_id"] for row in connection.execute(_OLD, (before_ms, PRUNED_AT_ONCE))]
            remove(connection, old)
            if len(old) < PRUNED_AT_ONCE:
                connection.execute(
                    "DELETE FROM labels WHERE observed_at < ? AND order_id NOT IN (SELECT order_id FROM alerts)",
                    (before_ms,),
                )
        return len(old)


_OLD = "SELECT alert_id, order_id FROM alerts WHERE raised_at < ? ORDER BY raised_at, alert_id LIMIT ?"


def remove(connection: sqlite3.Connection, alert_ids: Sequence[str]) -> None:
    """Takes alerts out with all that hangs on them, and makes the groups of those that are left anew."""
    if not alert_ids:
        return
    tokens = grouping.tokens_of(connection, alert_ids)
    gone = [(alert_id,) for alert_id in alert_ids]
    orders = [
        row
        for one in gone
        for row in connection.execute("SELECT order_id FROM alerts WHERE alert_id = ?", one).fetchall()
    ]
    left = {row[0] for one in gone for row in connection.execute(_OF_THE_GROUP, one)} - set(alert_ids)
    for table in ("alerts", "details", "features", "rules", "entities"):
        connection.executemany(f"DELETE FROM {table} WHERE alert_id = ?", gone)
    for table in ("labels", "opinions", "assignments", "changes"):
        connection.executemany(f"DELETE FROM {table} WHERE order_id = ?", [tuple(row) for row in orders])
    grouping.regroup(connection, left | grouping.linked_by(connection, tokens))


_OF_THE_GROUP = "SELECT alert_id FROM alerts WHERE grp = (SELECT grp FROM alerts WHERE alert_id = ?)"


def _put_alert(connection: sqlite3.Connection, record: Record) -> bool:
    """True for one that was not there; one that was is what the newest record says."""
    alert_id = record["alert_id"]
    there = connection.execute("SELECT 1 FROM alerts WHERE alert_id = ?", (alert_id,)).fetchone()
    connection.execute(_UPSERT, alert_values(record))
    connection.execute("INSERT OR REPLACE INTO details VALUES (?, ?)", (alert_id, detail_of(record)))
    packed = record["features"]
    connection.execute(
        "INSERT OR REPLACE INTO features (alert_id, format, row, fields) VALUES (?, ?, ?, ?)",
        (alert_id, record["features_format"], packed, fields_of(packed)),
    )
    connection.execute("DELETE FROM rules WHERE alert_id = ?", (alert_id,))
    connection.executemany(
        "INSERT INTO rules (rule, alert_id) VALUES (?, ?)", [(r, alert_id) for r in set(record["rules"])]
    )
    tokens = set(record["entities"] or record["links"])
    grouping.link(connection, alert_id, record["user_id"], tokens)
    return there is None


def _put_label(connection: sqlite3.Connection, order_id: str, label: Label, *, local: bool = False) -> bool:
    """`local`: not read from the topic yet. When it is, it takes the place that it has there: of two consoles that
    judge at once, both then go by the label that came first."""
    if not local:
        connection.execute("DELETE FROM labels WHERE label_id = ? AND local", (label.label_id,))
    made = connection.execute(
        "INSERT OR IGNORE INTO labels (label_id, order_id, value, source, observed_at, revision, withdrawn, local) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (label.label_id, order_id, *label[1:], local),
    )
    return made.rowcount > 0


def put_label(connection: sqlite3.Connection, order_id: str, label: Label) -> None:
    """A label that is on its topic, before it comes from there; the order is brought up to date."""
    if _put_label(connection, order_id, label, local=True):
        refresh(connection, [order_id])


def put_change(connection: sqlite3.Connection, change: Change) -> bool:
    """False for one that is there. Opinions and assignments take effect."""
    made = connection.execute("INSERT OR IGNORE INTO changes VALUES (?, ?, ?, ?, ?, ?)", change)
    if not made.rowcount:
        return False
    if change.action == OPINION:
        value = float(json.loads(change.detail)["value"])
        connection.execute(
            "INSERT INTO opinions VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET value = ?3, at = ?4 WHERE at <= ?4",
            (change.order_id, change.who, value, change.at),
        )
    elif change.action == OPINION_WITHDRAWN:
        connection.execute("DELETE FROM opinions WHERE order_id = ? AND who = ?", (change.order_id, change.who))
    elif change.action == WITHDRAWAL:
        connection.execute("DELETE FROM opinions WHERE order_id = ?", (change.order_id,))
    elif change.action == ASSIGNMENT:
        whom = str(json.loads(change.detail)["to"])
        connection.execute("DELETE FROM assignments WHERE order_id = ?", (change.order_id,))
        if whom:
            connection.execute("INSERT INTO assignments VALUES (?, ?, ?)", (change.order_id, whom, change.at))
    return True


def labels_of(connection: sqlite3.Connection, order_id: str) -> list[Label]:
    """In the order in which they came."""
    query = (
        "SELECT label_id, value, source, observed_at, revision, withdrawn FROM labels WHERE order_id = ? ORDER BY seq"
    )
    return [
        Label(**dict(row) | {"withdrawn": bool(row["withdrawn"])}) for row in connection.execute(query, (order_id,))
    ]


def refresh(connection: sqlite3.Connection, orders: Iterable[str]) -> None:
    """Writes into the alerts of these orders what labels, opinions and assignments come to."""
    for order_id in orders:
        told = answer(labels_of(connection, order_id))
        answered = told is not None
        said = (told.value, told.source, told.observed_at) if told is not None else (None, None, None)
        connection.execute(
            "UPDATE alerts SET answered = ?, answer = ?, answer_source = ?, answered_at = ?, "
            "waiting = ? AND EXISTS (SELECT 1 FROM opinions o WHERE o.order_id = alerts.order_id), "
            "assignee = (SELECT who FROM assignments s WHERE s.order_id = alerts.order_id) WHERE order_id = ?",
            (answered, *said, not answered, order_id),
        )
