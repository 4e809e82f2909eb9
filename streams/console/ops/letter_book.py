"""The newest dead letters in memory for the pages, without their bytes.
A mark says that letters were brought home, as `streams.deadletters` writes it.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from schemas.registry import Registry
from schemas.wire import Decoder
from streams.deadletters import CUT, DONE, Letter, opened
from streams.privacy.sealed_letters import LetterSeals

NEWEST = 2_000  # of a partition

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Brief:
    """A letter without its bytes. cut: only its beginning is kept, so it cannot go home; nor can one that stays sealed,
    as its key is not known here."""

    partition: int
    offset: int
    topic: str
    place: str
    code: str
    message: str
    failed_at: int
    size: int
    replays: int
    cut: bool
    home: bool = False
    sealed: bool = False

    @property
    def id(self) -> str:
        return f"{self.partition}:{self.offset}"


class LetterBook:
    """Safe from any thread; `apply` is what a reader of the topic calls, in the order of each partition."""

    def __init__(self, registry: Registry, seals: LetterSeals) -> None:
        self._decode, self._seals = Decoder(registry, "dead_letter"), seals
        self._lock = threading.Lock()
        self._briefs: dict[int, dict[int, Brief]] = {}

    def briefs(self) -> list[Brief]:
        """The newest first."""
        with self._lock:
            found = list(chain.from_iterable(by.values() for by in self._briefs.values()))
        return sorted(found, key=lambda brief: (brief.failed_at, brief.partition, brief.offset), reverse=True)

    def get(self, letter_id: str) -> Brief | None:
        partition, _, offset = letter_id.partition(":")
        if not (partition.isdecimal() and offset.isdecimal() and len(letter_id) < 40):
            return None
        with self._lock:
            return self._briefs.get(int(partition), {}).get(int(offset))

    def apply(self, partition: int, offset: int, value: bytes | None, headers: Headers) -> None:
        """A letter, or without a value a mark. Raises BadRecord for what is no letter, RegistryUnavailable."""
        if value is None:
            self._brought_home(partition, headers)
            return
        brief = brief_of(Letter(partition, offset, opened(self._seals, self._decode(value))))
        with self._lock:
            kept = self._briefs.setdefault(partition, {})
            kept[offset] = brief
            while len(kept) > NEWEST:
                del kept[next(iter(kept))]

    def _brought_home(self, partition: int, headers: Headers) -> None:
        named = ",".join((content or b"").decode("ascii", "replace") for name, content in headers if name == DONE)
        with self._lock:
            kept = self._briefs.get(partition, {})
            for offset in map(int, filter(str.isdecimal, named.split(","))):
                if offset in kept:
                    kept[offset] = replace(kept[offset], home=True)


def brief_of(letter: Letter) -> Brief:
    record = letter.record
    cut = next((header["value"] for header in record["headers"] if header["name"] == CUT), None)
    size = int(cut) if cut and cut.isdigit() and len(cut) < 16 else len(record["value"] or b"")
    return Brief(
        letter.partition,
        letter.offset,
        record["topic"],
        f"{record['topic']}[{record['partition']}]@{record['offset']}",
        record["code"],
        record["message"],
        record["failed_at"],
        size,
        record["replays"],
        letter.cut,
        letter.home,
        record["sealed"],
    )
