"""Bytes that an event leaves on each topic and in a user's row: what the capacity model multiplies by rates.
`python -m bench.capacity` prints one line of JSON; nothing is timed, no broker runs, and a second run says the same.
"""

import tracemalloc
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from kafka.record.default_records import DefaultRecordBatchBuilder

from bench.report import show
from bench.scoring import PARTITIONS, Feed, Part, catalogue, make_scorer, names, slot
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.labels.derive import of_click
from streams.labels.joined import Joined, example_id
from streams.scoring import Scorer
from streams.sources.load import ADS, ITEMS, START_MS, history_load, uniform_load
from streams.state import UserState
from streams.tasks import TASKS

USERS, EVENTS, BATCH, SLOTS = 1_000, 6_400, 64, 65_536
"""BATCH: events of a micro-batch, and records of one batch in Kafka's log."""
Messages = list[tuple[bytes | None, bytes | None]]


def log_bytes(messages: Messages) -> float:
    """Bytes a record in Kafka's log: batches of record format 2, uncompressed, BATCH records in each."""
    total = 0
    for start in range(0, len(messages), BATCH):
        made = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 24)
        for place, (key, value) in enumerate(messages[start : start + BATCH]):
            made.append(place, START_MS + place, key, value, [])
        total += len(made.build())
    return total / len(messages)


def consumed(batches: Sequence[Sequence[Part]]) -> dict[str, Messages]:
    """What lies on the event topics, by topic."""
    found = defaultdict[str, Messages](list)
    for batch in batches:
        for _, records in batch:
            for raw in records:
                found[raw.topic].append((raw.key, raw.value))
    return found


def said(scorer: Scorer, batches: Sequence[Sequence[Part]]) -> dict[str, Messages]:
    """What the worker would send for micro-batches, by topic."""
    found = defaultdict[str, Messages](list)
    for batch in batches:
        parts = [(topic, records, scorer.decode(topic, records)) for topic, records in batch]
        work = scorer.prepare(parts, int(batch[0][1][0].timestamp) + 5)
        scorer.infer(work)
        for wave in scorer.outputs.waves(work):
            for out in wave:
                found[out.topic].append((out.key, out.value))
    return found


def examples(registry: MemoryRegistry, task: str, served: Messages) -> Messages:
    """One training example of each served record, as the join makes them for its first candidate."""
    read, write = Decoder(registry, "served"), Encoder(registry, "training.examples", "training_example")
    made: Messages = []
    for _, value in served:
        assert value is not None
        record = read(value)
        target, candidate, time = record["target_id"], (record["candidates"] or [""])[0], record["event_time"]
        ident = example_id(task, target, candidate, "click", 0)
        joined = Joined(
            *(ident, task, target, candidate or None, "click", 1.0, 1.0, time, 0, time),
            *("derived", 1 << 62, time, 0, 0),
        )
        made.append((ident.encode(), write(joined.example(record))))
    return made


def label(registry: MemoryRegistry) -> Messages:
    """A click's label on a recommendation, as the learner derives it."""
    ident = f"c1-{EVENTS}"
    click = {"impression_id": None, "ad_id": None, "request_id": ident, "item_id": "item-000001"}
    made = of_click({**click, "action": "view", "event_time": START_MS})[0]
    return [(ident.encode(), Encoder(registry, "events.labels", "label")(made))] * BATCH


def touches() -> Messages:
    """Of first orders: a user's cards, devices and addresses are told to their owners once."""
    scorer, registry = make_scorer((BATCH,))
    orders = uniform_load(10 * BATCH, USERS, 3, (0.0, 1.0, 0.0))
    return said(scorer, Feed(registry).batches(orders, BATCH))[names().touches]


def memory() -> dict[str, float]:
    """Bytes that are held: of a slot of the user arrays, and of a catalogue row with three tasks' tables of it."""
    make_scorer((BATCH,))  # what is loaded once and kept is not counted
    tracemalloc.start()
    state = UserState(SLOTS)
    arrays = tracemalloc.get_traced_memory()[0]
    catalog = catalogue()
    slots = [slot(task, catalog, (BATCH,)) for task in TASKS]
    rows = tracemalloc.get_traced_memory()[0] - arrays
    tracemalloc.stop()
    del state, slots
    return {"slot_bytes": arrays / SLOTS, "catalogue_row_bytes": rows / (ITEMS + ADS)}


def sizes(users: int = USERS, events: int = EVENTS) -> dict[str, float]:
    """Bytes a record by topic, of a packed row by how full its history is, and a touch's."""
    scorer, registry = make_scorer((BATCH,))
    feed, topics = Feed(registry), names()
    for batch in feed.batches(history_load(users, 1), 512):
        scorer.absorb_only([(topic, records, scorer.decode(topic, records)) for topic, records in batch])
    rows = [value for _, value in scorer.state.snapshot(range(PARTITIONS)).rows()]
    batches = feed.batches(uniform_load(events, users, 2), BATCH)
    sent = said(scorer, batches)
    figures = {f"{topic}_bytes": log_bytes(messages) for topic, messages in consumed(batches).items()}
    for task in TASKS:
        served = sent[topics.served[task]]
        figures[f"scores.{task}_bytes"] = log_bytes(sent[topics.scores[task]])
        figures[f"served.{task}_bytes"] = log_bytes(served)
        figures[f"examples.{task}_bytes"] = log_bytes(examples(registry, task, served))
    figures["labels_bytes"] = log_bytes(label(registry))
    figures["touch_bytes"] = log_bytes(touches())
    return figures | {"row_bytes": sum(map(len, rows)) / len(rows)}


def main() -> dict[str, Any]:
    return {"users": USERS, "events": EVENTS, **sizes(), **memory()}


if __name__ == "__main__":
    show("capacity", main(), digits=0)
