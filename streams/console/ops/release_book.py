"""What models.releases says, in memory for the pages: what became of each release, and each move of the pointers.
Moves that compaction has taken away are not there.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.registry import Registry
from schemas.wire import Decoder
from streams.pointers import Announcement, Pointer


@dataclass(frozen=True, slots=True)
class Releases:
    """said: what was said of each release, by (task, version), the newest last. moves: a task's pointers by epoch."""

    said: Mapping[tuple[str, str], tuple[Announcement, ...]] = field(default_factory=dict)
    moves: Mapping[str, tuple[Pointer, ...]] = field(default_factory=dict)

    def live(self, task: str) -> Pointer | None:
        moves = self.moves.get(task, ())
        return moves[-1] if moves else None


class ReleaseBook:
    """Safe from any thread; `apply` is what a reader of the topic calls."""

    def __init__(self, registry: Registry) -> None:
        self._decode = Decoder(registry, "model_release")
        self._lock = threading.Lock()
        self._said: dict[tuple[str, str], dict[int, Announcement]] = {}
        self._moves: dict[str, dict[int, Pointer]] = {}

    def releases(self) -> Releases:
        with self._lock:
            moves = {task: tuple(by[epoch] for epoch in sorted(by)) for task, by in self._moves.items()}
            said = {key: tuple(by[at] for at in sorted(by)) for key, by in self._said.items()}
            return Releases(said, moves)

    def know(self, pointer: Pointer) -> None:
        """A move of our own, at once: the page that follows it must not show what was before."""
        with self._lock:
            self._moves.setdefault(pointer.task, {})[pointer.epoch] = pointer

    def apply(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        record = self._decode(value)
        if (pointer := Pointer.of(record)) is not None:
            self.know(pointer)
        elif (said := Announcement.of(record)) is not None:
            with self._lock:
                self._said.setdefault((said.task, said.version), {})[said.announced_at] = said
