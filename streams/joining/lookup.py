"""Reads single records of `served` by their offsets, for the features of what has been labelled.
Offsets that lie close together are read as one stretch: windows close in the order of offsets.
"""

import time
from collections.abc import Iterable, Iterator, Sequence

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from schemas.errors import BrokerUnavailable
from streams.config import Settings
from streams.offsets import PASSING, kafka_error, plain_consumer

#: Two offsets no further apart than this are read in one stretch: a jump costs as much as reading some hundred.
GAP = 500
STALL_S = 30.0
BATCH = 1_000


class ServedReader:
    """Used from one thread."""

    def __init__(self, settings: Settings) -> None:
        self._consumer: Consumer = plain_consumer(
            settings, conf={"queued.min.messages": 1_000, "auto.offset.reset": "earliest"}
        )

    def read(self, topic: str, partition: int, offsets: Iterable[int]) -> dict[int, bytes]:
        """The values at these offsets. One that is not there, as retention has deleted it, is left out.

        Raises BrokerUnavailable, SettingsError (no such topic).
        """
        found: dict[int, bytes] = {}
        for start, end, wanted in stretches(sorted(set(offsets))):
            for message in self._stretch(topic, partition, start, end):
                if message.offset() in wanted and message.value() is not None:
                    found[message.offset()] = message.value()
        return found

    def close(self) -> None:
        self._consumer.close()

    def _stretch(self, topic: str, partition: int, start: int, end: int) -> Iterator[Message]:
        """The records of start <= offset < end that are still there."""
        self._consumer.assign([TopicPartition(topic, partition, start)])
        deadline = time.monotonic() + STALL_S
        while time.monotonic() < deadline:
            for message in self._consumer.consume(BATCH, 0.1):
                if (error := message.error()) is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        return  # the log ends here, whatever was asked for
                    if error.code() not in PASSING and not error.retriable():
                        raise kafka_error(error, f"{topic}[{partition}]")
                    continue
                if message.offset() >= end:
                    return
                yield message
                if message.offset() == end - 1:
                    return
        raise BrokerUnavailable(f"nothing arrived for {STALL_S:.0f} s", where=f"{topic}[{partition}] at {start}")


def stretches(offsets: Sequence[int]) -> Iterator[tuple[int, int, frozenset[int]]]:
    """(start, end, offsets wanted) of stretches that hold ascending offsets; `end` is exclusive."""
    held: list[int] = []
    for offset in offsets:
        if held and offset - held[-1] > GAP:
            yield held[0], held[-1] + 1, frozenset(held)
            held = []
        held.append(offset)
    if held:
        yield held[0], held[-1] + 1, frozenset(held)
