"""What scoring costs without a broker and without a model: decode, prepare, infer and the making of records.
`python -m bench.scoring` prints a table and one JSON line: CPU µs an event of each stage, the least of some rounds.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.report import show
from engines.base import Engine
from engines.null import NullEngine, null_release, null_tower
from engines.slot import Loaded, Slot
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.batch import CLICKS, IMPRESSIONS, ORDERS
from streams.catalog import Catalogue
from streams.codecs import Codecs, Names, make_codecs
from streams.config_sections import Topics
from streams.entities import EntityView
from streams.events import EVENT_TYPES
from streams.partitioning import partition_for
from streams.raw import RawRecord
from streams.scoring import Scorer
from streams.sources.load import MIX, START_MS, history_load, uniform_catalog, uniform_load
from streams.sources.telling import Timed
from streams.state import UserState
from streams.tasks import TASKS, make_task
from streams.tasks.fraud import FIELDS
from streams.vectors import HashingEncoder, catalogue_vectors
from streams.work import Work

USERS = 1_000
PARTITIONS = 4
SIZES = (3, 8, 64, 512)
EVENTS, ROUNDS = 2_048, 5
MIXES = {"mix": MIX, "clicks": (1.0, 0.0, 0.0)}
STAGES = ("decode", "prepare", "infer", "waves")
TOPICS = {"clicks": CLICKS, "orders": ORDERS, "impressions": IMPRESSIONS}
SETTINGS = {"mean": 0.1, "review": 0.5, "block": 0.9, "popular": ["item-000001"]}
TARGETS = {"mix_64_waves": 7.0, "clicks_64_waves": 7.0}

Part = tuple[int, list[RawRecord]]
"""Topic index, and records of one topic-partition."""


class ScatteredEngine(NullEngine):
    """The null engine with answers that differ by row: equal ones would be encoded from a few cached strings.

    It reads its inputs, so that what they cost is in the figure.
    """

    rows = 2_000
    answer = Engine.answer

    def scatter(self, seed: int) -> None:
        """Draws the answers: rows of the catalogue with descending scores, and logits of rare events."""
        rng = np.random.default_rng(seed)
        for spec in self.signature.outputs:
            shape = spec.shape(self.buckets[-1])
            drawn = rng.integers(1, self.rows, shape) if spec.name == "rows" else rng.normal(-4, 1, shape)
            self._zeros[spec.name] = (-np.sort(-drawn) if spec.name == "scores" else drawn).astype(spec.dtype)


def names() -> Names:
    topics = Topics()
    return Names(
        topics.inputs,
        {task: topics.scores(task) for task in TASKS},
        {task: topics.served(task) for task in TASKS},
        topics.alerts,
        topics.deadletters,
        topics.entity_events,
        topics.shadow,
    )


def catalogue() -> Catalogue:
    """The plain load's, with vectors."""
    catalog = Catalogue()
    items, ads = uniform_catalog()
    for item in items:
        catalog.apply_item(item)
    for ad in ads:
        catalog.apply_ad(ad)
    for vector in catalogue_vectors(items, ads, HashingEncoder()):
        catalog.apply_vector(vector)
    return catalog


def slot(task: str, catalog: Catalogue, sizes: Sequence[int]) -> Slot:
    """A task served by the scattered engine."""
    release = null_release(task, fields=len(FIELDS))
    engine = ScatteredEngine(release, precision="f32", buckets=sizes, threads=1)
    engine.scatter(len(task))
    loaded = Loaded(release, engine, null_tower())
    loaded.settings = SETTINGS
    loaded.refresh(catalog.text, catalog.scalars, catalog.kind, catalog.candidate_bias())
    return Slot(loaded)


def make_scorer(sizes: Sequence[int] = SIZES) -> tuple[Scorer, MemoryRegistry]:
    """All three tasks on a catalogue of 2,300 rows, and the registry that their contracts are in."""
    registry, catalog, tasks = MemoryRegistry(), catalogue(), [make_task(name) for name in TASKS]
    codecs: Codecs = make_codecs(registry, names(), tasks)
    return Scorer(
        tasks,
        {task.name: slot(task.name, catalog, sizes) for task in tasks},
        codecs,
        names(),
        UserState(65_536),
        catalog,
        EntityView(Decoder(registry, "entity_state")),
        partitions=PARTITIONS,
        max_message_bytes=1_000_000,
        deadlines_ms={},
    ), registry


class Feed:
    """Events as consumed records, in micro-batches as the intake makes them: a part for each topic and partition."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self._encoders = {
            name: Encoder(registry, EVENT_TYPES[topic].schema, EVENT_TYPES[topic].schema)
            for name, topic in TOPICS.items()
        }
        self._offsets: dict[tuple[int, int], int] = {}

    def batches(self, events: Iterable[Timed], size: int) -> list[list[Part]]:
        records = [self._consumed(event) for event in events]
        return [list(_parts(records[start : start + size])) for start in range(0, len(records), size)]

    def _consumed(self, event: Timed) -> tuple[int, RawRecord]:
        topic, record = TOPICS[event.topic], event.record
        key = record["user_id"].encode()
        partition = partition_for(key, PARTITIONS)
        offset = self._offsets.get((topic, partition), 0)
        self._offsets[topic, partition] = offset + 1
        value = self._encoders[event.topic](record)
        return topic, RawRecord(event.topic, partition, offset, event.time, key, value, ())


def _parts(records: Sequence[tuple[int, RawRecord]]) -> Iterator[Part]:
    found: dict[tuple[int, int], list[RawRecord]] = {}
    for topic, record in records:
        found.setdefault((topic, record.partition), []).append(record)
    for (topic, _), part in found.items():
        yield topic, part


class Costs(NamedTuple):
    """CPU seconds of the stages, in their order."""

    decode: float
    prepare: float
    infer: float
    waves: float


def scored(scorer: Scorer, batches: Sequence[Sequence[Part]], keep: Callable[[Work], object] = id) -> Costs:
    """Scores micro-batches as the loop does, and drops what it would send. `keep` sees each finished one."""
    clock, spent = time.thread_time, [0.0] * len(STAGES)
    for batch in batches:
        now = int(batch[0][1][0].timestamp) + 5
        started = clock()
        parts = [(topic, records, scorer.decode(topic, records)) for topic, records in batch]
        decoded = clock()
        work = scorer.prepare(parts, now)
        prepared = clock()
        scorer.infer(work)
        inferred = clock()
        scorer.outputs.waves(work)
        ended = clock()
        keep(work)
        for number, took in enumerate((decoded - started, prepared - decoded, inferred - prepared, ended - inferred)):
            spent[number] += took
    return Costs(*spent)


def costs(events: int = EVENTS, rounds: int = ROUNDS, users: int = USERS) -> dict[str, float]:
    """CPU µs an event, named MIX_SIZE_STAGE. Each round has newer events: a repeat is not scored."""
    scorer, registry = make_scorer()
    feed, figures, seed = Feed(registry), dict[str, float](), 2
    for batch in feed.batches(history_load(users, 1), 512):
        scorer.absorb_only([(topic, records, scorer.decode(topic, records)) for topic, records in batch])
    for name, mix in MIXES.items():
        for size in SIZES:
            taken = []
            for _ in range(rounds):
                seed += 1
                made = uniform_load(events, users, seed, mix, start=START_MS + seed * events)
                taken.append(scored(scorer, feed.batches(made, size)))
            least = [1e6 * min(column) / events for column in zip(*taken, strict=True)]
            figures |= {f"{name}_{size}_{stage}": us for stage, us in zip(STAGES, least, strict=True)}
            figures[f"{name}_{size}"] = sum(least)
    return figures


def tell(figures: dict[str, float]) -> None:
    """The table, on stderr."""
    print(f"{'CPU us an event':>16}" + "".join(f"{stage:>9}" for stage in (*STAGES, "all")), file=sys.stderr)
    for name in MIXES:
        for size in SIZES:
            row = [figures[f"{name}_{size}_{stage}"] for stage in STAGES] + [figures[f"{name}_{size}"]]
            print(f"{name:>10}{size:>6}" + "".join(f"{us:9.1f}" for us in row), file=sys.stderr)


def main() -> dict[str, Any]:
    figures = costs()
    tell(figures)
    return figures


if __name__ == "__main__":
    show("scoring", main(), TARGETS)
