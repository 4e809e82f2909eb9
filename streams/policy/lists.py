"""Lists that rules read: users, cards, devices, addresses, emails and ips that are blocked, allowed or watched. An
item that is blocked is not recommended; no rule reads it.
An entry ends by event time, so that an order is judged the same whenever it is scored.
"""

from collections.abc import Mapping
from typing import Any

from schemas.errors import BadRecord
from schemas.wire import Decoder
from streams.catalog import ENDLESS
from streams.events import ENTITY_FIELDS

BLOCK = "block"
LISTS = (BLOCK, "allow", "watch")
ITEM = "item"
TYPES = ("user", *ENTITY_FIELDS, ITEM)


def key(name: str, kind: str, token: str) -> str:
    """The record's key: `block/card:4f1c`."""
    return f"{name}/{kind}:{token}"


def parse_key(text: str) -> tuple[str, str, str]:
    """List, type and token. Raises BadRecord."""
    name, _, rest = text.partition("/")
    kind, _, token = rest.partition(":")
    if name not in LISTS or kind not in TYPES or not token:
        raise BadRecord(
            "out_of_range", f"key {text!r}", where="a list's entry",
            expected=f"LIST/TYPE:TOKEN, LIST one of {', '.join(LISTS)}, TYPE one of {', '.join(TYPES)}",
        )  # fmt: skip
    return name, kind, token


class Lists:
    """What is on which list, and until when. `apply` may run on another thread than `on`."""

    def __init__(self, decoder: Decoder | None = None) -> None:
        self._decoder = decoder
        self._until: dict[tuple[str, str, str], int] = {}

    def apply(self, record_key: bytes, value: bytes | None) -> None:
        """A record of the topic; None: the entry is taken off. Raises BadRecord."""
        assert self._decoder is not None
        name, kind, token = parse_key(record_key.decode(errors="replace"))
        if value is None:
            self._until.pop((name, kind, token), None)
        else:
            self.put(name, kind, token, self._decoder(value))

    def put(self, name: str, kind: str, token: str, entry: Mapping[str, Any]) -> None:
        """A ListEntry in physical types."""
        until = entry["until"]
        self._until[name, kind, token] = ENDLESS if until is None else int(until)

    def until(self, name: str, kind: str, token: str) -> int | None:
        """UTC ms of event time, ENDLESS for no end; None: it is not on the list."""
        return self._until.get((name, kind, token))

    def on(self, name: str, kind: str, token: str | None, time: int) -> bool:
        """Whether it is on the list at `time` (UTC ms, event time)."""
        return token is not None and self._until.get((name, kind, token), -1) > time
