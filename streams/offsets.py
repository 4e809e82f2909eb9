"""Where a log begins, ends and was read to, and any stretch of it: the questions that recovery asks of Kafka.
Plain consumers only: nothing here joins a group, and nothing here commits.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.errors import BrokerUnavailable, FrontierTooOld, HeadraceError, SettingsError, StateError
from streams.config import Settings

Place = tuple[str, int]  # topic, partition
Answer = TypeVar("Answer")

log = logging.getLogger(__name__)

TIMEOUT_S = 15.0
BATCH = 10_000
SETTINGS_ERRORS = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError._INVALID_ARG,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)


def kafka_error(error: KafkaError, where: str) -> HeadraceError:
    """The project's word for a librdkafka error about `where`: a wrong setting, or a broker to wait for."""
    said = f"Kafka says: {error.str()} ({error.name()})"
    if error.code() in SETTINGS_ERRORS:
        return SettingsError(
            said,
            where=where,
            expected="topics that exist and a user that may read and write them",
            todo="run `headrace topics create`, or look at `brokers`, `topics` and `security`",
        )
    return BrokerUnavailable(said, where=where, todo="look at the broker; this is retried")


def plain_consumer(settings: Settings, group: str = "", conf: Mapping[str, Any] | None = None) -> Consumer:
    """A consumer to `assign`, tuned to read much at a time: a queue of 16 MB and no more."""
    return Consumer(
        {
            **settings.librdkafka(),
            # librdkafka wants a group even where none is joined.
            "group.id": group or f"{settings.app_id}-reader",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            # The end of a log is known only by an empty answer: do not wait long for it.
            "fetch.wait.max.ms": 20,
            # Full queues are looked at again soon: the default, a second, would be most of a restore.
            "fetch.queue.backoff.ms": 5,
            "queued.min.messages": 20_000,
            "queued.max.messages.kbytes": 16_384,
            "fetch.message.max.bytes": 2_097_152,
            "fetch.max.bytes": 8_388_608,
            "reconnect.backoff.max.ms": 1_000,
            "logger": log,
            **(conf or {}),
        }
    )


def places(settings: Settings, topic: str) -> list[Place]:
    """A topic's partitions. SettingsError if it does not exist."""
    with closing(plain_consumer(settings)) as consumer:
        found = _asked(lambda seconds: consumer.list_topics(topic, timeout=seconds), topic).topics[topic]
    if found.error is not None:
        raise kafka_error(found.error, topic)
    return [(topic, partition) for partition in sorted(found.partitions)]


def committed(settings: Settings, group: str, places: Iterable[Place]) -> dict[Place, int]:
    """The next offset to read of each place as `group` committed it; a place without a commit is left out."""
    wanted = [TopicPartition(topic, partition) for topic, partition in places]
    if not wanted:
        return {}
    with closing(plain_consumer(settings, group)) as consumer:
        found = _asked(lambda seconds: consumer.committed(wanted, timeout=seconds), f"group {group}")
    for item in found:
        if item.error:
            raise kafka_error(item.error, f"group {group}, {item.topic}[{item.partition}]")
    return {(item.topic, item.partition): item.offset for item in found if item.offset >= 0}


def bounds(settings: Settings, places: Iterable[Place], timeout_s: float | None = None) -> dict[Place, tuple[int, int]]:
    """First offset and end (the offset after the last committed record) of each place.

    A transaction that is still open counts as not there: the end is where a read_committed reader stops. The
    mark that closes one may come a moment after its writer was told that it is committed.
    """
    with closing(plain_consumer(settings)) as consumer:
        return {place: _bounds(consumer, place, timeout_s) for place in places}


def _bounds(consumer: Consumer, place: Place, timeout_s: float | None) -> tuple[int, int]:
    asked = TopicPartition(*place)
    low, high = _asked(
        lambda seconds: consumer.get_watermark_offsets(asked, timeout=seconds),
        "{}[{}]".format(*place),
        timeout_s,
    )
    return int(low), int(high)


def _asked(ask: Callable[[float], Answer | None], where: str, timeout_s: float | None = None) -> Answer:
    """What the broker answers to `ask(seconds)`, asked again while it only says that it is not ready.

    Raises SettingsError, or BrokerUnavailable after `timeout_s` (TIMEOUT_S).
    """
    patience = TIMEOUT_S if timeout_s is None else timeout_s
    deadline = time.monotonic() + patience
    refusal: HeadraceError | None = None
    while (left := deadline - time.monotonic()) > 0:
        try:
            answer = ask(left)
        except KafkaException as error:
            refusal = kafka_error(error.args[0], where)
            if not refusal.retriable:
                raise refusal from error
            time.sleep(min(0.1, left))
        else:
            if answer is not None:
                return answer
    raise refusal or BrokerUnavailable(f"no answer in {patience:.1f} s", where=where, todo="look at the broker")


def offsets_at(settings: Settings, topic: str, time_ms: int) -> dict[int, int]:
    """By partition, the offset of the first record that the broker has since a UTC ms; the end where there is none."""
    found = places(settings, topic)
    asked = [TopicPartition(*place, time_ms) for place in found]
    ends = bounds(settings, found)
    with closing(plain_consumer(settings)) as consumer:
        told = _asked(lambda seconds: consumer.offsets_for_times(asked, timeout=seconds), topic)
    return {each.partition: each.offset if each.offset >= 0 else ends[topic, each.partition][1] for each in told}


def read_range(
    settings: Settings,
    topic: str,
    partition: int,
    start: int,
    end: int,
    *,
    batch: int = BATCH,
    stall_s: float = 30.0,
) -> Iterator[list[Message]]:
    """Batches, of at most `batch`, of the committed records of offsets start <= o < end, in order.

    Compaction may have left gaps.

    FrontierTooOld if the log begins after `start`, StateError if it ends before it (another log);
    both before the first batch is asked for. BrokerUnavailable if nothing arrives for `stall_s` seconds.
    """
    low, high = bounds(settings, [(topic, partition)])[topic, partition]
    check_start(topic, partition, start, low, high)
    return _batches(settings, topic, partition, start, end, batch, stall_s) if start < end else iter(())


def check_start(topic: str, partition: int, start: int, low: int, high: int) -> None:
    """Raises what `read_range` raises where a log of offsets low to high does not hold `start`."""
    where = f"{topic}[{partition}]"
    if start < low:
        raise FrontierTooOld(
            f"the saved state stands at offset {start}, and the log begins at {low}",
            where=where,
            expected="a retention longer than the longest stop of the workers",
            todo="docs/operate.md, FrontierTooOld, tells how to rebuild the state from what is left",
        )
    if start > high:
        raise StateError(
            f"the saved state stands at offset {start}, and the log ends at {high}",
            where=where,
            expected="the log that the state was made from",
            todo="if the topic was made anew, make the state topic anew as well",
        )


def _batches(
    settings: Settings, topic: str, partition: int, start: int, end: int, batch: int, stall_s: float
) -> Iterator[list[Message]]:
    where, position, heard = f"{topic}[{partition}]", start, time.monotonic()
    with closing(plain_consumer(settings)) as consumer:
        consumer.assign([TopicPartition(topic, partition, start)])
        while position < end:
            records, position = _records(consumer.consume(batch, 0.05), position, end, where)
            if records:
                heard = time.monotonic()
                yield records
            elif time.monotonic() - heard > stall_s:
                raise BrokerUnavailable(
                    f"nothing arrived for {stall_s:.0f} s at offset {position} of {end}", where=where
                )


def _records(messages: Sequence[Message], position: int, end: int, where: str) -> tuple[list[Message], int]:
    """The records before `end` among what arrived, and the next offset to expect.

    The end of the log also moves the position: the last offsets may be transaction marks, or compacted away.
    """
    records: list[Message] = []
    for message in messages:
        error = message.error()
        if error is None:
            position = message.offset() + 1
            if position > end:
                break
            records.append(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            position = max(position, message.offset())
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise FrontierTooOld(f"offset {position} was deleted while it was read", where=where)
        elif not error.retriable() and error.code() not in PASSING:
            raise kafka_error(error, where)
    return records, position


# What librdkafka mends by itself while a consumer goes on.
PASSING = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT})


def newest_by_key(settings: Settings, topic: str, partition: int = 0) -> dict[bytes, bytes]:
    """The newest value of each key of one partition, in the order in which they were said; without what was deleted.

    Raises what `read_range` raises.
    """
    low, high = bounds(settings, [(topic, partition)])[topic, partition]
    newest: dict[bytes, bytes] = {}
    for messages in read_range(settings, topic, partition, low, high):
        for message in messages:
            key, value = message.key() or b"", message.value()
            newest.pop(key, None)
            if value is not None:
                newest[key] = value
    return newest


def topic_id(settings: Settings, topic: str) -> str:
    """Kafka's own id of a topic: one made anew under the same name has another. Fit to name local copies."""
    admin = AdminClient({**settings.librdkafka(), "logger": log})
    names = TopicCollection([topic])
    found = _asked(lambda seconds: admin.describe_topics(names, request_timeout=seconds)[topic].result(), topic)
    return str(found.topic_id)
