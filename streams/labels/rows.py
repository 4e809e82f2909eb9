"""A waiting entry of the label join as one packed row: where its served record lies, and what matching needs.
Its features stay in `served`; a row of an ad slate takes about 150 bytes, one of an order 60.

Layout, little endian: a head that all formats share (format, state, due), so that a store can keep rows by time
without knowing the rest; then the entry, its candidates, and a slot for each source of each outcome that a label has
named.
"""

from dataclasses import dataclass, field
from struct import Struct, error
from typing import Final

from schemas.errors import StateError

FORMAT: Final = 3
READ: Final = (2, 3)
"""Formats that are read. 2 had one label of each outcome, whoever said it, and none that was withdrawn."""
WAITING: Final = 1  # served; its window is open, or the source of its labels is silent
MATURED: Final = 2  # its examples are out; labels that come now revise them
EARLY: Final = 3  # labels without a served record
DEAD: Final = 4  # the same, given up
NOTE: Final = 5  # a row of another kind that only has to be forgotten when due

MATURE: Final = b"im"
FORGET: Final = b"if"
TIMELINES: Final = {WAITING: MATURE, MATURED: FORGET, EARLY: FORGET, DEAD: FORGET, NOTE: FORGET}

_HEAD = Struct("<BBQq")  # format, state, due (UTC ms), offset in `served` (-1 where there is none)
_REST = Struct("<iqdBHB")  # partition, event_time, weight, may be a negative, candidates, slots
# candidate, lengths of name and source, label's and example's revision, value, observed_at, label
_SLOT = Struct("<HBBiidqQ")
_WITHDRAWN = 0x80  # in the length of a name, of which no task has one so long
_LENGTH = Struct("<H")


@dataclass(slots=True)
class Slot:
    """The newest label of one source on one candidate and name."""

    revision: int
    value: float
    observed_at: int
    label: int  # 64-bit hash of the label's id
    source: str = ""
    withdrawn: bool = False  # the source says nothing any more


@dataclass(slots=True)
class Outcome:
    """What is known of one candidate and name: the newest label of each source, and the newest example."""

    slots: list[Slot] = field(default_factory=list)
    said: int = -1  # revision of the example, -1 if none is out


@dataclass(slots=True)
class Entry:
    """What is known of one target. Times are UTC ms; bit n of `shown` and `said` is candidate n.

    A task without candidates has the one candidate "". An EARLY entry has those that its labels name.
    """

    state: int
    due: int
    event_time: int = 0
    partition: int = -1
    offset: int = -1
    weight: float = 1.0  # of all its examples: 1 / propensity
    negative: bool = True  # whether the absence of a label says anything
    candidates: list[str] = field(default_factory=list)
    shown: int = 0
    said: int = 0  # negatives that are out, as revision 0
    outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict)  # by candidate and name
    early: list[tuple[tuple[str, str], Slot]] = field(default_factory=list)  # labels as they came, not judged yet

    @property
    def served(self) -> bool:
        return self.state in (WAITING, MATURED)

    def pack(self) -> bytes:
        count = len(self.candidates)
        width = (count + 7) >> 3
        named = [(key, slot, known.said) for key, known in self.outcomes.items() for slot in known.slots]
        named += [(key, slot, -1) for key, slot in self.early]
        parts = [
            _HEAD.pack(FORMAT, self.state, self.due, self.offset),
            _REST.pack(self.partition, self.event_time, self.weight, self.negative, count, len(named)),
            self.shown.to_bytes(width, "little"),
            self.said.to_bytes(width, "little"),
        ]
        for candidate in self.candidates:
            text = candidate.encode()
            parts += (_LENGTH.pack(len(text)), text)
        for (candidate, name), slot, said in named:
            text, source, number = name.encode(), slot.source.encode(), self.candidates.index(candidate)
            length = len(text) | (_WITHDRAWN if slot.withdrawn else 0)
            head = number, length, len(source), slot.revision, said, slot.value, slot.observed_at, slot.label
            parts += (_SLOT.pack(*head), text, source)
        return b"".join(parts)


def unpack(packed: bytes) -> Entry:
    """StateError if it is not a row of this format."""
    try:
        return _unpacked(packed)
    except (error, IndexError, UnicodeDecodeError) as wrong:
        raise _unreadable(f"a row of {len(packed)} bytes that cannot be read: {wrong}") from wrong


def _unpacked(packed: bytes) -> Entry:
    form, state, due, offset = _HEAD.unpack_from(packed)
    if form not in READ:
        raise _unreadable(f"a row of format {form}")
    partition, event_time, weight, negative, count, slots = _REST.unpack_from(packed, _HEAD.size)
    at, width = _HEAD.size + _REST.size, (count + 7) >> 3
    shown = int.from_bytes(packed[at : at + width], "little")
    said = int.from_bytes(packed[at + width : at + 2 * width], "little")
    at += 2 * width
    entry = Entry(state, due, event_time, partition, offset, weight, bool(negative), [], shown, said)
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(packed, at)
        at += _LENGTH.size
        entry.candidates.append(packed[at : at + length].decode())
        at += length
    for _ in range(slots):
        number, named, told, revision, example, value, observed_at, label = _SLOT.unpack_from(packed, at)
        at += _SLOT.size
        named, withdrawn = named & ~_WITHDRAWN, bool(named & _WITHDRAWN)
        name, source = packed[at : at + named].decode(), packed[at + named : at + named + told].decode()
        at += named + told
        key = entry.candidates[number], name
        slot = Slot(revision, value, observed_at, label, source, withdrawn)
        if entry.served:
            known = entry.outcomes.setdefault(key, Outcome(said=example))
            known.slots.append(slot)
        else:
            entry.early.append((key, slot))
    return entry


def note(due: int, content: bytes) -> bytes:
    """A row that is only kept until `due`; `noted` gives its content back."""
    return _HEAD.pack(FORMAT, NOTE, due, -1) + content


def noted(packed: bytes) -> bytes:
    """StateError if it is not a note of a format that is read."""
    if len(packed) < _HEAD.size or packed[0] not in READ or packed[1] != NOTE:
        raise _unreadable("a row that is no note of this format")
    return packed[_HEAD.size :]


def _unreadable(what: str) -> StateError:
    return StateError(
        what,
        where="the label join",
        expected=f"format {' or '.join(map(str, READ))}",
        todo="start the version of headrace that wrote it, or rebuild the state from the changelog",
    )


def row_key(space: str, target: str) -> bytes:
    """The key of a row: `space` is the task, or another name for rows of another kind."""
    return b"r" + space.encode() + b"\0" + target.encode()


def target_of(key: bytes) -> str:
    return key[key.index(b"\0") + 1 :].decode()


def due_key(key: bytes, packed: bytes) -> bytes:
    """Where a row stands in its timeline: by time, then by offset in `served`, then by target."""
    _, state, due, offset = _HEAD.unpack_from(packed)
    end = key.index(b"\0") + 1
    return b"".join((TIMELINES[state], key[1:end], due.to_bytes(8, "big"), (offset + 1).to_bytes(8, "big"), key[end:]))


def timeline(kind: bytes, space: str) -> bytes:
    """What the keys of a timeline of `space` begin with; `kind` is MATURE or FORGET."""
    return kind + space.encode() + b"\0"


def due_row(line: bytes, key: bytes) -> bytes:
    """The key of the row that stands at `key` of a timeline."""
    return b"r" + line[2:] + key[len(line) + 16 :]
