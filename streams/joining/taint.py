"""Tells the owners of cards, devices, addresses, emails and ips that an order which used them was fraud.
The tokens are not in `served`: they are read from the order itself, whose offset is in the score's cut.
A verdict that is taken back, or that the bank contradicts, takes this back, too: of that order, and of no other.
"""

from collections.abc import Iterator, Sequence

from schemas.errors import BadRecord
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.entities import touch, touch_key, touch_partition
from streams.events import ENTITY_FIELDS, Record, order_entities
from streams.joining.lookup import ServedReader
from streams.partitioning import partition_for
from streams.privacy.pseudonyms import ingesting
from streams.transactions import Sent


class Taint:
    """Used from one thread."""

    def __init__(self, settings: Settings, registry: Registry, reader: ServedReader) -> None:
        """Raises RegistryUnavailable, SchemaError."""
        self._settings, self._reader = settings, reader
        self._decode = ingesting(settings, Decoder(registry, "order"))
        self._encode = Encoder(registry, settings.topics.entity_events, "entity_touch")

    def touches(self, served: Sequence[Record], *, fraud: bool) -> Iterator[Sent]:
        """Of `served` records of orders that were fraud, or that are no more said to be. An order that retention has
        deleted touches nothing.
        """
        topics, partitions = self._settings.topics, self._settings.partitions
        by_partition: dict[int, list[int]] = {}
        for record in served:
            partition = partition_for(record["user_id"].encode(), partitions)
            by_partition.setdefault(partition, []).append(record["cut"]["orders"])
        events = {record["event_id"] for record in served}
        for partition, offsets in by_partition.items():
            values = self._reader.read(topics.orders, partition, [offset for offset in offsets if offset >= 0])
            for order in self._decode.decode_many(list(values.values())):
                if isinstance(order, BadRecord) or order["event_id"] not in events:
                    continue
                for kind, token in zip(ENTITY_FIELDS, order_entities(order), strict=True):
                    if token:
                        said = touch(kind, token, order, fraud=fraud)
                        where = touch_partition(said, partitions)
                        yield Sent(topics.entity_events, where, touch_key(said, verdict=True), self._encode(said))
