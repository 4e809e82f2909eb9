"""All that the operations pages read from Kafka, followed by threads into memory, and whether it can be trusted now.
A page never waits for a broker: it shows what was read, and says what is in the way of reading on.
"""

import logging
import threading
from contextlib import suppress
from typing import Protocol

from schemas.errors import HeadraceError
from schemas.registry import Registry
from streams.clients import require_broker
from streams.compacted import Compacted
from streams.config import Settings
from streams.console.ops.keyed_book import KeyedBook
from streams.console.ops.letter_book import LetterBook
from streams.console.ops.letter_feed import LetterFeed
from streams.console.ops.release_book import ReleaseBook
from streams.learner.control import Control
from streams.privacy.sealed_letters import LetterSeals

log = logging.getLogger(__name__)

LOOK_S, WAIT_S = 5.0, 5.0
RELEASES, LEARNING, POLICIES, LISTS, LETTERS = "releases", "learning", "policies", "lists", "letters"


class Reader(Protocol):
    """What follows a topic."""

    def wait_current(self, timeout: float) -> None: ...

    def stop(self) -> None: ...


class Shelf:
    """Safe from any thread. Starts at once; a broker that is away is waited for, beside the pages."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings, topics = settings, settings.topics
        self.releases, self.letters = ReleaseBook(registry), LetterBook(registry, LetterSeals(settings))
        self.policies, self.lists = KeyedBook(registry, "policy"), KeyedBook(registry, "list_entry")
        self.learning = Control(settings, registry)
        self._readers: dict[str, Reader] = {
            RELEASES: Compacted(settings, topics.releases, self.releases.apply),
            LEARNING: self.learning,
            POLICIES: Compacted(settings, topics.policies, self.policies.apply),
            LISTS: Compacted(settings, topics.lists, self.lists.apply),
            LETTERS: LetterFeed(settings, self.letters),
        }
        self._current: set[str] = set()
        self._away = ""
        self._problems: dict[str, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="look at the topics", daemon=True)
        self._thread.start()

    def problem(self, what: str) -> str:
        """What keeps the pages from being as new as the topic; empty where nothing does."""
        return self._away or self._problems.get(what, "")

    def ready(self, what: str) -> bool:
        """Whether the topic was read to its end once: before that, nothing on a page means nothing."""
        return what in self._current

    def wait_current(self, timeout: float) -> None:
        """Returns when all is ready; raises what is in the way."""
        for what, reader in self._readers.items():
            reader.wait_current(timeout)
            self._current.add(what)

    def stop(self) -> None:
        """All at once: where the broker is away, each of them may take seconds to notice."""
        self._stopping.set()
        stops = [threading.Thread(target=reader.stop) for reader in self._readers.values()]
        for each in stops:
            each.start()
        for each in (*stops, self._thread):
            each.join()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            with suppress(HeadraceError):
                self._look()
            self._stopping.wait(LOOK_S if len(self._current) == len(self._readers) else LOOK_S / 10)

    def _look(self) -> None:
        try:
            require_broker(self._settings)
        except HeadraceError as error:
            self._away = str(error)
            raise
        self._away = ""
        for what, reader in self._readers.items():
            if self._stopping.is_set():
                return
            try:
                if what not in self._current:
                    reader.wait_current(WAIT_S)
                    self._current.add(what)
                wrong = getattr(reader, "error", None)  # the learner's has no such word
                self._problems[what] = str(wrong) if wrong is not None else ""
            except HeadraceError as error:
                self._problems[what] = str(error)
