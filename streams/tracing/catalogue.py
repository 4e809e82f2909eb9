"""The catalogue as the topics hold it now, with the broker's time of each row: what a score of then could have known.
Rows are only ever added, so the catalogue of a moment is the first so many rows of today's.
"""

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from schemas.registry import Registry
from streams.catalog import AD, ITEM, Catalogue
from streams.config import Settings
from streams.events import Record
from streams.offsets import bounds, places, read_range
from streams.tracing.reading import TopicReader


class DatedCatalogue:
    """A catalogue, and when its rows came. Times are UTC ms of the broker.

    The topics are compacted: of a row that was written twice only the newer time may be left, and of a price or an
    availability that changed the older value may be gone.
    """

    def __init__(self, catalog: Catalogue | None = None) -> None:
        self.catalog = catalog or Catalogue()
        self._since: dict[int, int] = {}  # row to its oldest record
        self._touched: dict[int, int] = {}  # row to the newest record that changed its vector
        self._steps: tuple[list[int], list[int]] | None = None

    def vector(self, record: Record, time: int) -> None:
        """A CatalogVector."""
        before = self.catalog.vectors_version
        self.catalog.apply_vector(record)
        row = int(record["row"])
        self._since[row] = min(time, self._since.get(row, time))
        self._touch(row, before, time)

    def item(self, record: Record, time: int) -> None:
        """A CatalogItem; after the vectors, so that what it changes is seen."""
        before = self.catalog.vectors_version
        self.catalog.apply_item(record)
        self._touch(self.catalog.items.get(record["item_id"], 0), before, time)

    def _touch(self, row: int, before: int, time: int) -> None:
        self._steps = None
        if self.catalog.vectors_version != before:
            self._touched[row] = max(time, self._touched.get(row, 0))

    def rows_at(self, time: int) -> int:
        """How many rows there were at a UTC ms, row 0 included."""
        if self._steps is None:
            pairs = sorted((at, row) for row, at in self._since.items())
            rows = np.maximum.accumulate([0, *(row for _, row in pairs)])[1:] if pairs else np.zeros(0, np.int64)
            self._steps = [at for at, _ in pairs], rows.tolist()
        times, newest = self._steps
        place = bisect_right(times, time)
        return newest[place - 1] + 1 if place else 1

    def changed(self, rows: NDArray[np.int32], time: int) -> list[str]:
        """Ids of those of the rows, known at `time`, whose text or price may be another one since."""
        touched = ((int(row), self._touched.get(int(row), 0)) for row in np.unique(rows) if row > 0)
        known = self._since
        return [self.catalog.ids[row] for row, at in touched if at > time >= known.get(row, at)]


def read_catalogue(settings: Settings, registry: Registry) -> DatedCatalogue:
    """All that catalog.vectors, catalog.items and catalog.ads hold now. Raises BrokerUnavailable, SettingsError."""
    dated, topics = DatedCatalogue(), settings.topics
    _apply(TopicReader(settings, registry, topics.vectors, "catalog_vector"), dated.vector)
    _apply(TopicReader(settings, registry, topics.items, "catalog_item"), dated.item)
    _apply(TopicReader(settings, registry, topics.ads, "catalog_ad"), lambda ad, _: dated.catalog.apply_ad(ad))
    for kind, topic in ((ITEM, topics.items), (AD, topics.ads)):
        for ident in _deleted(settings, topic):
            dated.catalog.withdraw(kind, ident)
    return dated


def _apply(reader: TopicReader, apply: Callable[[Record, int], None]) -> None:
    for chunk in reader.chunks():
        for found in chunk:
            apply(found.record, found.timestamp)


def _deleted(settings: Settings, topic: str) -> list[str]:
    """Keys whose newest record is a deletion."""
    last: dict[bytes, bool] = {}
    for (_, partition), (low, high) in bounds(settings, places(settings, topic)).items():
        if low < high:
            for messages in read_range(settings, topic, partition, low, high):
                last.update((message.key() or b"", message.value() is None) for message in messages)
    return [key.decode(errors="replace") for key, gone in last.items() if gone]
