"""The policies topic as a person changes it: a document is checked, kept under its version and made live or shadow.
One writer at a time; both records are in one transaction, so what decides is always to be found by its version.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.errors import PolicyError
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.events import Record
from streams.offsets import newest_by_key
from streams.policies import KEPT, TASK
from streams.policy.decide import Policy
from streams.policy.document import digest
from streams.policy.lists import Lists
from streams.transactions import Sent, TransactionalProducer

PARTITION = 0
LIVE, SHADOW = "live", "shadow"
TRIED = "tried"
"""Of a version's own record, in place of KEPT: it was only a shadow, and never decided."""
STANDINGS = (LIVE, SHADOW)
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Applied:
    """A record of the topic. document: TOML; empty: none decides any more."""

    standing: str
    version: str
    document: str
    applied_at: int
    by: str
    note: str

    @classmethod
    def of(cls, record: Record) -> "Applied":
        return cls(*(record[name] for name in ("standing", "version", "document", "applied_at", "by", "note")))


def read(settings: Settings, registry: Registry) -> dict[str, Applied]:
    """The newest record of each key: `live`, `shadow`, and each version that was ever applied; oldest first.

    Raises BrokerUnavailable, SettingsError (no such topic).
    """
    decode = Decoder(registry, "policy")
    found = newest_by_key(settings, settings.topics.policies, PARTITION)
    return {key.decode().partition("/")[2]: Applied.of(decode(value)) for key, value in found.items()}


def chosen(known: Mapping[str, Applied], name: str, topic: str) -> Applied:
    """`live`, `shadow`, or a version, whole or its beginning. PolicyError where there is none, or several."""
    near = [version for version in known if version not in STANDINGS and version.startswith(name)]
    if name in known and known[name].document:
        return known[name]
    if len(near) == 1 and name:
        return known[near[0]]
    raise PolicyError(
        f"{len(near)} versions begin with {name!r}" if near else f"there is no policy {name!r}",
        where=topic,
        expected="live, shadow, or a version",
        todo="`headrace policy list` lists them",
    )


def apply(
    settings: Settings, registry: Registry, text: str, *, shadow: bool = False, by: str, note: str = "", now_ms: int = 0
) -> Applied:
    """Makes a document live, or the shadow; returns when the broker has it. An empty text: none decides any more.

    Raises PolicyError where it cannot be used; BrokerUnavailable, Fenced where somebody else writes now.
    """
    standing, topic = (SHADOW if shadow else LIVE), settings.topics.policies
    version = Policy.parse(text, Lists(), "the document").version if text else ""
    now = now_ms or time.time_ns() // 1_000_000
    record = {
        "task": TASK, "standing": standing, "version": version, "digest": digest(text) if text else "",
        "document": text, "applied_at": now, "by": by, "note": note,
    }  # fmt: skip
    encode = Encoder(registry, topic, "policy")
    producer = TransactionalProducer(settings, f"{settings.app_id}-policies", topic, TIMEOUT_S)
    producer.partitions(topic)
    kept = []
    if text and not (shadow and _was_live(settings, registry, version)):
        own = record | {"standing": TRIED if shadow else KEPT}
        kept = [Sent(topic, PARTITION, f"{TASK}/{version}".encode(), encode(own))]
    producer.send(kept, Sent(topic, PARTITION, f"{TASK}/{standing}".encode(), encode(record)))
    return Applied.of(record)


def _was_live(settings: Settings, registry: Registry, version: str) -> bool:
    known = read(settings, registry).get(version)
    return known is not None and known.standing == KEPT
