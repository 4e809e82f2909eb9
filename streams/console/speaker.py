"""Verdicts onto events.labels, and orders from events.orders: what the console says to Kafka and asks of it.
A label is said when all replicas have it, and not before.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from schemas.errors import DataUnavailable
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.acknowledged import AcknowledgedWriter
from streams.clients import require_broker
from streams.config import Settings
from streams.console.answers import Label
from streams.events import Record
from streams.offsets import read_range
from streams.tasks.fraud import Fraud

TIMEOUT_S = 10.0
KEPT_ORDERS = 256
READ_S = 2.0


class Labels:
    """Writes analysts' labels; used from any thread. Connects with the first."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings, self._registry = settings, registry
        self._topic = settings.topics.labels
        self._writer = AcknowledgedWriter(settings, self._topic, TIMEOUT_S)
        self._encode: Encoder | None = None

    def say(self, order_id: str, label: Label) -> None:
        """Returns when the broker has it. Raises BrokerUnavailable, RegistryUnavailable, ProduceFailed."""
        require_broker(self._settings)
        if self._encode is None:
            self._encode = Encoder(self._registry, self._topic, "label")
        self._writer.send(order_id.encode(), self._encode(_record(order_id, label)))


def _record(order_id: str, label: Label) -> dict[str, Any]:
    named = {"task": Fraud.name, "target_id": order_id, "candidate_id": None, "name": Fraud.labels.name}
    return {**named, **label._asdict()}


class Orders:
    """Reads single orders where alerts say that they are; keeps the newest that were asked for. From any thread."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings, self._decode = settings, Decoder(registry, "order")
        self._kept: OrderedDict[tuple[int, int], Record] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, partition: int, offset: int, order_id: str) -> Record:
        """Raises DataUnavailable if it is not there any more, and what `read_range` raises."""
        with self._lock:
            if (known := self._kept.get((partition, offset))) is not None:
                self._kept.move_to_end((partition, offset))
                return known
        require_broker(self._settings)
        found = read_range(self._settings, self._settings.topics.orders, partition, offset, offset + 1, stall_s=READ_S)
        record = next((self._decode(message.value()) for batch in found for message in batch), None)
        if record is None or record["order_id"] != order_id:
            raise DataUnavailable(
                "the order is not where the alert says",
                where=f"{self._settings.topics.orders}[{partition}]@{offset}",
                todo="the topic was made anew since",
            )
        with self._lock:
            self._kept[partition, offset] = record
            while len(self._kept) > KEPT_ORDERS:
                self._kept.popitem(last=False)
        return record

    def forget(self, order_ids: Iterable[str]) -> None:
        with self._lock:
            gone = set(order_ids)
            for place in [place for place, record in self._kept.items() if record["order_id"] in gone]:
                del self._kept[place]
