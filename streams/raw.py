"""A record as the broker has it, before anything is known of what it says."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from confluent_kafka import Message


class RawRecord(NamedTuple):
    """`timestamp`: UTC ms, the broker's or the client's."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()

    @classmethod
    def of(cls, message: Message) -> Self:
        """A message that is no error."""
        topic, partition, offset, timestamp = (
            message.topic(),
            message.partition(),
            message.offset(),
            message.timestamp(),
        )
        return cls(topic, partition, offset, timestamp[1], message.key(), message.value(), message.headers() or ())
