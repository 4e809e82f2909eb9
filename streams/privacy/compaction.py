"""Makes deletions on topics take effect now: a topic is compacted on demand, and is then as it was before.
Kafka deletes single records in no other way. Where nobody is forgotten, nothing is compacted that was not before.

For as long as it takes, a topic has short segments and a cleaner that does not wait; what is kept by time is compacted
as well. Of records of one key the newest stays: of what was said twice after a crash, the second.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    ResourceType,
)

from schemas.errors import BrokerUnavailable
from streams.config import Settings
from streams.offsets import PASSING, Place, kafka_error, plain_consumer
from streams.topics import topic_specs

log = logging.getLogger(__name__)

POLICY = "cleanup.policy"
LAG_MS = "5009"  # no round number: it tells a topic that a killed run has left so
EAGER = {
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": LAG_MS,
    "min.cleanable.dirty.ratio": "0.001",
    "delete.retention.ms": "1000",
}
NUDGE = b"headrace:nudge"
"""Key of a deletion of nothing: a segment closes when something comes after its time."""
NUDGE_S = 2.0
TIMEOUT_S = 30.0
GAP = 2_000  # offsets no further apart are read in one stretch

Offsets = Mapping[Place, Iterable[int]]


def compact(
    settings: Settings,
    offsets: Offsets,
    wait_s: float,
    left: Callable[[int], object] = lambda count: None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[Place, set[int]]:
    """Returns when nothing is at these offsets any more, or after `wait_s` seconds; what is still there then.

    `left` hears how many there are. Raises BrokerUnavailable, SettingsError (no right to alter a topic).
    """
    there = still_there(settings, offsets)
    if not there:
        return {}
    deadline = clock() + wait_s
    producer = confluent_kafka.Producer({**settings.librdkafka(), "enable.idempotence": True, "logger": log})
    with eager(settings, {topic for topic, _ in there}):
        while there and clock() < deadline:
            left(sum(map(len, there.values())))
            for topic, partition in there:
                producer.produce(topic, None, NUDGE, partition)
            producer.flush(TIMEOUT_S)
            time.sleep(NUDGE_S)
            there = still_there(settings, there)
    return there


@contextmanager
def eager(settings: Settings, topics: Iterable[str]) -> Iterator[None]:
    """The topics are compacted at once; at the end they are configured as before."""
    client = AdminClient({**settings.librdkafka(), "logger": log})
    before = {topic: _configured(settings, client, topic) for topic in topics}
    try:
        for topic, config in before.items():
            _alter(client, topic, {**EAGER, POLICY: _compacting(config[POLICY])})
        yield
    finally:
        for topic, config in before.items():
            _alter(client, topic, config)


def configuration(settings: Settings, topic: str) -> dict[str, str]:
    """All of a topic's, the broker's defaults included. Raises BrokerUnavailable, SettingsError."""
    client = AdminClient({**settings.librdkafka(), "logger": log})
    found = _done(client.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]), topic)
    return {name: str(entry.value) for name, entry in found.items()}


def _compacting(policy: str | None) -> str:
    return policy if policy and "compact" in policy else "compact,delete"


def _configured(settings: Settings, client: AdminClient, topic: str) -> dict[str, str | None]:
    """What is set on the topic itself; None: nothing is. As planned where a killed run has left it eager."""
    own = _own(client, topic)
    if own["max.compaction.lag.ms"] == LAG_MS:
        planned = next((spec.config for spec in topic_specs(settings) if spec.name == topic), {})
        own = {name: planned.get(name) for name in own}
    return own


def _own(client: AdminClient, topic: str) -> dict[str, str | None]:
    found = _done(client.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]), topic)
    return {
        name: entry.value if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value else None
        for name, entry in found.items()
        if name in EAGER or name == POLICY
    }


def _alter(client: AdminClient, topic: str, config: Mapping[str, str | None]) -> None:
    """Returns when it is so: brokers learn of it a moment after the answer."""
    entries = [
        ConfigEntry(
            name,
            value or "",
            incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
        )
        for name, value in config.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    _done(client.incremental_alter_configs([resource]), topic)
    deadline = time.monotonic() + TIMEOUT_S
    while _own(client, topic) != config and time.monotonic() < deadline:
        time.sleep(0.1)


def _done(futures: Mapping[object, object], topic: str) -> Mapping[str, ConfigEntry]:
    (future,) = futures.values()
    try:
        return future.result(TIMEOUT_S) or {}  # type: ignore[attr-defined]  # confluent-kafka says no types
    except KafkaException as error:
        raise kafka_error(error.args[0], f"the configuration of {topic}") from error


def still_there(settings: Settings, offsets: Offsets) -> dict[Place, set[int]]:
    """Those of the offsets at which there is a record, be it a deletion."""
    found: dict[Place, set[int]] = {}
    with closing(plain_consumer(settings, conf={"auto.offset.reset": "earliest"})) as consumer:
        for place, wanted in offsets.items():
            left = set(wanted)
            there = {at for start, end in _stretches(sorted(left)) for at in _at(consumer, place, start, end) & left}
            if there:
                found[place] = there
    return found


def _stretches(ordered: list[int]) -> Iterator[tuple[int, int]]:
    """(start, end) of stretches that hold the offsets; `end` is the last one."""
    for number, at in enumerate(ordered):
        if number == 0 or at - ordered[number - 1] > GAP:
            start = at
        if number == len(ordered) - 1 or ordered[number + 1] - at > GAP:
            yield start, at


def _at(consumer: confluent_kafka.Consumer, place: Place, start: int, end: int) -> set[int]:
    consumer.assign([TopicPartition(*place, start)])
    found, deadline = set[int](), time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for message in consumer.consume(1_000, 0.1):
            if (error := message.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    return found
                if error.code() not in PASSING and not error.retriable():
                    raise kafka_error(error, str(place))
                continue
            if message.offset() > end:
                return found
            found.add(message.offset())
            if message.offset() == end:
                return found
    raise BrokerUnavailable(f"nothing arrived for {TIMEOUT_S:.0f} s", where=f"{place[0]}[{place[1]}] at {start}")
