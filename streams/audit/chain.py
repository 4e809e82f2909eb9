"""The chain of the audit log: an entry, the hash that ties it to the one before, and the first place where it breaks.
The hash is no signature: who may write the topic may append, and who may replace all of it can make it anew."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

FIRST = 1
NOTHING = "0" * 64  # what the first entry follows


@dataclass(frozen=True, slots=True)
class Entry:
    """As the contract has it."""

    sequence: int
    at: int
    """UTC ms."""
    who: str
    """A pseudonym."""
    action: str
    subject: str
    detail: str
    """JSON."""
    previous: str
    hash: str
    offset: int = field(default=-1, compare=False)
    """Where it was read."""

    @classmethod
    def of(cls, record: dict[str, Any], offset: int) -> Self:
        return cls(**record, offset=offset)

    def record(self) -> dict[str, Any]:
        record = asdict(self)
        del record["offset"]
        return record

    def hashed(self) -> str:
        """What the hash has to be: SHA-256 of all else as JSON, keys in order, no spaces, ASCII."""
        record = self.record()
        del record["hash"]
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record on the topic that is no entry."""

    offset: int
    why: str


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry that was seen: what a chain that is read later must still hold."""

    sequence: int
    hash: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None if it is no head."""
        sequence, _, found = text.strip().partition(":")
        if not sequence.isdecimal() or len(sequence) > 18 or len(found) != 64:
            return None
        return cls(int(sequence), found)


@dataclass(frozen=True, slots=True)
class Break:
    """The first place where a chain does not hold."""

    kind: str
    """`wrong hash`, `broken link`, `gap`, `repeat`, `missing beginning`, `missing end`, `unreadable`."""
    sequence: int
    """Of the entry where it shows; that of the entry expected there where none can be read."""
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of a whole chain: how many entries hold, the last of them, and the first break if there is one."""

    entries: int
    head: Head | None
    broken: Break | None


def following(last: Entry | None, at: int, who: str, action: str, subject: str, detail: str) -> Entry:
    """The entry after `last`."""
    sequence, previous = (last.sequence + 1, last.hash) if last is not None else (FIRST, NOTHING)
    entry = Entry(sequence, at, who, action, subject, detail, previous, "")
    return replace(entry, hash=entry.hashed())


def verify(entries: Iterable[Entry | Unreadable], head: Head | None = None) -> Verdict:
    """Finds the first break. `head`: what was seen before; without it, an end that was cut off does not show."""
    count, last = 0, None
    for entry in entries:
        if (broken := _break(last, entry, head)) is not None:
            return Verdict(count, _head(last), broken)
        assert isinstance(entry, Entry)
        count, last = count + 1, entry
    if head is not None and (last is None or last.sequence < head.sequence):
        ends = f"ends with {last.sequence}" if last is not None else "is empty"
        broken = Break("missing end", head.sequence, f"entry {head.sequence} was there before; the log {ends}")
        return Verdict(count, _head(last), broken)
    return Verdict(count, _head(last), None)


def _head(last: Entry | None) -> Head | None:
    return Head(last.sequence, last.hash) if last is not None else None


def _break(last: Entry | None, entry: Entry | Unreadable, head: Head | None) -> Break | None:
    expected, previous = (last.sequence + 1, last.hash) if last is not None else (FIRST, NOTHING)
    if isinstance(entry, Unreadable):
        return Break("unreadable", expected, f"offset {entry.offset} holds no entry: {entry.why}")
    here, found = entry.sequence, entry.hashed()
    if entry.hash != found:
        return Break("wrong hash", here, f"entry {here} says {_short(entry.hash)}, and hashes to {_short(found)}")
    if here > expected:
        if last is None:
            return Break("missing beginning", here, f"the first entry is {here}, not {FIRST}; nothing deletes entries")
        return Break("gap", here, f"entry {here} follows {last.sequence}")
    if here < expected:
        return Break("repeat", here, f"entry {here} comes where {expected} should")
    if entry.previous != previous:
        says = f"entry {here} follows {_short(entry.previous)}, and the entry before it is {_short(previous)}"
        return Break("broken link", here, says)
    if head is not None and here == head.sequence and entry.hash != head.hash:
        return Break("wrong hash", here, f"entry {here} is another one than was there before")
    return None


def _short(found: str) -> str:
    return found[:12] or "nothing"
