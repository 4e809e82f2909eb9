"""The job that all variants of bench.throughput do: a click becomes an entry of its user's last 64, a score and a
`served` record. The records have the values of the null engine, so that all variants write the same bytes per event.
"""

from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any

from schemas.confluent import ConfluentRegistry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.tasks.recommendation import TOP_K, Recommendation

HISTORY = 64
TASK = "recommendations"
FEATURES_BYTES = Recommendation.features.itemsize
HEAD = bytes(150)  # of a packed row: sums and marks
ENTRY = Struct("<qQqqiiiBBBB")
"""48 bytes, as in the packed row of streams.state."""
ID = Struct("<QI")
"""An event id's hash and its second, which a packed row holds for each of the last 64 events."""
ITEMS = [{"item_id": "", "score": 0.0}] * TOP_K

Record = Mapping[str, Any]


class Contracts:
    """The real contracts, registered at the real registry."""

    def __init__(self, settings: Settings) -> None:
        registry, topics = ConfluentRegistry(settings.registry()), settings.topics
        self.decode = Decoder(registry, "click")
        self.score = Encoder(registry, topics.scores(TASK), "recommendation_score")
        self.served = Encoder(registry, topics.served(TASK), "served")


def entry(click: Record, offset: int) -> bytes:
    return ENTRY.pack(click["event_time"], offset, 19_900, 0, len(click["item_id"]), 1, 0, 1, 1, 0, 0)


def packed_row(history: Sequence[bytes]) -> bytes:
    """A changelog row of the size that streams.state writes."""
    return b"".join((HEAD, *history, *(ID.pack(number, 0) for number in range(len(history)))))


def features(history: bytes) -> bytes:
    """Bytes of the size that the task's feature row has."""
    return history[-FEATURES_BYTES:].ljust(FEATURES_BYTES, b"\0")


def score_record(click: Record, offset: int, now_ms: int, queued_ms: int) -> dict[str, Any]:
    return {
        "event_id": click["event_id"],
        "user_id": click["user_id"],
        "event_time": click["event_time"],
        "scored_at": now_ms,
        "release": "recommendations/20260101T000000-000000000000",
        "engine": "null none, none",
        "late": False,
        "fallback": None,
        "timings": {"queue_us": min(2**31 - 1, 1000 * (now_ms - queued_ms)), "infer_us": 1},
        "cut": {"clicks": offset, "orders": -1, "impressions": -1},
        "items": ITEMS,
    }


def served_record(score: Record, packed: bytes) -> dict[str, Any]:
    return {
        "event_id": score["event_id"],
        "task": TASK,
        "target_id": score["event_id"],
        "user_id": score["user_id"],
        "event_time": score["event_time"],
        "served_at": score["scored_at"],
        "release": score["release"],
        "engine": score["engine"],
        "bucket": 256,
        "row": 0,
        "features_format": 1,
        "features": packed,
        "candidates": [item["item_id"] for item in score["items"]],
        "shown": [],
        "prediction": [item["score"] for item in score["items"]],
        "decision": None,
        "propensity": 1.0,
        "late": False,
        "fallback": None,
        "cut": score["cut"],
    }


def short_entry(click: Record) -> str:
    """An entry for state that is JSON."""
    return f"{click['event_time']}:{click['item_id']}:19900"
