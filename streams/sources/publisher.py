"""Events to Kafka as any client would send them: registered Avro, keyed and placed as Java clients do,
acknowledged by all. Messages carry the broker's or this client's present time, never the event's: an old data
set is not late.
"""

from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import BrokerUnavailable, ProduceFailed, SettingsError
from schemas.registry import Registry
from schemas.wire import Encoder
from streams.config import Settings
from streams.contracts import CONTRACTS, KEYS
from streams.ports import accepts
from streams.sources.records import Record
from streams.sources.telling import Timed

SOURCE_HEADER = "headrace-source"
REPLAYED_HEADER = "headrace-replayed"
"""The worker holds no deadline against an event that carries it."""
REACH_S = 10.0
DELIVERY_MS = 60_000
FULL_QUEUE_WAIT_S = 0.05
NO_BROKER = "start one with `headrace broker start`, or set HEADRACE_BROKERS"


class Message(NamedTuple):
    """Encoded, ready to send."""

    topic: str
    key: bytes
    value: bytes


class Publisher:
    """Sends events; a `with` block ends when all are acknowledged. Used from one thread.

    `source` goes with every message as the header headrace-source; `replayed` marks all as an old data set,
    sent faster than they can be scored in time, which is never late. Making one checks that the broker
    answers and that the event topics are there: BrokerUnavailable, SettingsError. The first refused event
    raises ProduceFailed, from the call that notices.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        *,
        source: str = "",
        replayed: bool = False,
        linger_ms: float = 5,
    ) -> None:
        self._settings, self._registry = settings, registry
        self._topics: dict[str, str] = {setting: getattr(settings.topics, setting) for setting in KEYS}
        self._encoders: dict[str, Encoder] = {}
        self._headers = [(SOURCE_HEADER, source.encode())] if source else []
        self._headers += [(REPLAYED_HEADER, b"1")] if replayed else []
        self._refused: KafkaError | None = None
        self.sent: Counter[str] = Counter()
        self.acknowledged = 0
        self._client = confluent_kafka.Producer(_configuration(settings, linger_ms))
        self._reach()

    def encode(self, event: Timed) -> Message:
        """Raises BadRecord for a record that is not of its contract, RegistryUnavailable the first time."""
        return self.encode_record(event.topic, event.record)

    def encode_record(self, setting: str, record: Record) -> Message:
        """`setting` names a topic: clicks, orders, impressions, labels, items or ads."""
        encoder = self._encoders.get(setting)
        if encoder is None:
            encoder = Encoder(self._registry, self._topics[setting], CONTRACTS[setting])
            self._encoders[setting] = encoder
        return Message(self._topics[setting], record[KEYS[setting]].encode(), encoder(record))

    def send(self, message: Message) -> None:
        """Queues a message; waits only where the client's own queue is full."""
        while True:
            try:
                self._client.produce(
                    message.topic, message.value, message.key, -1, self._report, headers=self._headers or None
                )
                break
            except BufferError:
                self._client.poll(FULL_QUEUE_WAIT_S)
            except KafkaException as error:
                self._refused = error.args[0]
                break
        self.sent[message.topic] += 1
        self.serve()

    def publish(self, event: Timed) -> None:
        self.send(self.encode(event))

    def serve(self, wait_s: float = 0.0) -> None:
        """Hears acknowledgements. Raises ProduceFailed."""
        self._client.poll(wait_s)
        if self._refused is not None:
            raise ProduceFailed(
                f"an event was not accepted: {self._refused.str()}",
                where=self._settings.brokers,
                todo="look at the topic and the broker; `headrace topics create` makes the topics",
            )

    def flush(self) -> None:
        """Returns when all is acknowledged. Raises ProduceFailed."""
        while len(self._client):
            self.serve(0.1)
        self.serve()

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.flush()
        else:
            self._client.purge()

    def _report(self, error: KafkaError | None, message: confluent_kafka.Message) -> None:
        if error is None:
            self.acknowledged += 1
        elif self._refused is None:
            self._refused = error

    def _reach(self) -> None:
        if not any(accepts(address) for address in self._settings.brokers.split(",")):
            raise BrokerUnavailable("no broker listens", where=self._settings.brokers, todo=NO_BROKER)
        try:
            topics = self._client.list_topics(timeout=REACH_S).topics
        except KafkaException as error:
            raise BrokerUnavailable(
                f"the broker does not answer: {error.args[0].str()}",
                where=self._settings.brokers,
                todo=NO_BROKER,
            ) from error
        if missing := sorted(set(self._topics.values()) - set(topics)):
            raise SettingsError(
                f"no topic {', '.join(missing)}",
                where=self._settings.brokers,
                todo="`headrace topics create` makes them",
            )


def _configuration(settings: Settings, linger_ms: float) -> Mapping[str, object]:
    return {
        **settings.librdkafka(),
        "client.id": f"{settings.app_id}-source",
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "linger.ms": linger_ms,
        "message.timeout.ms": DELIVERY_MS,
        "message.max.bytes": settings.max_message_bytes,
        "queue.buffering.max.messages": 500_000,
        "queue.buffering.max.kbytes": 262_144,
        "log_level": 2,
    }
