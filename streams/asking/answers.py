"""The answers that this worker knows: those it gave, and those that events from the topics carry.
A request that comes again gets its answer again; an event that comes back is said as it was answered.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import xxhash

from schemas.errors import BadRecord
from schemas.wire import HEADER, Decoder
from streams.asking.header import Answer, Seal, asked
from streams.batch import TOPICS
from streams.events import Record
from streams.raw import RawRecord
from streams.tasks.base import Task
from streams.work import Told, Work

REMEMBERED = 20_000
"""Answers kept for whoever asks again: a KB or two each."""
REMEMBERED_BYTES = 100_000_000
"""Of them all: an event may hold texts of a megabyte, and its score repeats its ids."""


class Key(NamedTuple):
    """What is one event, as dedupe has it: an id counts by user and topic."""

    topic: int
    user_id: str
    event_id: str

    @classmethod
    def of(cls, topic: int, event: Record) -> "Key":
        return cls(topic, event["user_id"], event["event_id"])


@dataclass(slots=True)
class Given:
    """An answer; digest: of the event that it was given for; published: resolves when that is on its topic."""

    partition: int
    digest: bytes
    answer: Answer
    published: "asyncio.Future[Any] | None" = None


def digest(value: bytes) -> bytes:
    """Equal where two messages hold the same record: which id their schema has does not count."""
    return xxhash.xxh3_128_digest(value[HEADER:])


class Answers:
    """The asker adds; the scoring loop finds among what it reads."""

    def __init__(
        self,
        tasks: Iterable[Task] = (),
        decoders: Mapping[str, Decoder] | None = None,
        seal: Seal | None = None,
        remembered: int = REMEMBERED,
        remembered_bytes: int = REMEMBERED_BYTES,
    ) -> None:
        """`decoders`: of score records, by task. Without tasks it knows of no answers."""
        self.seal = seal or Seal()
        self._tasks = {task.name: task for task in tasks}
        self._decoders, self._remembered, self._most_bytes = decoders or {}, remembered, remembered_bytes
        self._bytes = 0  # of what is in `_known`
        self._known: OrderedDict[Key, Given] = OrderedDict()
        self._open: dict[Key, Given] = {}  # published, and not read back yet
        self.overtaken: set[Key] = set()
        self.asking: set[Key] = set()  # not answered yet; those whose event comes meanwhile are `overtaken`

    # -- the asker's side ------------------------------------------------------------------------------------

    def known(self, key: Key) -> Given | None:
        return self._known.get(key)

    def give(self, key: Key, given: Given) -> None:
        self._open[key] = given
        self._remember(key, given)

    def forget(self, key: Key) -> None:
        """The event could not be published: it may be asked about anew."""
        self._open.pop(key, None)
        if key in self._known:
            self._drop(key)

    def forget_user(self, user_id: str) -> None:
        """Nothing that was answered of their events is known any more."""
        for key in [key for key in self._known if key.user_id == user_id]:
            self._drop(key)
        for key in [key for key in self._open if key.user_id == user_id]:
            del self._open[key]

    def keep(self, partitions: Collection[int]) -> None:
        """Only these are owned now: what comes back on others, comes to others."""
        self._open = {key: given for key, given in self._open.items() if given.partition in partitions}

    def score(self, answer: Answer) -> Record:
        """The score record in an answer. Raises BadRecord, RegistryUnavailable."""
        return self._decoders[answer.task](answer.score)

    # -- the loop's side -------------------------------------------------------------------------------------

    def check(self, records: Sequence[RawRecord]) -> None:
        """Raises RegistryUnavailable where an answer is of a schema that is not known yet: `among` does not."""
        for record in records:
            if record.headers:
                self._read(record)

    def among(self, work: Work) -> dict[str, list[Told]]:
        """By task, which fresh events of a micro-batch were answered before they came, and what."""
        found: dict[str, list[Told]] = {}
        fresh, kinds = work.absorbed.fresh.tolist(), work.batch.topic.tolist()
        for number in self._worth_a_look(work.raw):
            event, raw, kind = work.events[number], work.raw[number], kinds[number]
            key = Key.of(kind, event)
            given, carried = self._open.pop(key, None), self._read(raw)
            if not fresh[number]:
                continue
            if carried is not None and Key.of(kind, carried[1]) == key:
                answer, score = carried
                self._remember(key, Given(raw.partition, digest(raw.value or b""), _shown(answer)))
                score = {**score, "cut": {**score["cut"], TOPICS[kind]: raw.offset}}
            elif given is not None:  # the same event came another way, and before ours
                answer, given.answer = given.answer, _shown(given.answer)
                cut = work.absorbed.cut[number].tolist()
                score = {**self.score(answer), "cut": dict(zip(TOPICS, cut, strict=True))}
            else:
                if key in self.asking:
                    self.overtaken.add(key)
                continue
            if self._tasks[answer.task].topic == kind:
                found.setdefault(answer.task, []).append(Told(number, score, answer))
        return found

    def _worth_a_look(self, raw: Sequence[RawRecord]) -> Iterable[int]:
        if self._open or self.asking:
            return range(len(raw))
        return [number for number, record in enumerate(raw) if record.headers]

    def _read(self, record: RawRecord) -> tuple[Answer, Record] | None:
        """The answer in a record's header, and its score; None where there is none that a task here can say."""
        if not asked(record.headers):
            return None
        answer = self.seal.read(record.headers, record.value)
        task = self._tasks.get(answer.task) if answer is not None else None
        if answer is None or task is None or len(answer.features) != task.features.itemsize:
            return None
        try:
            return answer, self.score(answer)
        except BadRecord:
            return None

    def _remember(self, key: Key, given: Given) -> None:
        if key in self._known:
            self._drop(key)
        self._known[key] = given
        self._bytes += _size(key, given)
        while len(self._known) > self._remembered or (self._bytes > self._most_bytes and len(self._known) > 1):
            self._drop(next(iter(self._known)))

    def _drop(self, key: Key) -> None:
        self._bytes -= _size(key, self._known.pop(key))


def _size(key: Key, given: Given) -> int:
    """Roughly, in bytes; the same for as long as it is known: features come and go."""
    return len(key.user_id) + len(key.event_id) + len(given.answer.score)


def _shown(answer: Answer) -> Answer:
    """What is kept for who asks again."""
    return answer._replace(features=b"")
