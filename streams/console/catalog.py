"""What items are called: texts by item_id, and which item a catalogue row is, followed from the catalogue's topics.
A page that names an item the catalogue does not have shows its id.
"""

from schemas.registry import Registry
from schemas.wire import Decoder
from streams.compacted import Compacted
from streams.config import Settings


class Names:
    """Starts at once; a topic that is not there, or a broker that is away, only leaves names out."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._item, self._vector = Decoder(registry, "catalog_item"), Decoder(registry, "catalog_vector")
        self._texts: dict[str, str] = {}
        self._ids: dict[int, str] = {}
        self._readers = [
            Compacted(settings, settings.topics.items, self._take_item),
            Compacted(settings, settings.topics.vectors, self._take_vector),
        ]

    def stop(self) -> None:
        for reader in self._readers:
            reader.stop()

    def of(self, item_id: str) -> str:
        return self._texts.get(item_id) or item_id

    def of_row(self, row: int) -> str:
        """Empty where the row is unknown."""
        item_id = self._ids.get(row, "")
        return self.of(item_id) if item_id else ""

    def _take_item(self, key: bytes, value: bytes | None) -> None:
        if value is not None:
            record = self._item(value)
            self._texts[record["item_id"]] = record["text"]

    def _take_vector(self, key: bytes, value: bytes | None) -> None:
        if value is not None:
            record = self._vector(value)
            if record["kind"] == "item":
                self._ids[record["row"]] = record["id"]
