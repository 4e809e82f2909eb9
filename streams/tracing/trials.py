"""Orders of a span with what was served of them, for a policy to decide again.
The span's orders are held by their bytes, some 300 each, since `served` comes in another order.
"""

from collections.abc import Callable, Iterator

import numpy as np
from confluent_kafka import Message

from schemas.errors import BadRecord
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.config import Settings
from streams.events import Record
from streams.features import unpack
from streams.offsets import bounds, places, read_range
from streams.output_columns import FEATURES_FORMAT
from streams.policy.decide import Policy
from streams.policy.lists import Lists
from streams.policy.trial import Decided, Trial
from streams.tasks import make_task
from streams.tasks.base import Task
from streams.tracing.span import Labels, key_of, read_labels, served_in

TASK = "fraud"


def tried(
    settings: Settings, registry: Registry, text: str, where: str, span: tuple[int, int], tick: Callable[[], None]
) -> tuple[Trial, int]:
    """The trial of a document over a span (UTC ms, event time), and how many served orders are not on their topic
    any more. Raises PolicyError, BrokerUnavailable, SettingsError.
    """
    policy, task = Policy.parse(text, read_lists(settings, registry), where), make_task(TASK)
    labels = read_labels(settings, registry, task, *span)
    orders = Orders(settings, registry, *span)
    trial, missing = Trial(policy), 0
    for chunk in served_in(settings, registry, task, *span):
        usable = [each for each in chunk if each["features_format"] == FEATURES_FORMAT and each["decision"]]
        there = [each for each in usable if each["event_id"] in orders]
        missing += len(usable) - len(there)
        trial.add(list(decided(task, there, orders, labels)))
        tick()
    return trial, missing


def decided(task: Task, served: list[Record], orders: "Orders", labels: Labels) -> Iterator[Decided]:
    if not served:
        return
    fields = unpack([each["features"] for each in served], task.features)["fields"].astype(np.float32)
    known, value, _ = labels.look_up([key_of(each["target_id"], None) for each in served])
    for number, each in enumerate(served):
        fraud = bool(value[number] > 0.5) if known[number] else None
        yield Decided(orders[each["event_id"]], each["prediction"][0], fields[number], each["decision"], fraud)


class Orders:
    """Of a span, by event id. Nothing of them is checked: what was bad was not served."""

    def __init__(self, settings: Settings, registry: Registry, start: int, end: int) -> None:
        topic = settings.topics.orders
        self._decode, self._bytes = Decoder(registry, "order"), dict[str, bytes]()
        for messages in _messages(settings, topic):
            values = [message.value() for message in messages if message.value() is not None]
            for value, record in zip(values, self._decode.decode_many(values), strict=True):
                if not isinstance(record, BadRecord) and start <= record["event_time"] < end:
                    self._bytes[record["event_id"]] = value

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._bytes

    def __getitem__(self, event_id: str) -> Record:
        return self._decode(self._bytes[event_id])


def read_lists(settings: Settings, registry: Registry) -> Lists:
    """As they are now."""
    lists = Lists(Decoder(registry, "list_entry"))
    for messages in _messages(settings, settings.topics.lists):
        for message in messages:
            lists.apply(message.key() or b"", message.value())
    return lists


def _messages(settings: Settings, topic: str) -> Iterator[list[Message]]:
    for (name, partition), (low, high) in bounds(settings, places(settings, topic)).items():
        yield from read_range(settings, name, partition, low, high)
