"""Joins labels to what was served in one partition number of all tasks' topics, in steps that are one transaction each.
What the join is, is in `join`; here it meets Kafka: read, join, look the features up, write, or read again.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from confluent_kafka import Message

from schemas.errors import BadRecord
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.deadletters import carried_bytes, dead_letter
from streams.events import Record
from streams.joining.ledger import Frontier, Ledger
from streams.joining.lookup import ServedReader
from streams.joining.reading import Reading
from streams.joining.taint import Taint
from streams.labels.automated import Discount
from streams.labels.join import Join
from streams.labels.joined import Counts, Joined
from streams.labels.rules import Rule
from streams.labels.store import LabelStore
from streams.labels.watermark import SourceLife, Watermark
from streams.partitioning import partition_for
from streams.privacy.erasures import Erasures
from streams.privacy.sealed_letters import closing
from streams.tasks.automation import Signs
from streams.tasks.base import Task
from streams.transactions import Sent

log = logging.getLogger(__name__)

Served = Mapping[str, Mapping[int, Record]]
"""By task and offset."""

OnServed = Callable[[Record], object]

FRAUD = 0.5  # a label above it says that the order was
#: Records of one step: what one transaction carries, and what is read again after a crash.
STEP = 2_000
LATENESS_MS = 60_000
IDLE_MS = 5_000


class Joiner:
    """Used from one thread. After an exception from `step` it must be `open`ed again."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        tasks: Sequence[Task],
        partition: int,
        store: LabelStore,
        on_served: OnServed = lambda record: None,
        erasures: Callable[[], Erasures] = Erasures,
    ) -> None:
        """Makes the contracts known. on_served hears of each served record, again after a crash.

        Raises RegistryUnavailable, SchemaError.
        """
        self._settings, self.partition, self._on_served = settings, partition, on_served
        self._ledger = Ledger(settings, "join", partition, store, erasures)
        self._joins = {
            task.name: Join(Rule.of(task, settings.learning.windows_s.get(task.name, 0)), self._ledger.state)
            for task in tasks
        }
        self.oldest_label: int | None = None
        """Of the last step: when the first of its labels came to the broker, UTC ms; None where there was none."""
        self._served = {settings.topics.served(task.name): task.name for task in tasks}
        self._labels = settings.topics.labels
        self._reading = Reading(settings, (*self._served, self._labels), partition)
        self._decode_served, self._decode_label = Decoder(registry, "served"), Decoder(registry, "label")
        self._encode = Encoder(registry, settings.topics.examples, "training_example")
        self._encode_letter = Encoder(registry, settings.topics.deadletters, "dead_letter")
        self._close = closing(settings)
        self._reader = ServedReader(settings)
        self._taint = Taint(settings, registry, self._reader)
        self._discount = Discount(tasks, settings.learning.automated_weight)
        self._alerting = {task.name for task in tasks if task.raises_alerts}
        self._frontier = Frontier()

    # -- life

    def open(self, now_ms: int) -> None:
        """Takes the partition over and stands where its last whole step ended. Raises what Ledger.acquire does."""
        self.close()
        self._frontier = self._ledger.acquire()
        self._life = SourceLife(self._frontier.life)
        self._watermark = Watermark(lateness_ms=LATENESS_MS, idle_ms=IDLE_MS, start=self._frontier.watermark)
        self._watermark.assign(self._reading.topics, now_ms)
        self._reading.open(self._frontier.inputs)

    def close(self) -> None:
        self._reading.close()
        self._ledger.state.discard()

    def counts(self) -> dict[str, Counts]:
        """By task, since the last call."""
        return {task: join.take_counts() for task, join in self._joins.items()}

    @property
    def heard(self) -> Mapping[str, int]:
        """UTC ms of the last sign of life of each source of labels."""
        return self._life.times

    def hear(self, source: str, time: int, now_ms: int) -> None:
        """A sign of life of a source that came on another partition."""
        self._life.seen(source, time, now_ms)

    @property
    def watermark(self) -> int:
        """UTC ms, as of the last step."""
        return self._frontier.watermark

    def has_read(self, ends: Mapping[tuple[str, int], int]) -> bool:
        """After a step: whether all of what was served before these offsets has been joined, or was forgotten."""
        return all(self._reading.has_read(topic, ends[topic, self.partition]) for topic in self._served)

    # -- a step

    def step(self, now_ms: int, wait_s: float = 0.2) -> int:
        """Reads what is there, joins it, and commits what followed. How many examples that made.

        Raises Fenced, ProduceFailed, BrokerUnavailable, RegistryUnavailable (nothing has changed then).
        """
        arrived = self._reading.read(STEP, wait_s)
        made, letters = self._joined(arrived, now_ms)
        for topic in self._reading.ended:
            self._watermark.at_end(topic, now_ms)
        watermark = self._watermark.at(now_ms)
        busy = any(join.maturing for join in self._joins.values())  # of any task: examples are waited for
        for join in self._joins.values():
            # What is left is due in the next step, too.
            made += join.advance(watermark, self._life.until(join.rule.sources), now_ms, forgetting=not busy)
        if arrived or made or self._ledger.state.changes:
            self._commit(made, letters, watermark, now_ms)
        return len(made)

    def _joined(self, arrived: Sequence[Message], now_ms: int) -> tuple[list[Joined], list[Sent]]:
        """Examples and dead letters of what has arrived, in its order by topic: served first, then labels.

        A label of this step then finds what was served in it; the other way round it would wait as an early one.
        """
        made: list[Joined] = []
        letters: list[Sent] = []
        self.oldest_label = min(
            (message.timestamp()[1] for message in arrived if message.topic() == self._labels), default=None
        )
        decoded = sorted(self._decoded(arrived), key=lambda pair: pair[0].topic() == self._labels)
        targets: dict[str, list[str]] = {}
        for _, record in decoded:
            if not isinstance(record, BadRecord):
                targets.setdefault(record["task"], []).append(record["target_id"])
        for task, found in targets.items():
            if task in self._joins:
                self._joins[task].fetch(found)
        for message, record in decoded:
            try:
                if message.value() is None and message.topic() in self._served:
                    self._joins[self._served[message.topic()]].forget((message.key() or b"").decode(errors="replace"))
                else:
                    made += self._take(message, record)
            except BadRecord as bad:
                letters.append(self._letter(message, bad, now_ms))
            self._reading.took(message)
        return made, letters

    def _decoded(self, arrived: Sequence[Message]) -> Iterator[tuple[Message, Record | BadRecord]]:
        for decoder, chosen in (
            (self._decode_served, [message for message in arrived if message.topic() != self._labels]),
            (self._decode_label, [message for message in arrived if message.topic() == self._labels]),
        ):
            yield from zip(chosen, decoder.decode_many([message.value() for message in chosen]), strict=True)

    def _take(self, message: Message, record: Record | BadRecord) -> list[Joined]:
        if isinstance(record, BadRecord):
            raise record
        stamped = message.timestamp()[1]
        topic = message.topic()
        if topic == self._labels:
            self._watermark.observe(topic, record["observed_at"], stamped)
            self._life.seen(record["source"], record["observed_at"], stamped)
            if (join := self._joins.get(record["task"])) is None:
                raise BadRecord(
                    "out_of_range",
                    f"task {record['task']!r}",
                    where="task",
                    expected=f"one of {', '.join(self._joins)}",
                )
            return join.label(record, stamped)
        self._watermark.observe(topic, record["event_time"], stamped)
        self._on_served(record)
        return self._joins[self._served[topic]].served(record, self.partition, message.offset())

    def _letter(self, message: Message, bad: BadRecord, now_ms: int) -> Sent:
        key, letter = self._close(dead_letter(message, bad, now_ms, carried_bytes(self._settings)))
        partition = partition_for(key or b"", self._settings.partitions)
        return Sent(self._settings.topics.deadletters, partition, key, self._encode_letter(letter))

    def _commit(self, made: Sequence[Joined], letters: Sequence[Sent], watermark: int, now_ms: int) -> None:
        frontier = Frontier(dict(self._reading.next), watermark, dict(self._life.times), now_ms)
        served = self._features(made)
        self._ledger.commit([*letters, *self._examples(made, served), *self._tainted(made, served)], frontier)
        self._frontier = frontier

    def _examples(self, made: Sequence[Joined], served: Served) -> Iterator[Sent]:
        """The examples with the features that were served. Where retention has taken those, there is no example."""
        signs: dict[str, dict[int, Signs]] = {task: {} for task in self._joins}
        for one in made:
            record = served[one.task].get(one.offset)
            if record is None:
                log.warning("%s: what was served at %d is gone, and so is its example", one.task, one.offset)
                continue
            key = one.example_id.encode()
            partition = partition_for(key, self._settings.partitions)
            example = self._discount.example(one, record, signs[one.task])
            self._joins[one.task].counts.discounted += bool(example["automation"])
            yield Sent(self._settings.topics.examples, partition, key, self._encode(example))

    def _tainted(self, made: Sequence[Joined], served: Served) -> Iterator[Sent]:
        """What an order used that turned out to be fraud, or not to be: the newest that this step says of it."""
        newest = {(one.task, one.offset): one for one in made if one.task in self._alerting}
        said: dict[bool, list[Record]] = {True: [], False: []}
        for (task, offset), one in newest.items():
            fraud = one.label > FRAUD and one.weight > 0
            if (fraud or one.revision > 0) and (record := served[task].get(offset)):
                said[fraud].append(record)
        for fraud, records in said.items():
            yield from self._taint.touches(records, fraud=fraud)

    def _features(self, made: Sequence[Joined]) -> Served:
        by_task: dict[str, set[int]] = {task: set() for task in self._joins}
        for one in made:
            by_task[one.task].add(one.offset)
        found: dict[str, dict[int, Record]] = {}
        for topic, task in self._served.items():
            values = self._reader.read(topic, self.partition, by_task[task])
            records = self._decode_served.decode_many(list(values.values()))
            pairs = zip(values, records, strict=True)
            found[task] = {offset: record for offset, record in pairs if not isinstance(record, BadRecord)}
        return found
