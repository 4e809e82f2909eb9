"""What an analyst does to a case: verdict, undo, note, assignment; each is in the audit log before it takes effect.
A label is on its topic before anybody is told so. With four eyes, two analysts must say the same first.
"""

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from streams.audit.chain import Entry
from streams.audit.pseudonyms import Pseudonyms
from streams.console.answers import Label, next_verdict, withdrawal
from streams.console.cases import changes, find, opinions
from streams.console.notes import MOST_CHARACTERS, Note, NoteBook
from streams.console.rows import (
    ASSIGNMENT,
    NOTE,
    NOTE_REMOVED,
    OPINION,
    OPINION_WITHDRAWN,
    VERDICT,
    WITHDRAWAL,
    Change,
)
from streams.console.store import Store, labels_of, put_change, put_label, refresh

PUBLISHED, WITHDRAWN = "published", "withdrawn"
WAITING, NO_LONGER = "waiting", "no longer waiting"
STALE, NOTHING, UNKNOWN = "stale", "nothing", "unknown"


class Speaks(Protocol):
    def say(self, order_id: str, label: Label) -> None: ...


class Audits(Protocol):
    pseudonyms: Pseudonyms

    def append(self, who: str, action: str, subject: str, detail: Mapping[str, Any], now_ms: int) -> Entry: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: published, withdrawn, waiting (for a second analyst), no longer waiting, noted, assigned;
    or stale (somebody was faster), nothing (to undo), unknown (no such alert)."""

    kind: str
    order_id: str = ""
    value: float | None = None

    @property
    def done(self) -> bool:
        return self.kind not in (STALE, NOTHING, UNKNOWN)


class Desk:
    """Used from any thread. What Kafka refuses is raised, and then nothing has been said."""

    def __init__(
        self,
        store: Store,
        notes: NoteBook,
        labels: Speaks,
        audit: Audits,
        *,
        four_eyes: bool = False,
        catch_up: Callable[[], object] = lambda: None,
    ) -> None:
        """catch_up: returns when all that is on the topics now is in the store, or cannot be."""
        self._store, self.notes, self._labels, self._audit = store, notes, labels, audit
        self.four_eyes, self._catch_up = four_eyes, catch_up
        self._one_by_one = threading.Lock()

    def verdict(self, alert_id: str, value: float, who: str, now_ms: int, seen: int | None = None) -> Outcome:
        """`seen`: what the page was made from; who answers to another state than there is, is told instead."""
        with self._one_by_one:
            alert = self._alert(alert_id)
            if alert is None:
                return Outcome(UNKNOWN)
            order_id = alert["order_id"]
            if seen is not None and seen != alert["seen"]:
                return Outcome(STALE, order_id, alert["answer"])
            if self.four_eyes and not self._agreed(order_id, value, who, now_ms):
                return Outcome(WAITING, order_id, value)
            with self._store.reading() as connection:
                label = next_verdict(order_id, value, labels_of(connection, order_id))
            self._publish(VERDICT, order_id, label, who, now_ms)
            return Outcome(PUBLISHED, order_id, value)

    def undo(self, alert_id: str, who: str, now_ms: int) -> Outcome:
        """Takes the newest verdict back, or one's own opinion that waits for a second one."""
        with self._one_by_one:
            alert = self._alert(alert_id)
            if alert is None:
                return Outcome(UNKNOWN)
            order_id = alert["order_id"]
            with self._store.reading() as connection:
                label = withdrawal(order_id, labels_of(connection, order_id))
                own = self._audit.pseudonyms.of(who)
                waits = alert["waiting"] and any(one.who == own for one in opinions(connection, order_id))
            if waits:
                self._change(OPINION_WITHDRAWN, order_id, {}, who, now_ms)
                return Outcome(NO_LONGER, order_id)
            if label is None:
                return Outcome(NOTHING, order_id)
            self._publish(WITHDRAWAL, order_id, label, who, now_ms)
            return Outcome(WITHDRAWN, order_id, self._alert(alert_id, "answer"))

    def note(self, alert_id: str, text: str, who: str, now_ms: int, note_id: str = "") -> Outcome:
        """`note_id` makes a form that is sent twice one note. The audit log knows of it, not what it says, and first:
        an entry whose note never came to its topic shows as such, a note without an entry would not."""
        alert = self._alert(alert_id)
        if alert is None or not text.strip():
            return Outcome(UNKNOWN if alert is None else NOTHING)
        note = Note(note_id or uuid.uuid4().hex, alert["order_id"], who, now_ms, text.strip()[:MOST_CHARACTERS])
        self._change(NOTE, note.order_id, {"note": note.note_id}, who, now_ms)
        self.notes.add(note, alert["user_id"])
        return Outcome("noted", note.order_id)

    def remove_note(self, alert_id: str, note_id: str, who: str, now_ms: int) -> Outcome:
        """One's own."""
        alert = self._alert(alert_id)
        own = {note.note_id for note in self.notes.of(alert["order_id"]) if note.who == who} if alert else set()
        if alert is None or note_id not in own:
            return Outcome(NOTHING)
        self._change(NOTE_REMOVED, alert["order_id"], {"note": note_id}, who, now_ms)
        self.notes.remove(alert["order_id"], note_id, who)
        return Outcome("note removed", alert["order_id"])

    def assign(self, alert_id: str, whom: str, who: str, now_ms: int) -> Outcome:
        """To `whom`, a name; to nobody if it is empty."""
        alert = self._alert(alert_id)
        if alert is None:
            return Outcome(UNKNOWN)
        to = self._audit.pseudonyms.of(whom) if whom else ""
        self._change(ASSIGNMENT, alert["order_id"], {"to": to}, who, now_ms)
        return Outcome("assigned", alert["order_id"])

    def _agreed(self, order_id: str, value: float, who: str, now_ms: int) -> bool:
        """Notes what this analyst says; whether another one has said the same before.

        Before: by the audit log, which has one order for all consoles. So of two that speak at once on two of them, the
        second one sees the first, and it is one that publishes.
        """
        own = self._change(OPINION, order_id, {"value": value}, who, now_ms)
        self._catch_up()
        with self._store.reading() as connection:
            said = opinions(connection, order_id)
            newest = {
                change.who: change.change_id for change in changes(connection, order_id) if change.action == OPINION
            }
        return any(
            one.value == value and one.who != own.who and newest.get(one.who, own.sequence) < own.sequence
            for one in said
        )

    def _publish(self, action: str, order_id: str, label: Label, who: str, now_ms: int) -> None:
        """The audit log first: an entry whose label never came shows as such, a label without an entry would not."""
        label = label._replace(observed_at=now_ms)
        told = {name: getattr(label, name) for name in ("label_id", "value", "revision", "withdrawn")}
        entry = self._append(action, order_id, told, who, now_ms)
        self._labels.say(order_id, label)
        with self._store.writing() as connection:
            put_change(connection, Change.of(entry))
            put_label(connection, order_id, label)
            refresh(connection, [order_id])

    def _change(self, action: str, order_id: str, detail: Mapping[str, Any], who: str, now_ms: int) -> Entry:
        entry = self._append(action, order_id, detail, who, now_ms)
        with self._store.writing() as connection:
            put_change(connection, Change.of(entry))
            refresh(connection, [order_id])
        return entry

    def _append(self, action: str, order_id: str, detail: Mapping[str, Any], who: str, now_ms: int) -> Entry:
        return self._audit.append(who, action, order_id, detail, now_ms)

    def _alert(self, alert_id: str, column: str = "") -> Any:
        with self._store.reading() as connection:
            found = find(connection, alert_id)
        return found[column] if found is not None and column else found
