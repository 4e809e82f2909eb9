"""What a mapping reads: a topic from where its group stands, in pieces, with the offsets to commit after each.
No group is joined: one process reads all partitions, and the transaction's id shuts a second one out.
"""

import time
from typing import Any, Literal, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from schemas.errors import BrokerUnavailable, FrontierTooOld, SettingsError
from streams.config import Settings
from streams.history import HISTORY
from streams.offsets import PASSING, TIMEOUT_S, Place, bounds, kafka_error, places, plain_consumer
from streams.raw import RawRecord

Start = Literal["committed", "beginning", "end"]

AT_ONCE = 2_000
NEW_PARTITIONS_S = 30.0


class Item(NamedTuple):
    """A record to map; `value` is set where it is decoded already: a row, or what is wrong with it."""

    raw: RawRecord
    value: Any = None


class Reader(Protocol):
    """After `read`, `read_to` and `group` are what a transaction commits."""

    group: Any

    def read(self, wait_s: float) -> list[Item]:
        """What is there, at most AT_ONCE; waits for the first. Raises BrokerUnavailable, FrontierTooOld."""

    def read_to(self) -> list[TopicPartition]: ...

    @property
    def ended(self) -> bool:
        """Nothing is left of what was there when it began."""

    @property
    def done(self) -> tuple[int, int]:
        """Records read of this source, also before this start, and all that there are."""

    @property
    def lag(self) -> int:
        """Records that are there now and not read, as far as it knows."""

    def close(self) -> None: ...


class TopicReader:
    """`ended` when the offsets at which the topic ended at the start are reached; it goes on all the same."""

    def __init__(
        self, settings: Settings, topic: str, group: str, start: Start = "committed", *, history: bool = False
    ) -> None:
        """A group that never committed begins at the end, or at the beginning to take in `history`; `start` overrules
        what it committed.

        Where it begins is the caller's to commit, with `read_to`, before the first record. Raises SettingsError,
        also for history after the group has read live, BrokerUnavailable, FrontierTooOld.
        """
        self._settings, self._topic = settings, topic
        self._note = HISTORY if history else ""
        self._bounds = bounds(settings, places(settings, topic))
        self._consumer = plain_consumer(settings, group)
        known = self._committed(group)
        self._next: dict[Place, int] = {}
        for place, (low, high) in self._bounds.items():
            first = low if history else high
            stood = {"committed": known.get(place, first), "beginning": low, "end": high}[start]
            self._next[place] = _checked(place, stood, low, high)
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in self._next.items()])
        self.group = self._consumer.consumer_group_metadata()
        self._looked = time.monotonic()

    def read(self, wait_s: float) -> list[Item]:
        self._look_for_new_partitions()
        first = self._consumer.poll(wait_s)
        if first is None:
            return []
        items = []
        for message in [first, *self._consumer.consume(AT_ONCE - 1, 0)]:
            error, place = message.error(), (message.topic(), message.partition())
            if error is None:
                items.append(Item(RawRecord.of(message)))
                self._next[place] = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self._next[place] = max(self._next[place], message.offset())
            else:
                self._refused(error)
        return items

    def read_to(self) -> list[TopicPartition]:
        return [TopicPartition(*place, offset, self._note) for place, offset in self._next.items()]

    @property
    def ended(self) -> bool:
        return all(self._next[place] >= high for place, (_, high) in self._bounds.items())

    @property
    def done(self) -> tuple[int, int]:
        read = sum(min(self._next[place], high) - low for place, (low, high) in self._bounds.items())
        return read, sum(high - low for low, high in self._bounds.values())

    @property
    def lag(self) -> int:
        return sum(max(0, self._end(place) - stood) for place, stood in self._next.items())

    def close(self) -> None:
        self._consumer.close()

    def _end(self, place: Place) -> int:
        """As the newest answer said, without another question; before there is one, as at the start."""
        _, high = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
        return max(int(high), self._bounds[place][1] if place in self._bounds else 0)

    def _committed(self, group: str) -> dict[Place, int]:
        try:
            found = self._consumer.committed([TopicPartition(*place) for place in self._bounds], timeout=TIMEOUT_S)
        except KafkaException as error:
            raise kafka_error(error.args[0], f"group {group}") from error
        stood = [each for each in found if each.offset >= 0]
        if self._note and any(each.metadata != self._note for each in stood):
            raise SettingsError(
                "this mapping has been followed already: what comes before where it began cannot be taken in any more",
                where=f"group {group}",
                expected="`headrace backfill` first, then `headrace mapping run`",
            )
        return {(each.topic, each.partition): each.offset for each in stood}

    def _refused(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise FrontierTooOld(f"records were deleted before they were read: {error.str()}", where=self._topic)
        if error.code() not in PASSING and not error.retriable():
            raise kafka_error(error, self._topic)

    def _look_for_new_partitions(self) -> None:
        """A topic that has grown is read whole: its new partitions from their beginning."""
        if time.monotonic() - self._looked < NEW_PARTITIONS_S:
            return
        self._looked = time.monotonic()
        try:
            new = [place for place in places(self._settings, self._topic) if place not in self._next]
            found = bounds(self._settings, new)
        except BrokerUnavailable:
            return
        self._next |= {place: low for place, (low, _) in found.items()}
        if found:
            self._consumer.incremental_assign([TopicPartition(*place, low) for place, (low, _) in found.items()])


def _checked(place: Place, stood: int, low: int, high: int) -> int:
    where = f"{place[0]}[{place[1]}]"
    if stood < low:
        raise FrontierTooOld(
            f"it was read to offset {stood}, and the log begins at {low}: {low - stood} offsets are gone",
            where=where,
            todo="`--start beginning` goes on with what is left",
        )
    return min(stood, high)
