"""What an analyst does: verdict and undo, on one order or on a whole case, note, assignment; each is in the audit log
before it takes effect. A label is on its topic before anybody is told so. With four eyes, two must say the same first.
"""

import secrets
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas.errors import HeadraceError
from streams.console.cases import find
from streams.console.figures import figures
from streams.console.judging import Audits, Judge, Speaks
from streams.console.notes import MOST_CHARACTERS, Note, NoteBook
from streams.console.rows import ASSIGNMENT, NOTE, NOTE_REMOVED, OPINION_WITHDRAWN
from streams.console.store import Store
from streams.console.together import CASE, ORDERS, TOGETHER, open_orders, said_together

PUBLISHED, WITHDRAWN = "published", "withdrawn"
WAITING, NO_LONGER = "waiting", "no longer waiting"
STALE, NOTHING, UNKNOWN, ANSWERED = "stale", "nothing", "unknown", "answered"
MOST_AT_ONCE = 100
"""Orders that one verdict on a case is for: an entry of the audit log takes some hundredths of a second."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: published, withdrawn, waiting (for a second analyst), no longer waiting, noted, assigned;
    or stale (somebody was faster), nothing (to undo), unknown (no such alert), answered (all of the case).

    Of a case: `orders` that it was done to, how many of them `wait` for a second analyst, how many were `left` as they
    were, and what `problem` ended it before them."""

    kind: str
    order_id: str = ""
    value: float | None = None
    orders: tuple[str, ...] = ()
    wait: int = 0
    left: int = 0
    problem: str = ""

    @property
    def done(self) -> bool:
        return self.kind not in (STALE, NOTHING, UNKNOWN, ANSWERED)

    @property
    def touched(self) -> tuple[str, ...]:
        """Orders that look otherwise now."""
        return self.orders or ((self.order_id,) if self.done else ())


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
        self._store, self.notes, self._audit = store, notes, audit
        self.four_eyes = four_eyes
        self._judge = Judge(store, labels, audit, four_eyes=four_eyes, catch_up=catch_up)
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
            said = self._judge.verdict([order_id], value, who, now_ms)
            if said.error is not None:
                raise said.error
            return Outcome(PUBLISHED if said.published else WAITING, order_id, value)

    def undo(self, alert_id: str, who: str, now_ms: int) -> Outcome:
        """Takes the newest verdict back, or one's own opinion that waits for a second one."""
        with self._one_by_one:
            alert = self._alert(alert_id)
            if alert is None:
                return Outcome(UNKNOWN)
            order_id = alert["order_id"]
            taken = self._judge.take_back(order_id, who, now_ms)
            if not taken:
                return Outcome(NOTHING, order_id)
            if taken == OPINION_WITHDRAWN:
                return Outcome(NO_LONGER, order_id)
            return Outcome(WITHDRAWN, order_id, self._alert(alert_id, "answer"))

    def verdict_on_case(self, alert_id: str, value: float, who: str, now_ms: int, seen: str | None = None) -> Outcome:
        """On all orders of the alert's case that are open: what has an answer keeps it. `seen`: the Figures' own."""
        with self._one_by_one:
            alert = self._alert(alert_id)
            if alert is None:
                return Outcome(UNKNOWN)
            order_id, case = alert["order_id"], alert["grp"]
            with self._store.reading() as connection:
                now = figures(connection, [case])[case]
                orders = open_orders(connection, case)
            if seen is not None and seen != now.seen:
                return Outcome(STALE, order_id)
            if not orders:
                return Outcome(ANSWERED, order_id)
            wanted = orders[:MOST_AT_ONCE]
            more = {CASE: case, ORDERS: len(wanted), TOGETHER: secrets.token_hex(8)}
            said = self._judge.verdict(wanted, value, who, now_ms, more)
            done = (*said.published, *said.waiting)
            if said.error is not None and not done:
                raise said.error
            kind, left = PUBLISHED if said.published else WAITING, len(orders) - len(done)
            return Outcome(kind, order_id, value, done, len(said.waiting), left, str(said.error or ""))

    def undo_on_case(self, alert_id: str, who: str, now_ms: int) -> Outcome:
        """Takes back what was last said on the case as a whole, where it is still what is said of an order."""
        with self._one_by_one:
            alert = self._alert(alert_id)
            if alert is None:
                return Outcome(UNKNOWN)
            case, order_id = alert["grp"], alert["order_id"]
            own = self._audit.pseudonyms.of(who)
            with self._store.reading() as connection:
                together, orders = said_together(connection, case, own)
            more, done = {CASE: case, ORDERS: len(orders), TOGETHER: together}, list[str]()
            for order in orders:
                try:
                    self._judge.take_back(order, who, now_ms, more)
                except HeadraceError as error:
                    if not done:
                        raise
                    return Outcome(WITHDRAWN, order_id, None, tuple(done), 0, len(orders) - len(done), str(error))
                done.append(order)
            return Outcome(WITHDRAWN if done else NOTHING, order_id, orders=tuple(done))

    def note(self, alert_id: str, text: str, who: str, now_ms: int, note_id: str = "") -> Outcome:
        """`note_id` makes a form that is sent twice one note. The audit log knows of it, not what it says, and first:
        an entry whose note never came to its topic shows as such, a note without an entry would not."""
        alert = self._alert(alert_id)
        if alert is None or not text.strip():
            return Outcome(UNKNOWN if alert is None else NOTHING)
        note = Note(note_id or uuid.uuid4().hex, alert["order_id"], who, now_ms, text.strip()[:MOST_CHARACTERS])
        self._judge.change(NOTE, note.order_id, {"note": note.note_id}, who, now_ms)
        self.notes.add(note, alert["user_id"])
        return Outcome("noted", note.order_id)

    def remove_note(self, alert_id: str, note_id: str, who: str, now_ms: int) -> Outcome:
        """One's own."""
        alert = self._alert(alert_id)
        own = {note.note_id for note in self.notes.of(alert["order_id"]) if note.who == who} if alert else set()
        if alert is None or note_id not in own:
            return Outcome(NOTHING)
        self._judge.change(NOTE_REMOVED, alert["order_id"], {"note": note_id}, who, now_ms)
        self.notes.remove(alert["order_id"], note_id, who)
        return Outcome("note removed", alert["order_id"])

    def assign(self, alert_id: str, whom: str, who: str, now_ms: int) -> Outcome:
        """To `whom`, a name; to nobody if it is empty."""
        alert = self._alert(alert_id)
        if alert is None:
            return Outcome(UNKNOWN)
        to = self._audit.pseudonyms.of(whom) if whom else ""
        self._judge.change(ASSIGNMENT, alert["order_id"], {"to": to}, who, now_ms)
        return Outcome("assigned", alert["order_id"])

    def _alert(self, alert_id: str, column: str = "") -> Any:
        with self._store.reading() as connection:
            found = find(connection, alert_id)
        return found[column] if found is not None and column else found
