"""The loop of a mapped topic: read, map, and publish in one transaction with how far was read.
So each message is in `events.*`, or a dead letter, exactly once, whatever is killed when; and one process does it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from schemas.errors import BadRecord, RegistryUnavailable
from schemas.registry import Registry
from schemas.wire import Encoder
from streams.config import Settings
from streams.deadletters import carried_bytes, dead_letter, letter_bytes
from streams.history import HISTORY
from streams.mapping.mapper import Mapped
from streams.mapping.reading import Item, Reader
from streams.partitioning import Partitions, partition_for
from streams.privacy.sealed_letters import closing
from streams.raw import RawRecord
from streams.transactions import Sent, TransactionalProducer

SOURCE = "headrace-source"  # of an event: topic/partition/offset that it was mapped from
OURS = "headrace-"
TRACE = ("traceparent", "tracestate")
HEADER_BYTES = 2_048  # more of them are left behind: the message must fit its topic
TRANSACTION_S = 15.0  # a reader waits no longer behind a process that was killed

Map = Callable[[Item, int], Mapped | None]
"""Item and now in UTC ms to a message, None to leave it out. Raises BadRecord, RegistryUnavailable."""
Wait = Callable[[RegistryUnavailable], None]
"""Returns when it may be tried again; raises what ends the step, which has published nothing by then."""


@dataclass(slots=True)
class Carried:
    """What became of what was read, once that is committed."""

    published: int = 0
    left_out: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    """Of each code the first error, with its place."""

    def refuse(self, raw: RawRecord, error: BadRecord) -> None:
        self.bad[error.code] += 1
        self.examples.setdefault(error.code, f"{raw.topic}[{raw.partition}] at {raw.offset}: {error}")

    def add(self, more: "Carried") -> None:
        self.published += more.published
        self.left_out += more.left_out
        self.bad += more.bad
        self.examples = more.examples | self.examples

    @property
    def all(self) -> int:
        return self.published + self.left_out + self.bad.total()


class Carrier:
    """Used from one thread. Making one shuts out whoever carried under this name, and undoes what it left open."""

    def __init__(
        self, settings: Settings, registry: Registry, name: str, topic: str, map_: Map, wait: Wait, *,
        history: bool = False, letters: bool = True, refused: Callable[[Item, BadRecord], None] | None = None,
    ) -> None:  # fmt: skip
        """`topic`: where to. `history`: what is published moves state and is not scored. `letters`: what cannot be
        mapped becomes a dead letter; `refused` is told of it in any case. `wait`: while the registry is silent.

        Raises BrokerUnavailable, RegistryUnavailable, SettingsError.
        """
        self._settings, self._topic, self._map, self._wait = settings, topic, map_, wait
        self._mark = [(HISTORY, b"1")] if history else []
        self._letters, self._refused = letters, refused
        self._limit = carried_bytes(settings)
        self._letter = Encoder(registry, settings.topics.deadletters, "dead_letter")
        self._close, self._personal = closing(settings), bool(settings.privacy.pseudonymise)
        self._producer = TransactionalProducer(
            settings,
            f"{settings.app_id}-{name}",
            f"the mapping to {topic}",
            TRANSACTION_S,
            **{"message.max.bytes": letter_bytes(settings), "transaction.timeout.ms": round(TRANSACTION_S * 1000)},
        )
        self._partitions = Partitions(self._producer.partitions(topic))
        self._dead_partitions = self._producer.partitions(settings.topics.deadletters)

    def begin(self, reader: Reader) -> None:
        """Writes down where it begins: a start that dies before its first record begins there again."""
        self._producer.carry((), reader.read_to(), reader.group)

    def step(self, reader: Reader, wait_s: float = 0.2) -> tuple[Carried, int | None]:
        """Reads what is there and publishes what becomes of it, in one transaction.

        What that was, and the broker's time in UTC ms of the oldest of it. RegistryUnavailable is waited out. Raises
        Fenced, ProduceFailed, BrokerUnavailable, FrontierTooOld.
        """
        carried, items = Carried(), reader.read(wait_s)
        if items:
            # All of it is mapped before the transaction begins: a silent registry keeps none open.
            self._producer.carry(list(self._sent(items, carried)), reader.read_to(), reader.group)
        return carried, min((item.raw.timestamp for item in items), default=None)

    def _sent(self, items: list[Item], carried: Carried) -> Iterator[Sent]:
        now_ms = time.time_ns() // 1_000_000
        for item in items:
            try:
                mapped = self._mapped(item, now_ms)
            except BadRecord as error:
                error.__traceback__ = error.__cause__ = error.__context__ = None
                carried.refuse(item.raw, error)
                if self._refused is not None:
                    self._refused(item, error)
                if self._letters:
                    yield self._dead(item.raw, error, now_ms)
                continue
            if mapped is None:
                carried.left_out += 1
                continue
            carried.published += 1
            [partition] = self._partitions.of([mapped.key.decode()])
            yield Sent(self._topic, partition, mapped.key, mapped.value, self._headers(item.raw))

    def _mapped(self, item: Item, now_ms: int) -> Mapped | None:
        while True:
            try:
                return self._map(item, now_ms)
            except RegistryUnavailable as error:
                self._wait(error)

    def _headers(self, raw: RawRecord) -> list[tuple[str, bytes | None]]:
        """The message's own, if they are few, what it was mapped from, and whether it is history.

        Where fields have pseudonyms, nobody knows what the message's own say: only the trace's are taken along.
        """
        own = [(name, value) for name, value in raw.headers if not name.startswith(OURS)]
        if self._personal:
            own = [(name, value) for name, value in own if name in TRACE]
        if sum(len(name) + len(value or b"") for name, value in own) > HEADER_BYTES:
            own = []
        place = f"{raw.topic}/{raw.partition}/{raw.offset}".encode()
        return [*own, (SOURCE, place), *self._mark]

    def _dead(self, raw: RawRecord, error: BadRecord, now_ms: int) -> Sent:
        key, letter = self._close(dead_letter(raw, error, now_ms, self._limit))
        partition = raw.offset % self._dead_partitions if key is None else partition_for(key, self._dead_partitions)
        return Sent(self._settings.topics.deadletters, partition, key, self._letter(letter))
