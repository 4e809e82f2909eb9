"""What is said on orders, and in which order: the audit log first, then the label, then the console's own store.
Of several orders at once each has its own entry and its own label; where Kafka refuses one, the rest stays as it was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.errors import HeadraceError
from streams.audit.chain import Entry
from streams.audit.pseudonyms import Pseudonyms
from streams.console.answers import Label, next_verdict, withdrawal
from streams.console.cases import changes, opinions
from streams.console.rows import OPINION, OPINION_WITHDRAWN, VERDICT, WITHDRAWAL, Change
from streams.console.store import Store, labels_of, put_change, put_label, refresh

Detail = Mapping[str, Any]
NOTHING_MORE: Detail = {}


class Speaks(Protocol):
    def say(self, order_id: str, label: Label) -> None: ...


class Audits(Protocol):
    pseudonyms: Pseudonyms

    def append(self, who: str, action: str, subject: str, detail: Mapping[str, Any], now_ms: int) -> Entry: ...


@dataclass(slots=True)
class Said:
    """Orders whose label is published, those that wait for a second analyst, and what ended it before the others."""

    published: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    error: HeadraceError | None = None


class Judge:
    """Not for two threads at once."""

    def __init__(
        self, store: Store, labels: Speaks, audit: Audits, *, four_eyes: bool, catch_up: Callable[[], object]
    ) -> None:
        """catch_up: returns when all that is on the topics now is in the store, or cannot be."""
        self._store, self._labels, self._audit = store, labels, audit
        self._four_eyes, self._catch_up = four_eyes, catch_up

    def verdict(self, orders: Sequence[str], value: float, who: str, now_ms: int, more: Detail = NOTHING_MORE) -> Said:
        """`more` goes into each entry of the audit log."""
        done = Said()
        try:
            agreed = self._agreed(orders, value, who, now_ms, more, done) if self._four_eyes else set(orders)
            for order_id in orders:
                if order_id in agreed:
                    with self._store.reading() as connection:
                        label = next_verdict(order_id, value, labels_of(connection, order_id))
                    self._publish(VERDICT, order_id, label, who, now_ms, more)
                    done.published.append(order_id)
        except HeadraceError as error:
            done.error = error
        done.waiting = [order_id for order_id in done.waiting if order_id not in done.published]
        return done

    def take_back(self, order_id: str, who: str, now_ms: int, more: Detail = NOTHING_MORE) -> str:
        """One's own opinion that waits for a second one, else the newest verdict: the action that was taken, or
        nothing."""
        own = self._audit.pseudonyms.of(who)
        with self._store.reading() as connection:
            known = labels_of(connection, order_id)
            query = "SELECT 1 FROM alerts WHERE order_id = ? AND waiting = 1"
            waits = connection.execute(query, (order_id,)).fetchone() is not None
            waits = waits and any(one.who == own for one in opinions(connection, order_id))
        if waits:
            self.change(OPINION_WITHDRAWN, order_id, more, who, now_ms)
            return OPINION_WITHDRAWN
        label = withdrawal(order_id, known)
        if label is None:
            return ""
        self._publish(WITHDRAWAL, order_id, label, who, now_ms, more)
        return WITHDRAWAL

    def change(self, action: str, order_id: str, detail: Detail, who: str, now_ms: int) -> Entry:
        entry = self._audit.append(who, action, order_id, detail, now_ms)
        with self._store.writing() as connection:
            put_change(connection, Change.of(entry))
            refresh(connection, [order_id])
        return entry

    def _agreed(self, orders: Sequence[str], value: float, who: str, now_ms: int, more: Detail, done: Said) -> set[str]:
        """Notes what this analyst says; the orders of which another one has said the same before.

        Before: by the audit log, which has one order for all consoles. So of two that speak at once on two of them, the
        second one sees the first, and it is one that publishes.
        """
        own: dict[str, Entry] = {}
        for order_id in orders:
            own[order_id] = self.change(OPINION, order_id, {"value": value, **more}, who, now_ms)
            done.waiting.append(order_id)
        self._catch_up()
        return {order_id for order_id, entry in own.items() if self._seconded(order_id, value, entry)}

    def _seconded(self, order_id: str, value: float, own: Entry) -> bool:
        with self._store.reading() as connection:
            said = opinions(connection, order_id)
            newest = {
                change.who: change.change_id for change in changes(connection, order_id) if change.action == OPINION
            }
        return any(
            one.value == value and one.who != own.who and newest.get(one.who, own.sequence) < own.sequence
            for one in said
        )

    def _publish(self, action: str, order_id: str, label: Label, who: str, now_ms: int, more: Detail) -> None:
        """The audit log first: an entry whose label never came shows as such, a label without an entry would not."""
        label = label._replace(observed_at=now_ms)
        told = {name: getattr(label, name) for name in ("label_id", "value", "revision", "withdrawn")}
        entry = self._audit.append(who, action, order_id, {**told, **more}, now_ms)
        self._labels.say(order_id, label)
        with self._store.writing() as connection:
            put_change(connection, Change.of(entry))
            put_label(connection, order_id, label)
            refresh(connection, [order_id])
