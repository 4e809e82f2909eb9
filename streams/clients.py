"""kafka-python's producer and consumer as the commands use them: connected at once or refused in one line.
The worker's own traffic does not pass here; it uses the batch transport and librdkafka."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from confluent_kafka import KafkaError as ConfluentError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from schemas.errors import BrokerUnavailable, HeadraceError, SettingsError
from streams.config import Settings
from streams.ports import accepts

BOOTSTRAP_MS = 5_000
ANSWER_S = 3
NO_BROKER = "start one with `headrace broker start`, or set HEADRACE_BROKERS"


def require_broker(settings: Settings) -> None:
    """BrokerUnavailable where nobody listens, SettingsError where security is asked for and we are not let in.

    At once: the clients would go on trying for many seconds, and kafka-python would not say why.
    """
    if not any(accepts(address) for address in settings.brokers.split(",")):
        raise BrokerUnavailable("no broker listens", where=settings.brokers, todo=NO_BROKER)
    if settings.security.tls or settings.security.sasl:
        _require_admittance(settings)


def _require_admittance(settings: Settings) -> None:
    heard: list[ConfluentError] = []
    client = AdminClient({**settings.librdkafka(), "error_cb": heard.append, "log_level": 0})
    with suppress(KafkaException):  # silence is the next one's to find out
        client.list_topics(timeout=ANSWER_S)
    client.poll(0)
    for error in heard:
        if error.code() in (ConfluentError._AUTHENTICATION, ConfluentError._SSL):
            raise SettingsError(
                f"the broker does not let us in: {error.str()}",
                where=f"{settings.brokers}, security.*",
                expected="protocol, username, password and ca_file that it accepts",
            )


@contextmanager
def producer(settings: Settings) -> Iterator[KafkaProducer]:
    """Acknowledged by all replicas, idempotent, keys placed by murmur2 as Java clients place them."""
    with connected(settings) as conf:
        client = KafkaProducer(
            **conf,
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            linger_ms=20,
            batch_size=131_072,
            max_request_size=settings.max_message_bytes + 65_536,
            max_block_ms=BOOTSTRAP_MS,
            delivery_timeout_ms=60_000,
        )
        try:
            yield client
        finally:
            with suppress(KafkaTimeoutError):  # what was not acknowledged by now was said by who sent it
                client.close(timeout=5)


@contextmanager
def consumer(settings: Settings) -> Iterator[KafkaConsumer]:
    """One to `assign`: it joins no group and commits nothing, and does not see what was aborted."""
    with connected(settings) as conf:
        client = KafkaConsumer(
            **conf, enable_auto_commit=False, isolation_level="read_committed", allow_auto_create_topics=False
        )
        try:
            yield client
        finally:
            client.close(autocommit=False)


def partitions(settings: Settings, client: KafkaConsumer, topic: str) -> list[int]:
    """The numbers of the topic's partitions. SettingsError where there is no such topic."""
    numbers = client.partitions_for_topic(topic)
    if not numbers:
        raise SettingsError(
            f"topic {topic} does not exist", where=settings.brokers, todo="run `headrace topics create`"
        )
    return sorted(numbers)


@contextmanager
def connected(settings: Settings) -> Iterator[dict[str, Any]]:
    """What every client of kafka-python is made with; its errors within the block leave it as ours."""
    require_broker(settings)
    try:
        yield {
            **settings.kafka_python(),
            "client_id": f"{settings.app_id}-cli",
            "bootstrap_timeout_ms": BOOTSTRAP_MS,
        }
    except KafkaError as error:
        raise kafka_python_error(error, settings.brokers) from error


def kafka_python_error(error: KafkaError, where: str) -> HeadraceError:
    """The project's word for an error of kafka-python."""
    said = str(error) or type(error).__name__
    if getattr(error, "retriable", False):
        return BrokerUnavailable(
            f"something listens there, but Kafka does not answer: {said}",
            where=where,
            expected="a Kafka broker that speaks `security.protocol`",
            todo="look at the broker's log",
        )
    return SettingsError(f"the broker refused: {said}", where=where, expected="rights and settings that it accepts")
