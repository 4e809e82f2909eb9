"""The mark of history: an event that moves its user's state and is not scored, explained or labelled.
A backfill sets it. It is a header, so that the state stays what it is: a function of what is on the topics.
"""

from collections.abc import Sequence

from streams.raw import RawRecord

HISTORY = "headrace-history"


def is_history(headers: Sequence[tuple[str, bytes]] | None) -> bool:
    return bool(headers) and any(name == HISTORY for name, _ in headers or ())


def history_among(records: Sequence[RawRecord]) -> list[int]:
    """Numbers of those that are history."""
    return [number for number, record in enumerate(records) if record.headers and is_history(record.headers)]
