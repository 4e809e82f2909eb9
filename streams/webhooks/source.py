"""The alerts of one endpoint: a consumer group of its own, and a commit of what is finished and of nothing else.
aiokafka's consumer as it is: alerts are few, and its loop is the one that posts.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from schemas.errors import BadRecord, BrokerUnavailable, HeadraceError, RegistryUnavailable, SettingsError
from schemas.reading import Record
from schemas.wire import Decoder
from streams.config import Settings
from streams.patience import RETRY_S
from streams.webhooks.ledger import Ledger
from streams.webhooks.schedule import Place

log = logging.getLogger(__name__)

WAIT_MS = 300
NEVER_MS = 2**31 - 1  # an endpoint that is full is not asked for more, and stays a member


class Taken(NamedTuple):
    """A message of the topic: its alert, what is wrong with it, or None where it is a deletion."""

    place: Place
    appended_ms: int
    value: bytes
    alert: Record | BadRecord | None


class Source:
    """Used from one event loop. Its calls raise BrokerUnavailable or SettingsError; then make another one."""

    def __init__(self, settings: Settings, group: str, decode: Decoder, leaving: Callable[[], Awaitable[None]]) -> None:
        """`leaving` is awaited before partitions go: afterwards nothing that was taken may be finished any more."""
        self._decode, self._leaving, self._topic = decode, leaving, settings.topics.alerts
        self._where = f"{self._topic}, group {group}"
        self._ledgers: dict[TopicPartition, Ledger] = {}
        self._committed: dict[TopicPartition, tuple[int, str]] = {}
        self._going = False
        self._consumer = AIOKafkaConsumer(
            **settings.aiokafka(),
            client_id=group,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # where retention was shorter than a stop; a new group begins at the end
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(settings.session_timeout_s * 100),
            max_poll_interval_ms=NEVER_MS,
        )

    async def start(self) -> None:
        self._consumer.subscribe([self._topic], listener=_Listener(self._revoked))
        await self._asked(self._consumer.start())

    async def stop(self) -> None:
        """Leaves the group. What is to be committed was."""
        await self._consumer.stop()

    @property
    def partitions(self) -> int:
        """Those that are read; 0 until all that we were assigned are."""
        return len(self._ledgers) if self._ledgers.keys() == self._consumer.assignment() else 0

    async def take(self, most: int) -> list[Taken]:
        """What has arrived, after a moment at most. All of it is to be `finished`."""
        await self._open()
        if not self._ledgers:
            await asyncio.sleep(WAIT_MS / 1000)
            return []
        partitions = list(self._ledgers)
        fetched = await self._asked(self._consumer.getmany(*partitions, timeout_ms=WAIT_MS, max_records=most))
        messages, ledgers = [message for batch in fetched.values() for message in batch], dict(self._ledgers)
        alerts = await self._decoded([message.value for message in messages])
        taken = []
        for message, alert in zip(messages, alerts, strict=True):
            tp = TopicPartition(message.topic, message.partition)
            if self._going or self._ledgers.get(tp) is not ledgers[tp]:  # who has it next reads it again
                continue
            if ledgers[tp].opened(message.offset):
                place = (message.topic, message.partition, message.offset)
                found = alert if message.value is not None else None
                taken.append(Taken(place, message.timestamp, message.value or b"", found))
        return taken

    def finished(self, place: Place) -> None:
        topic, partition, offset = place
        if (ledger := self._ledgers.get(TopicPartition(topic, partition))) is not None:
            ledger.finished(offset)

    async def commit(self) -> None:
        """What is finished now, if it is more than before."""
        wanted = {tp: ledger.committable() for tp, ledger in self._ledgers.items()}
        changed = {tp: at for tp, at in wanted.items() if self._committed.get(tp) != at}
        if not changed:
            return
        try:
            await self._consumer.commit(changed)
        except (CommitFailedError, IllegalStateError) as error:  # others have the partitions, and post it again
            log.info("%s: not committed: %s", self._where, error)
        except KafkaError as error:
            raise kafka_error(error, self._where) from error
        else:
            self._committed.update(changed)

    async def lag(self) -> int:
        """Alerts on the topic, of the partitions that are read, that are not finished; gaps count as not."""
        if not self._ledgers:
            return 0
        ends: dict[Any, int] = await self._asked(self._consumer.end_offsets(list(self._ledgers)))
        return sum(max(0, end - self._ledgers[tp].committable()[0]) for tp, end in ends.items() if tp in self._ledgers)

    async def _open(self) -> None:
        """New partitions, from where the group stands; a group that is new stands at the end."""
        for tp in self._consumer.assignment() - self._ledgers.keys():
            try:
                found = await self._consumer._coordinator.fetch_committed_offsets([tp])
                position, metadata = (found[tp].offset, found[tp].metadata) if tp in found else (-1, "")
                if position < 0:
                    await self._consumer.seek_to_end(tp)
                    position = await self._consumer.position(tp)
                    await self._consumer.commit({tp: position})
            except (IllegalStateError, CommitFailedError):  # it went meanwhile
                continue
            except KafkaError as error:
                raise kafka_error(error, self._where) from error
            if tp in self._consumer.assignment():
                self._ledgers[tp] = Ledger(position, metadata)

    async def _decoded(self, values: list[bytes | None]) -> list[Record | BadRecord]:
        while True:
            try:
                return await asyncio.to_thread(self._decode.decode_many, values)
            except RegistryUnavailable as error:
                log.warning("%s waits: %s", self._where, error)
                await asyncio.sleep(RETRY_S)

    async def _revoked(self) -> None:
        if not self._ledgers:
            return
        self._going = True
        try:
            await self._leaving()
            await self.commit()
        except HeadraceError as error:
            log.warning("%s: not committed, so some is posted again: %s", self._where, error)
        finally:
            self._ledgers.clear()
            self._committed.clear()
            self._going = False

    async def _asked(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except KafkaError as error:
            raise kafka_error(error, self._where) from error


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self, revoked: Callable[[], Awaitable[None]]) -> None:
        self._revoked = revoked

    async def on_partitions_revoked(self, revoked: object) -> None:
        await self._revoked()

    async def on_partitions_assigned(self, assigned: object) -> None:
        pass


def kafka_error(error: KafkaError, where: str) -> HeadraceError:
    """The project's word for an error of aiokafka."""
    said = str(error) or type(error).__name__
    if getattr(error, "retriable", False):
        return BrokerUnavailable(f"Kafka does not answer: {said}", where=where, todo="look at the broker")
    return SettingsError(f"the broker refused: {said}", where=where, expected="rights and settings that it accepts")
