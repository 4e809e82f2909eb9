"""Makes labels of clicks and orders, by the partition of their user, and publishes them under their target's key.
Each step is one transaction: the labels, what is remembered of ad clicks, and where to read on.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from confluent_kafka import Message

from schemas.errors import BadRecord
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.events import Record
from streams.history import is_history
from streams.joining.ledger import Frontier, Ledger
from streams.joining.reading import Reading
from streams.labels import derive, rows
from streams.labels.derive import Label
from streams.labels.store import LabelStore
from streams.labels.watermark import Watermark
from streams.partitioning import partition_for
from streams.privacy.entries import LABELS, Entry
from streams.privacy.erasures import Erasures
from streams.transactions import Sent

STEP = 2_000
LATENESS_MS = 60_000
IDLE_MS = 5_000
AD_CLICKS = "adclicks"


class Deriver:
    """Used from one thread. After an exception from `step` it must be `open`ed again.

    Events that cannot be decoded or are out of range are passed over: the worker has set them aside.
    """

    def __init__(
        self, settings: Settings, registry: Registry, advertised: Mapping[str, str], partition: int, store: LabelStore,
        erasures: Callable[[], Erasures] = Erasures,
    ) -> None:  # fmt: skip
        """`advertised`: item ids by ad id, as they are known now. Raises RegistryUnavailable, SchemaError."""
        self._settings, self._advertised, self.partition = settings, advertised, partition
        self._erasures, self._forgot = erasures, set[str]()
        self._ledger = Ledger(settings, "derive", partition, store, erasures)
        topics = settings.topics
        self._decoders = {topics.clicks: Decoder(registry, "click"), topics.orders: Decoder(registry, "order")}
        self._encode = Encoder(registry, topics.labels, "label")
        self._reading = Reading(settings, self._decoders, partition)
        self._frontier = Frontier()

    def open(self, now_ms: int) -> None:
        """Takes the partition over and stands where its last whole step ended. Raises what Ledger.acquire does."""
        self.close()
        self._frontier = self._ledger.acquire()
        self._watermark = Watermark(lateness_ms=LATENESS_MS, idle_ms=IDLE_MS, start=self._frontier.watermark)
        self._watermark.assign(self._decoders, now_ms)
        self._reading.open(self._frontier.inputs)

    def close(self) -> None:
        self._reading.close()
        self._ledger.state.discard()

    @property
    def watermark(self) -> int:
        """UTC ms: all labels of events up to it are committed."""
        return self._frontier.watermark

    def step(self, now_ms: int, wait_s: float = 0.2, extra: Sequence[Sent] = ()) -> int:
        """Reads what is there and commits its labels, with `extra` records. How many labels those were.

        Raises Fenced, ProduceFailed, BrokerUnavailable, RegistryUnavailable (nothing has changed then).
        """
        arrived = self._reading.read(STEP, wait_s)
        labels = [label for event, topic in self._decoded(arrived) for label in self._derived(event, topic)]
        for topic in self._reading.ended:
            self._watermark.at_end(topic, now_ms)
        watermark = self._watermark.at(now_ms)
        self._forget(watermark)
        forgotten = self._forget_people()
        if arrived or extra or self._ledger.state.changes or watermark > self._frontier.watermark:
            frontier = Frontier(dict(self._reading.next), watermark, {}, now_ms)
            self._ledger.commit([*self.sent(labels), *extra], frontier)
            self._frontier = frontier
        self._forgot |= forgotten
        return len(labels)

    def has_forgotten(self, request: Entry) -> bool:
        return request.receipt in self._forgot

    def sent(self, labels: Iterable[Label]) -> Iterator[Sent]:
        """Labels as records, each in the partition of its target."""
        for label in labels:
            key = label["target_id"].encode()
            partition = partition_for(key, self._settings.partitions)
            yield Sent(self._settings.topics.labels, partition, key, self._encode(label))

    def heartbeats(self, task: str, time: int) -> Iterator[Sent]:
        """To each partition: all derived labels of that task up to `time`, UTC ms, are out."""
        value = self._encode(derive.heartbeat(task, derive.SOURCE, time))
        for partition in range(self._settings.partitions):
            yield Sent(self._settings.topics.labels, partition, None, value)

    def _decoded(self, arrived: Sequence[Message]) -> Iterator[tuple[Record, str]]:
        """Clicks before orders: an order then finds the ad clicks of its own step."""
        erasures = self._erasures()
        for number, (topic, decoder) in enumerate(self._decoders.items()):  # clicks and orders, as the inputs are
            messages = [message for message in arrived if message.topic() == topic]
            found = decoder.decode_many([message.value() for message in messages])
            for message, event in zip(messages, found, strict=True):
                self._reading.took(message)
                if not isinstance(event, BadRecord):
                    self._watermark.observe(topic, event["event_time"], message.timestamp()[1])
                    if is_history(message.headers()):  # nothing of ours was served then
                        continue
                    if not erasures.before(event["user_id"], number, self.partition, message.offset()):
                        yield event, topic

    def _derived(self, event: Record, topic: str) -> list[Label]:
        state, key = self._ledger.state, rows.row_key(AD_CLICKS, event["user_id"])
        if topic == self._settings.topics.clicks:
            if event["impression_id"] and event["ad_id"]:
                before = derive.unpack_clicks(state.get(key))
                if (after := derive.remember(before, event, self._advertised)) != before:
                    state.put(key, derive.pack_clicks(after))
            return derive.of_click(event)
        return derive.of_order(event) + derive.conversions(event, derive.unpack_clicks(state.get(key)))

    def _forget_people(self) -> set[str]:
        """Ad clicks of who is to be forgotten, once all that came before is read. Of which requests that was."""
        erasures, done = self._erasures(), set[str]()
        for request in erasures.open(LABELS, [self.partition]):
            read = zip(self._decoders, request.cutoff, strict=False)
            if request.receipt not in self._forgot and all(self._reading.has_read(*each) for each in read):
                self._ledger.state.erase(rows.row_key(AD_CLICKS, erasures.user_of(request)))
                done.add(request.receipt)
        return done

    def _forget(self, watermark: int) -> None:
        """Ad clicks that nothing can be credited to any more."""
        over, _ = self._ledger.state.due(rows.timeline(rows.FORGET, AD_CLICKS), watermark, STEP)
        for key, _ in over:
            self._ledger.state.put(key, None)
