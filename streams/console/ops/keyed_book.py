"""The newest record of each key of a compacted topic, in memory for the pages: policies by standing, list entries.
A key without a value is gone.
"""

import threading

from schemas.registry import Registry
from schemas.wire import Decoder
from streams.events import Record


class KeyedBook:
    """Safe from any thread; `apply` is what a reader of the topic calls."""

    def __init__(self, registry: Registry, contract: str) -> None:
        self._decode = Decoder(registry, contract)
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}

    def records(self) -> dict[str, Record]:
        with self._lock:
            return dict(self._records)

    def get(self, key: str) -> Record | None:
        with self._lock:
            return self._records.get(key)

    def know(self, key: str, record: Record | None) -> None:
        """A change of our own, at once: the page that follows it must not show what was before."""
        with self._lock:
            if record is None:
                self._records.pop(key, None)
            else:
                self._records[key] = record

    def apply(self, key: bytes, value: bytes | None) -> None:
        self.know(key.decode("utf-8", "replace"), None if value is None else self._decode(value))
