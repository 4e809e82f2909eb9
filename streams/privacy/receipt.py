"""The receipt of a person who was forgotten: what was deleted, what ends by itself and when, what is the shop's.
Its digest is in the audit log, so that nobody can have written another one since.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas.errors import DataUnavailable
from schemas.registry import Registry
from streams.audit import log as audit_log
from streams.audit.chain import Entry as AuditEntry
from streams.config import Settings
from streams.privacy.compaction import configuration
from streams.privacy.places import Copies, Copy

ASKED, FORGOTTEN = "person.forget", "person.forgotten"
"""Actions of the audit log."""
NOT_OURS = (
    "events, labels and lists are the shop's to delete; new events under the same user_id are a new person's",
    "releases named here have learned from examples of the person: retrain without them, or let newer ones take over",
    "what a consumer has read of our topics, or a webhook has delivered, is where it went",
    "the audit log names orders, not people; it is kept",
)


def receipt(
    *,
    request: str,
    person: str,
    asked_at: int,
    partition: int,
    cutoff: Mapping[str, int],
    deleted: Mapping[str, int],
    parts: Mapping[str, str],
    staying: Mapping[str, Mapping[str, int]],
    shop: Mapping[str, int],
    releases: Sequence[str],
    open_: Sequence[str],
) -> dict[str, Any]:
    """With its digest. Times are UTC ms. deleted: records by topic; staying: records and `until`, by topic; open_: what
    could not be done yet, in words."""
    last = max((int(one["until"]) for one in staying.values()), default=0)
    said: dict[str, Any] = {
        "receipt": request,
        "person": person,
        "asked_at": asked_at,
        "partition": partition,
        "cutoff": dict(cutoff),
        "complete": not open_,
        "open": list(open_),
        "deleted": dict(sorted(deleted.items())),
        "parts": dict(parts),
        "ends_by_itself": {topic: dict(one) for topic, one in sorted(staying.items())},
        "last_copy_ends": last or None,
        "of_the_shop": dict(sorted(shop.items())),
        "releases_that_learned": sorted(releases),
        "not_ours": list(NOT_OURS),
    }
    return said | {"digest": digest(said)}


def digest(said: Mapping[str, Any]) -> str:
    """SHA-256 of all but the digest as JSON, keys in order, no spaces, ASCII."""
    rest = {name: value for name, value in said.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def staying(settings: Settings, found: Copies) -> dict[str, dict[str, int]]:
    """Of what ends by time alone: records, and the UTC ms after which nothing of them is left."""
    by_topic: dict[str, list[Copy]] = {}
    for copy in found.staying:
        by_topic.setdefault(copy.topic, []).append(copy)
    ends = {}
    for topic, copies in by_topic.items():
        config = configuration(settings, topic)
        # A segment goes as a whole, when the newest of it has its time.
        kept = int(config["retention.ms"]) + int(config["segment.ms"])
        ends[topic] = {"records": len(copies), "until": max(copy.stamped for copy in copies) + kept}
    return ends


def verified(settings: Settings, registry: Registry, said: Mapping[str, Any]) -> str:
    """What is wrong with a receipt; empty if it is the one that the audit log names, and the log's chain holds."""
    if said.get("digest") != digest(said):
        return "its digest is another one than what it says hashes to"
    entries: list[AuditEntry | Any] = list(audit_log.read(settings, registry))
    if not any(_names(entry, said) for entry in entries):
        return "the audit log has no entry with this receipt and digest"
    return ""


def _names(entry: Any, said: Mapping[str, Any]) -> bool:
    if not isinstance(entry, AuditEntry) or entry.action != FORGOTTEN:
        return False
    detail = json.loads(entry.detail)
    return (detail.get("receipt"), detail.get("digest")) == (said.get("receipt"), said.get("digest"))


def read(text: str, where: str) -> list[dict[str, Any]]:
    """The receipts of a file: one, or a list of them. Raises DataUnavailable."""
    expected = "what `forget --json` printed"
    try:
        said = json.loads(text)
    except ValueError as error:
        raise DataUnavailable(f"it is no JSON: {error}", where=where, expected=expected) from error
    receipts = said if isinstance(said, list) else [said]
    if not receipts or not all(isinstance(each, dict) for each in receipts):
        raise DataUnavailable("it is no receipt", where=where, expected=expected)
    return receipts


def counted(copies: Iterable[Copy]) -> dict[str, int]:
    """Records by topic, without deletions."""
    counts: dict[str, int] = {}
    for copy in copies:
        if not copy.deleted:
            counts[copy.topic] = counts.get(copy.topic, 0) + 1
    return counts
