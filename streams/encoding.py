"""Keeps catalog.vectors in step with catalog.items and catalog.ads: what is new or has new text is encoded.
One process does this for a shop (rows are numbered here), beside the workers and never in their way. A topic holds the
vectors of one encoder: those of two mean nothing to each other, and a release has learned one of them.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import confluent_kafka

from schemas.errors import ProduceFailed, SettingsError
from schemas.registry import Registry
from schemas.wire import Decoder
from schemas.wire import Encoder as AvroEncoder
from streams.compacted import Compacted
from streams.config import Settings
from streams.events import Record
from streams.vectors import Encoder, catalogue_vectors, vector_key

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 60.0
LOOK_S = 2.0


class CatalogueEncoder:
    """Follows the three topics; `step` encodes what they lack. Close it when done."""

    def __init__(self, settings: Settings, registry: Registry, encoder: Encoder, rows_from: str = "") -> None:
        """rows_from: a topic of another encoder's vectors, whose ids keep their rows here: what was served names rows.

        Raises RegistryUnavailable, SchemaError; a broker that is away is waited for.
        """
        self._topic, self._encoder = settings.topics.vectors, encoder
        self._avro = AvroEncoder(registry, self._topic, "catalog_vector")
        self._producer = confluent_kafka.Producer({**settings.librdkafka(), "acks": "all", "linger.ms": 5})
        self._items: dict[str, Record] = {}
        self._ads: dict[str, Record] = {}
        self._vectors: dict[tuple[str, str], Record] = {}
        self._numbered: dict[tuple[str, str], Record] = {}
        self._lock = threading.Lock()
        topics = settings.topics
        self._readers = [
            Compacted(settings, topics.items, self._taker(registry, "catalog_item", self._take_item)),
            Compacted(settings, topics.ads, self._taker(registry, "catalog_ad", self._take_ad)),
            Compacted(settings, topics.vectors, self._taker(registry, "catalog_vector", self._take_vector)),
        ]
        if rows_from:
            taker = self._taker(registry, "catalog_vector", self._take_number)
            self._readers.append(Compacted(settings, rows_from, taker))

    def step(self) -> int:
        """Reads all that is there, encodes what is new, and returns how many vectors were published.

        Raises SettingsError where the topic holds vectors of another encoder.
        """
        for reader in self._readers:
            reader.wait_current(READ_TIMEOUT_S)
        with self._lock:
            items, ads = list(self._items.values()), list(self._ads.values())
            known = list((self._numbered | self._vectors).values())
            others = {record["encoder"] for record in self._vectors.values()} - {self._encoder.version}
        if others:
            raise SettingsError(
                f"{self._topic} holds vectors of encoder {min(others)}, not of {self._encoder.version}",
                where="catalog encode", expected="one encoder a topic",
                todo=f"set topics.vectors to another one, and `headrace catalog encode --rows-from {self._topic}`",
            )  # fmt: skip
        vectors = catalogue_vectors(items, ads, self._encoder, known)
        for vector in vectors:
            self._producer.produce(self._topic, self._avro(vector), vector_key(vector))
            self._producer.poll(0)
        if self._producer.flush(30):
            raise ProduceFailed("vectors were not acknowledged", where=self._topic)
        if vectors:
            log.info("%d vectors published", len(vectors), extra={"rows": len(vectors)})
        return len(vectors)

    def follow(self, stop: threading.Event) -> None:
        """Steps until `stop` is set."""
        while not stop.is_set():
            self.step()
            stop.wait(LOOK_S)

    def close(self) -> None:
        with ExitStack() as stack:
            for reader in self._readers:
                stack.callback(reader.stop)

    def _taker(
        self, registry: Registry, contract: str, take: Callable[[Any], None]
    ) -> Callable[[bytes, bytes | None], None]:
        decode = Decoder(registry, contract)

        def apply(key: bytes, value: bytes | None) -> None:
            if value is not None:
                record = decode(value)
                with self._lock:
                    take(record)

        return apply

    def _take_item(self, record: Record) -> None:
        self._items[record["item_id"]] = record

    def _take_ad(self, record: Record) -> None:
        self._ads[record["ad_id"]] = record

    def _take_vector(self, record: Record) -> None:
        self._vectors[record["kind"], record["id"]] = {**record, "vector": b""}

    def _take_number(self, record: Record) -> None:
        self._numbered[record["kind"], record["id"]] = {**record, "vector": b"", "encoder": ""}
