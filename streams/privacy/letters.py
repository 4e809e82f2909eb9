"""Topics of what could not be used or delivered: they hold a person's bytes under keys of any kind, so that no deletion
of a key takes them away. A partition that has some is written again without them, and what was before is cut off.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain

from confluent_kafka import KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.errors import BadRecord
from schemas.registry import Registry
from schemas.varint import long_bytes
from schemas.wire import Decoder
from streams.config import Settings
from streams.deadletters import CHUNK, DONE, letter_bytes, opened
from streams.events import Record
from streams.offsets import bounds, kafka_error, places, read_range
from streams.privacy.sealed_letters import LetterSeals
from streams.transactions import Sent, TransactionalProducer
from streams.webhooks.failures import DONE as POSTED

log = logging.getLogger(__name__)

DEADLETTERS, WEBHOOKS = "deadletters", "webhooks_failed"
LETTERS = (DEADLETTERS, WEBHOOKS)
"""Settings of these topics."""
MARKS = {DEADLETTERS: DONE, WEBHOOKS: POSTED}
TIMEOUT_S = 30.0

Theirs = Callable[[Message], bool]


def letters_of(settings: Settings, registry: Registry, topic: str, *names: str) -> Iterator[Message]:
    """What a topic of LETTERS has of a person who has these names.

    Raises BrokerUnavailable, RegistryUnavailable, SettingsError.
    """
    theirs, name = theirs_on(settings, registry, topic, *names), str(getattr(settings.topics, topic))
    for (_, partition), (low, high) in bounds(settings, places(settings, name)).items():
        for message in _read(settings, name, partition, low, high):
            if message.value() is not None and theirs(message):
                yield message


def theirs_on(settings: Settings, registry: Registry, topic: str, *names: str) -> Theirs:
    """Whether a message of the topic is of the person: a bad event is its key's, and that of a name in its bytes."""
    outer, alert, failure = (Decoder(registry, each) for each in ("dead_letter", "fraud_alert", "webhook_failure"))
    seals, told = LetterSeals(settings), {name.encode() for name in names}
    named = [text for name in names for text in spelled(name)]

    def letter(message: Message) -> bool:
        (record,) = outer.decode_many([message.value()])
        if isinstance(record, BadRecord):
            return False
        if not record["sealed"]:
            return _letter_is_theirs(record, told, named)
        if message.key() in map(seals.name, told):
            return True
        found = opened(seals, record)
        return not found["sealed"] and _letter_is_theirs(found, told, named)

    def undelivered(message: Message) -> bool:
        if not any(name in (message.value() or b"") for name in told):
            return False
        (record,) = failure.decode_many([message.value()])
        if isinstance(record, BadRecord):
            return False
        (inner,) = alert.decode_many([record["alert"]])
        return not isinstance(inner, BadRecord) and inner["user_id"] in names

    return letter if topic == DEADLETTERS else undelivered


def locked(settings: Settings, registry: Registry) -> Iterator[Message]:
    """Dead letters under a key that is not known here: whose they are, nobody can say."""
    decode, seals, name = Decoder(registry, "dead_letter"), LetterSeals(settings), settings.topics.deadletters
    for (_, partition), (low, high) in bounds(settings, places(settings, name)).items():
        for message in _read(settings, name, partition, low, high):
            if message.value() is not None:
                (record,) = decode.decode_many([message.value()])
                if not isinstance(record, BadRecord) and opened(seals, record)["sealed"]:
                    yield message


def spelled(user_id: str) -> tuple[bytes, ...]:
    """How a name stands in bytes of whatever kind, so that it is no part of a longer one: as Avro and as JSON."""
    name = user_id.encode()
    return long_bytes(2 * len(name)) + name, b'"' + name + b'"'


def _letter_is_theirs(record: Record, told: Collection[bytes], named: Iterable[bytes]) -> bool:
    if record["key"] in told:
        return True
    texts = (record["value"] or b"", b"".join(each["value"] or b"" for each in record["headers"]))
    return any(name in text for name in named for text in texts)


def rewrite(settings: Settings, topic: str, partition: int, theirs: Theirs) -> int:
    """Writes a partition of a topic of LETTERS again without these, and without what was brought home; how many stayed.

    What is copied is marked as brought home where it was, in the same transaction: if this ends half-way, nothing is
    there twice. Shuts out whoever brings letters home now. Raises BrokerUnavailable, Fenced, ProduceFailed.
    """
    name, mark = str(getattr(settings.topics, topic)), MARKS[topic]
    producer = TransactionalProducer(
        settings, f"{settings.app_id}-replay", f"the letters of {name}", TIMEOUT_S,
        **{"message.max.bytes": letter_bytes(settings)},
    )  # fmt: skip
    low, high = bounds(settings, [(name, partition)])[name, partition]
    home = {at for message in _read(settings, name, partition, low, high) for at in _marked(message, mark)}
    stayed, chunk = 0, list[Message]()
    for message in _read(settings, name, partition, low, high):
        if message.value() is not None and message.offset() not in home and not theirs(message):
            chunk.append(message)
        if len(chunk) == CHUNK:
            stayed += _copy(producer, name, partition, chunk, mark)
            chunk.clear()
    if chunk:
        stayed += _copy(producer, name, partition, chunk, mark)
    _cut_off(settings, name, partition, high)
    return stayed


def _copy(producer: TransactionalProducer, topic: str, partition: int, chunk: list[Message], mark: str) -> int:
    copies = [Sent(topic, partition, each.key(), each.value(), each.headers() or None) for each in chunk]
    offsets = ",".join(str(each.offset()) for each in chunk)
    producer.send(copies, Sent(topic, partition, None, None, [(mark, offsets.encode())]))
    return len(copies)


def _cut_off(settings: Settings, topic: str, partition: int, before: int) -> None:
    client = AdminClient({**settings.librdkafka(), "logger": log})
    try:
        for future in client.delete_records([TopicPartition(topic, partition, before)]).values():
            future.result()
    except KafkaException as error:
        raise kafka_error(error.args[0], f"{topic}[{partition}]") from error


def _marked(message: Message, mark: str) -> Iterator[int]:
    if message.value() is None:
        for name, content in message.headers() or ():
            if name == mark:
                yield from map(int, content.split(b","))


def _read(settings: Settings, topic: str, partition: int, low: int, high: int) -> Iterator[Message]:
    return chain.from_iterable(read_range(settings, topic, partition, low, high, batch=CHUNK))
