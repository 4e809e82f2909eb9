"""What is live of each task and what became of each release, as models.releases says; and the moves of the learner.
Every move is a transaction that says why, and is made by whoever has shut all others out.
"""

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

from engines.releases import Release, ReleaseStore
from schemas.errors import ReleaseError
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.compacted import Compacted
from streams.config import Settings
from streams.pointers import Announcement, Pointer, Pointers

log = logging.getLogger(__name__)

LIVE, REFUSED, RETIRED, ROLLED_BACK, WORSE = "live", "refused", "retired", "rolled back", "worse"
"""WORSE: labels that came after another release had taken over say that the one before it was better."""
BAD = frozenset({REFUSED, ROLLED_BACK, WORSE})
"""What is not gone back to while there is another."""
TIMEOUT_S = 60.0
MOST_ANCESTORS = 64


class Champions:
    """Follows the topic, safe to read from any thread; moves from one thread."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings, self._registry = settings, registry
        self._decode = Decoder(registry, "model_release")
        self._lock = threading.Lock()
        self._pointers: dict[str, Pointer] = {}
        self._announced: dict[tuple[str, str], str] = {}
        self.store = ReleaseStore(settings.release_store, cache=settings.data_dir / "release-cache")
        self._reader = Compacted(settings, settings.topics.releases, self._apply)

    def wait_current(self, timeout: float = TIMEOUT_S) -> None:
        self._reader.wait_current(timeout)

    def stop(self) -> None:
        self._reader.stop()

    def pointer(self, task: str) -> Pointer | None:
        with self._lock:
            return self._pointers.get(task)

    def state(self, task: str, version: str) -> str | None:
        """What was announced of a release last; None for one that nobody spoke of."""
        with self._lock:
            return self._announced.get((task, version))

    def live(self, task: str) -> str | None:
        """The live version; where no pointer was ever written, what workers take: the newest of the store."""
        if (pointer := self.pointer(task)) is not None:
            return pointer.version
        versions = self.store.list(task)
        return versions[-1] if versions else None

    def _apply(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        record = self._decode(value)
        with self._lock:
            if (said := Announcement.of(record)) is not None:
                self._announced[said.task, said.version] = said.state
            elif (pointer := Pointer.of(record)) is not None:
                self._take(pointer)

    # -- moves

    def settle(self, task: str, version: str, champion: str, *, passed: bool, now_ms: int) -> str:
        """Announces a candidate, and makes it live if it has passed and its champion still is. The state it has now.

        Done again after a crash, it changes nothing. Raises Fenced, BrokerUnavailable, ReleaseError.
        """
        if (known := self.state(task, version)) is not None:
            return known
        release = self.store.open(task, version)
        pointers = Pointers(self._settings, self._registry)
        pointer = pointers.get(task)
        stands = pointer.version == champion and not pointer.pinned if pointer else self.live(task) is not None
        state = REFUSED if not passed else LIVE if stands else RETIRED
        said = announcement(release, state, release.manifest.metrics.get("gate"), now_ms)
        if pointer is None:  # what workers took by themselves; else they would take the newest, whatever came of it
            pointer = pointers.move(task, champion, now_ms=now_ms)
        if state == LIVE:
            pointer = pointers.move(task, version, now_ms=now_ms, announcements=[said])
        else:
            pointers.announce(said)
        self._know(pointer, said)
        return state

    def lineage(self, task: str, version: str) -> Iterator[str]:
        """What a release was made from, and that one, and so on, the youngest first."""
        for _ in range(MOST_ANCESTORS):
            try:
                before = self.store.open(task, version).manifest.trained.get("champion")
            except ReleaseError:  # gone, or damaged
                return
            if not isinstance(before, str):
                return
            yield before
            version = before

    def refuge(self, task: str, version: str, better: str) -> str:
        """Where to go back to from `version`, which did worse than `better`: to that, or if it is known to be bad
        itself, to the nearest ancestor that is not."""
        present = set(self.store.list(task))
        for each in (better, *self.lineage(task, version)):
            if each != version and each in present and self.state(task, each) not in BAD:
                return each
        return better

    def roll_back(self, task: str, version: str, verdict: dict[str, Any], now_ms: int, to: str) -> Pointer | None:
        """Moves from `version` to another, and says why; None where it is not live any more, or pinned."""
        pointers = Pointers(self._settings, self._registry)
        pointer = pointers.get(task)
        if pointer is None or pointer.version != version:
            return None
        if pointer.pinned:
            log.error("release %s/%s does worse and is pinned: it stays", task, version)
            return None
        said = self._marked(task, version, ROLLED_BACK, verdict, now_ms)
        pointer = pointers.move(task, to, now_ms=now_ms, announcements=[said])
        self._know(pointer, said)
        return pointer

    def mark_worse(self, task: str, version: str, verdict: dict[str, Any], now_ms: int) -> None:
        """Says of a release that is not live any more that the one before it was better."""
        said = self._marked(task, version, WORSE, verdict, now_ms)
        Pointers(self._settings, self._registry).announce(said)
        self._know(None, said)

    def _marked(self, task: str, version: str, state: str, verdict: dict[str, Any], now_ms: int) -> Announcement:
        try:
            return announcement(self.store.open(task, version), state, verdict, now_ms)
        except ReleaseError:  # damaged since: one more reason to leave it
            return Announcement(task, version, state, "", json.dumps(verdict), now_ms)

    def _know(self, pointer: Pointer | None, said: Announcement) -> None:
        """What it wrote itself, at once: a reader of the topic may see it only after another moment."""
        with self._lock:
            self._announced[said.task, said.version] = said.state
            if pointer is not None:
                self._take(pointer)

    def _take(self, pointer: Pointer) -> None:
        known = self._pointers.get(pointer.task)
        if known is None or pointer.epoch > known.epoch:
            self._pointers[pointer.task] = pointer


def announcement(release: Release, state: str, why: object, now_ms: int) -> Announcement:
    manifest = release.manifest.model_dump(mode="json")
    manifest["metrics"].pop("gate", None)  # it is said beside it
    return Announcement(release.task, release.version, state, json.dumps(manifest), json.dumps(why or {}), now_ms)
