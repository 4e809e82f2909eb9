"""What the dead-letter pages show: rows by filter, and one letter with its bytes and what its schema would say of it.
Whoever may not see personal values sees how long things are and how they are framed, and no byte of them.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import BadRecord, RegistryUnavailable, SettingsError
from schemas.registry import Registry
from schemas.values import to_json
from schemas.wire import HEADER, Decoder, WritersDecoder
from streams.config import Settings
from streams.console.ops.letter_book import Brief
from streams.contracts import topic_contract
from streams.deadletters import Letter

PAGE = 50
SHOWN_BYTES = 1_024
TEXT_CHARS = 4_000
WIDTH = 16


@dataclass(frozen=True, slots=True)
class Filter:
    """Empty: all. home: also those that were brought home. page: from 1."""

    code: str = ""
    topic: str = ""
    home: bool = False
    page: int = 1

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Filter":
        page = query.get("page", "1")
        return cls(
            query.get("code", "")[:60], query.get("topic", "")[:249], query.get("home", "") == "1",
            max(1, int(page)) if page.isdecimal() and len(page) < 6 else 1,
        )  # fmt: skip

    def takes(self, brief: Brief) -> bool:
        return (
            (self.home or not brief.home)
            and self.code in ("", brief.code)
            and self.topic in ("", brief.topic)
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of the list. codes, topics: what there is to filter by, with how many are not home."""

    rows: Sequence[Brief]
    total: int
    pages: int
    page: int
    codes: Sequence[tuple[str, int]]
    topics: Sequence[tuple[str, int]]
    waiting: int
    home: int


def listed(briefs: Sequence[Brief], chosen: Filter) -> Listed:
    """briefs: the newest first."""
    found = [brief for brief in briefs if chosen.takes(brief)]
    pages = max(1, -(-len(found) // PAGE))
    page = min(chosen.page, pages)
    waiting = [brief for brief in briefs if not brief.home]
    codes = Counter({chosen.code: 0} if chosen.code else {}) + Counter()
    codes.update(brief.code for brief in waiting)
    topics = Counter(brief.topic for brief in waiting)
    return Listed(
        found[PAGE * (page - 1) : PAGE * page], len(found), pages, page, sorted(codes.items()),
        sorted(topics.items()), len(waiting), len(briefs) - len(waiting),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """Of a dump: where, the bytes in hexadecimal, and as text."""

    at: str
    hex: str
    text: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A letter as the reader may see it. decodes: the record as it is read today; says: why it cannot be."""

    key: str
    text: str
    lines: Sequence[Line]
    more: int
    frame: str
    decodes: str
    says: Sequence[tuple[str, str]] = ()
    written: str = ""
    masked: bool = False
    headers: Sequence[tuple[str, str]] = field(default_factory=list)


def opened(letter: Letter, settings: Settings, registry: Registry, *, reveal: bool) -> Opened:
    """reveal: whether personal values may be seen. Asks the registry."""
    record = letter.record
    value: bytes = record["value"] or b""
    if record["sealed"]:  # under a key that is not known here: nobody can say more of it
        return Opened(_length(record["key"]), "", (), len(value), "", "", (), masked=not reveal)
    decodes, says, written = _schema(record["topic"], record["value"], settings, registry)
    frame = framing(record["value"])
    if not reveal:
        lengths = [(header["name"], _length(header["value"])) for header in record["headers"]]
        can = "yes" if decodes else ""
        return Opened(_length(record["key"]), "", (), len(value), frame, can, says, masked=True, headers=lengths)
    headers = [(header["name"], plain(header["value"])) for header in record["headers"]]
    shown = value[:SHOWN_BYTES]
    return Opened(
        plain(record["key"]), plain(value[:TEXT_CHARS]), dump(shown), len(value) - len(shown), frame, decodes, says,
        written, headers=headers,
    )  # fmt: skip


def _length(value: bytes | None) -> str:
    return "none" if value is None else f"{len(value):,} bytes"


def plain(value: bytes | None) -> str:
    """As text: what is no UTF-8 as escapes, and control characters made visible."""
    if value is None:
        return "none"
    text = value.decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() or letter in "\n\t" else f"\\x{ord(letter):02x}" for letter in text)


def dump(value: bytes) -> list[Line]:
    lines = []
    for at in range(0, len(value), WIDTH):
        part = value[at : at + WIDTH]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(Line(f"{at:04x}", part.hex(" "), text))
    return lines


def framing(value: bytes | None) -> str:
    """What the first bytes say, whoever wrote them."""
    if value is None:
        return "no value at all"
    if len(value) < HEADER:
        return f"{len(value)} bytes, too few for the Confluent framing"
    if value[0] != 0:
        return f"first byte {value[0]}, not the Confluent framing (0 and a schema id)"
    return f"Confluent framing, schema id {int.from_bytes(value[1:HEADER], 'big')}"


def _schema(
    topic: str, value: bytes | None, settings: Settings, registry: Registry
) -> tuple[str, Sequence[tuple[str, str]], str]:
    """(the record by our contract, or what our contract says against it; the record by its writer's schema)."""
    try:
        contract = topic_contract(settings, topic).contract
        record = Decoder(registry, contract)(value) if contract else None
    except SettingsError as error:
        return "", [("what", error.what)], ""
    except RegistryUnavailable as error:
        return "", [("what", "the schema registry does not answer, so nobody can say"), ("where", error.where)], ""
    except BadRecord as error:
        pairs = (("reason", error.code), ("what", error.what), ("where", error.where), ("expected", error.expected),
                 ("what to do", error.todo))  # fmt: skip
        return "", [pair for pair in pairs if pair[1]], _written(value, registry)
    return (_json(to_json(contract, record)) if record is not None else ""), (), ""


def _written(value: bytes | None, registry: Registry) -> str:
    """By the schema that it was written with, where the registry has it: often readable, and of another contract."""
    try:
        return _json(WritersDecoder(registry)(value))
    except (BadRecord, RegistryUnavailable):
        return ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)[:TEXT_CHARS]
