"""What analysts write about cases, in memory: every console has all of it from the notes' topic, so none of it on disk.
It is no part of the audit log, which keeps for ever: a note can be taken back, and is with the person it is about.
"""

import hashlib
import threading
from collections.abc import Iterable
from typing import NamedTuple, Protocol

MOST_CHARACTERS = 4_000


class Note(NamedTuple):
    note_id: str
    order_id: str
    who: str
    at: int
    text: str

    @property
    def key(self) -> str:
        """Nobody writes over another's note: who wrote it is in its key."""
        named = "\0".join((self.note_id, self.who)).encode("utf-8", "surrogatepass")
        return f"{self.order_id}/{hashlib.blake2b(named, digest_size=16).hexdigest()}"


class Keeps(Protocol):
    """The notes' topic: returns when it has what was said, and raises where it has not."""

    def put(self, note: Note, user_id: str) -> None: ...

    def delete(self, key: str) -> None: ...


class NoteBook:
    """Used from any thread."""

    def __init__(self, topic: Keeps) -> None:
        self._topic, self._lock = topic, threading.RLock()
        self._notes: dict[str, Note] = {}
        self._keys: dict[str, set[str]] = {}  # by order
        self._gone = set[str]()  # a key never comes again: what is read late does not bring it back

    # -- what analysts do

    def add(self, note: Note, user_id: str) -> None:
        """Twice is once. user_id: whose order it is about. Raises BrokerUnavailable, RegistryUnavailable,
        ProduceFailed, and then nothing was kept."""
        with self._lock:
            known = note.key in self._notes or note.key in self._gone
        if not known:
            self._topic.put(note, user_id)
            self.apply(note.key, note)

    def remove(self, order_id: str, note_id: str, who: str) -> None:
        """One of `who`'s own. Raises as `add`."""
        for note in self.of(order_id):
            if (note.note_id, note.who) == (note_id, who):
                self._topic.delete(note.key)
                self.apply(note.key, None)

    def forget(self, order_ids: Iterable[str]) -> None:
        """All that was written about these orders. Raises as `add`: then some may be gone already."""
        for order_id in order_ids:
            for note in self.of(order_id):
                self._topic.delete(note.key)
                self.apply(note.key, None)

    def of(self, order_id: str) -> list[Note]:
        """The oldest first."""
        with self._lock:
            found = [self._notes[key] for key in self._keys.get(order_id, ())]
        return sorted(found, key=lambda note: (note.at, note.note_id))

    def orders_before(self, before_ms: int) -> list[str]:
        """Orders on which nothing was written since."""
        with self._lock:
            return [
                order_id
                for order_id, keys in self._keys.items()
                if keys and all(self._notes[key].at < before_ms for key in keys)
            ]

    # -- what comes from the topic

    def apply(self, key: str, note: Note | None) -> None:
        """None: it is gone."""
        with self._lock:
            if note is None:
                self._gone.add(key)
                if (old := self._notes.pop(key, None)) is not None:
                    self._keys[old.order_id].discard(key)
            elif key not in self._gone:
                self._notes[key] = note
                self._keys.setdefault(note.order_id, set()).add(key)
