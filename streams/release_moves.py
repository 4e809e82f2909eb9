"""What a person does to the pointers, by command or in the console: promote, go back, pin.
Each says what it did; what cannot be is refused and moves nothing. Blocking: a page calls it in a thread.
"""

import json
from collections.abc import Callable
from contextlib import suppress

from engines.releases import ReleaseStore
from schemas.errors import ReleaseError, SettingsError
from schemas.registry import Registry
from streams.clients import require_broker
from streams.config import Settings
from streams.pointers import Announcement, Pointer, Pointers

LISTED_MS = 10_000
BY_HAND = json.dumps({"reasons": ["By hand."]})


class ReleaseMoves:
    """Safe from any thread. clock: UTC ms.

    expected: what was live when the person decided, empty for nothing; where something else is live by now, that is
    a ReleaseError. None: whatever is live.
    """

    def __init__(self, settings: Settings, registry: Registry, clock: Callable[[], int]) -> None:
        self._settings, self._registry, self._clock = settings, registry, clock
        self._listed: dict[str, tuple[int, list[str]]] = {}

    def store(self) -> ReleaseStore:
        return ReleaseStore(self._settings.release_store, cache=self._settings.data_dir / "release-cache")

    def versions(self, task: str) -> list[str]:
        """Of the store, oldest first, as of some seconds ago: to list one reads all of its manifests."""
        at, found = self._listed.get(task, (0, []))
        if not 0 <= self._clock() - at < LISTED_MS:
            at, found = self._listed[task] = self._clock(), self.store().list(task)
        return found

    def manifest(self, task: str, version: str) -> dict[str, object]:
        """Of a release in the store whose files have been verified. ReleaseError."""
        release = self.store().open(task, version)
        return {**release.manifest.model_dump(mode="json"), "digest": release.digest}

    def promote(self, task: str, version: str, *, pinned: bool, expected: str | None = None) -> Pointer:
        """Past the gate; its files are verified first. Raises ReleaseError, BrokerUnavailable, Fenced."""
        self._known(task)
        release, pointers = self.store().open(task, version), self._pointers()
        if expected is not None and (pointers.get(task) is not None or expected):
            self._still(pointers, task, expected)
        return pointers.move(task, release.version, now_ms=self._clock(), pinned=pinned, by_hand=True)

    def roll_back(self, task: str, *, expected: str | None = None) -> Pointer:
        self._known(task)
        pointers, now_ms, said = self._pointers(), self._clock(), []
        before = self._still(pointers, task, expected)
        if before.previous is not None:
            self.store().open(task, before.previous)
            said.append(Announcement(task, before.version, "rolled back", self._manifest(before), BY_HAND, now_ms))
        return pointers.roll_back(task, now_ms=now_ms, by_hand=True, announcements=said)

    def pin(self, task: str, *, pinned: bool, expected: str | None = None) -> Pointer:
        self._known(task)
        pointers = self._pointers()
        before = self._still(pointers, task, expected)
        return pointers.move(task, before.version, now_ms=self._clock(), pinned=pinned, by_hand=True)

    def _pointers(self) -> Pointers:
        require_broker(self._settings)
        return Pointers(self._settings, self._registry)

    def _still(self, pointers: Pointers, task: str, expected: str | None) -> Pointer:
        before = pointers.get(task)
        if before is None:
            raise ReleaseError(
                f"nothing is live of {task}",
                where=self._settings.topics.releases,
                expected="a pointer",
                todo="run `headrace releases promote TASK/VERSION`",
            )
        if expected is not None and before.version != expected:
            raise ReleaseError(
                f"{task}/{before.version} is live by now",
                where=self._settings.topics.releases,
                expected=f"{task}/{expected or 'nothing'}, as it was when the page was made",
                todo="look again, and decide anew",
            )
        return before

    def _known(self, task: str) -> None:
        if task not in self._settings.tasks:
            raise SettingsError(
                f"{task[:60]} is none of this shop's tasks", where="tasks", expected=", ".join(self._settings.tasks)
            )

    def _manifest(self, pointer: Pointer) -> str:
        with suppress(ReleaseError):  # damaged since: one more reason to leave it
            manifest = self.manifest(pointer.task, pointer.version)
            metrics = manifest.get("metrics")
            if isinstance(metrics, dict):
                metrics.pop("gate", None)
            return json.dumps(manifest)
        return ""
