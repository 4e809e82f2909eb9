"""An asker on a scorer without a broker: what it publishes is kept, and can be read back as the loop would."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.scoring import PARTITIONS, make_scorer
from engines.turns import Turns
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.asking.answers import Answers
from streams.asking.asker import Asker
from streams.asking.header import Seal
from streams.asking.outbox import Outbox
from streams.events import EVENT_TYPES, Record
from streams.metrics import Metrics
from streams.partitioning import partition_for
from streams.raw import RawRecord
from streams.scoring import Scorer
from streams.tasks.base import Task
from streams.telemetry.context import Headers
from streams.work import Outgoing, Work
from tests.records import NOON_MS


class Post:
    """A producer that acknowledges when the test says so: at once, unless `held`."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.held = False
        self.fails: Exception | None = None
        self.futures: list[asyncio.Future[Any]] = []

    def send_all(self, outputs: Sequence[Any]) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.sent += [Outgoing(*output) for output in outputs]
        self.futures.append(future)
        if self.fails is not None:
            future.set_exception(self.fails)
        elif not self.held:
            future.set_result({})
        return future

    def acknowledge(self) -> None:
        for future in self.futures:
            if not future.done():
                future.set_result({})


@dataclass
class Member:
    """A lease that is held until it is not."""

    confirmed: bool = True

    def held(self) -> bool:
        return self.confirmed


@dataclass
class Desk:
    """The asker and all around it."""

    scorer: Scorer
    registry: MemoryRegistry
    seal: Seal = field(default_factory=Seal)
    post: Post = field(default_factory=Post)
    lease: Member = field(default_factory=Member)
    metrics: Metrics = field(default_factory=Metrics)
    now_ms: int = NOON_MS + 1_000
    failed: list[Work] = field(default_factory=list)
    max_in_flight: int = 100

    def __post_init__(self) -> None:
        scorer = self.scorer
        self.tasks = {task.name: task for task in scorer.tasks}
        self._offsets = itertools.count(1_000)
        self.answers = scorer.answers = Answers(scorer.tasks, scorer.codecs.said, self.seal)
        self.outbox = Outbox(self.post, self.answers, scorer.names.inputs, self.metrics)  # type: ignore[arg-type]  # a stand-in
        encoders = {kind.topic: Encoder(self.registry, kind.schema, kind.schema) for kind in EVENT_TYPES}
        self.encoders = encoders
        self.asker = Asker(
            scorer, self.answers, self.outbox, Turns(), self.lease, encoders, self.max_in_flight,  # type: ignore[arg-type]  # a stand-in
            self.failed.append, frozenset(range(PARTITIONS)), lambda: self.now_ms,
        )  # fmt: skip

    def task(self, name: str) -> Task:
        return self.tasks[name]

    async def ask(
        self, name: str, event: Record, deadline_s: float = 5.0, *, durable: bool = False, trace: Headers | None = None
    ) -> Record:
        partition = partition_for(event["user_id"].encode(), PARTITIONS)
        return await self.asker.ask(self.task(name), event, partition, deadline_s, durable=durable, trace=trace)

    # -- the loop's side

    def record(self, sent: Outgoing) -> RawRecord:
        """A sent record as it is consumed."""
        assert sent.partition is not None
        return RawRecord(
            sent.topic, sent.partition, next(self._offsets), self.now_ms, sent.key, sent.value, sent.headers or ()
        )

    def published(self, name: str, event: Record) -> RawRecord:
        """An event as a shop's own client publishes it."""
        topic = self.task(name).topic
        key = event["user_id"].encode()
        value = self.encoders[topic](event)
        place = partition_for(key, PARTITIONS)
        return self.record(Outgoing(self.scorer.names.inputs[topic], key, value, place))

    def loop(self, *records: RawRecord) -> Work:
        """One micro-batch, scored."""
        inputs = self.scorer.names.inputs
        parts = [(inputs.index(record.topic), [record]) for record in records]
        work = self.scorer.prepare(
            [(topic, part, self.scorer.decode(topic, part)) for topic, part in parts], self.now_ms
        )
        self.scorer.infer(work)
        return work

    def said(self, work: Work) -> dict[str, list[dict[str, Any]]]:
        """What goes out, decoded, by topic."""
        first, second = self.scorer.outputs.waves(work)
        names, found = self.scorer.names, dict[str, list[dict[str, Any]]]()
        contracts = {names.scores[task.name]: task.schema for task in self.scorer.tasks}
        contracts |= dict.fromkeys(names.served.values(), "served")
        for sent in (*first, *second):
            if sent.topic in contracts:
                decode = Decoder(self.registry, contracts[sent.topic])
                found.setdefault(sent.topic, []).append(dict(decode(sent.value)))
        return found


def desk(**over: Any) -> Desk:
    return Desk(*make_scorer([1, 8]), **over)
