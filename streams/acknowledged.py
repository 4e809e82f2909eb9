"""Single records onto topics that people and services write now and then: said when all replicas have them, not before.
What is said many times a second goes through streams.producer.
"""

import logging
import threading
from collections.abc import Sequence

import confluent_kafka

from schemas.errors import BrokerUnavailable, ProduceFailed
from streams.config import Settings

log = logging.getLogger(__name__)

TIMEOUT_S = 15.0
BY_KEY = -1


class AcknowledgedWriter:
    """Safe from any thread, one record at a time. Connects with the first."""

    def __init__(self, settings: Settings, topic: str, timeout_s: float = TIMEOUT_S) -> None:
        self._settings, self._topic, self._timeout = settings, topic, timeout_s
        self._lock = threading.Lock()
        self._producer: confluent_kafka.Producer | None = None

    def send(
        self,
        key: bytes | None,
        value: bytes | None,
        partition: int = BY_KEY,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Returns when the broker has it. Raises ProduceFailed, or BrokerUnavailable: then it is not said later either,
        unless it was on its way already.
        """
        refused: list[confluent_kafka.KafkaError] = []
        with self._lock:
            producer = self._connected()
            producer.produce(
                self._topic, value, key, partition,
                on_delivery=lambda error, _: refused.append(error) if error else None, headers=list(headers),
            )  # fmt: skip
            if producer.flush(self._timeout):
                producer.purge()
                raise BrokerUnavailable(f"no answer in {self._timeout:.0f} s", where=self._topic)
        if refused:
            raise ProduceFailed(refused[0].str(), where=self._topic)

    def _connected(self) -> confluent_kafka.Producer:
        if self._producer is None:
            conf = {"acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 0}
            conf |= {"client.id": self._settings.app_id, **self._settings.librdkafka()}
            self._producer = confluent_kafka.Producer(conf, logger=log)
        return self._producer
