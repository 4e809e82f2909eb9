"""A world with a drift in it, replayed once: feature rows, what the joiner would have said of them, and the truth.
Without Kafka: the labels' delays, silence and sampling are those of the task's own rule.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from finetune.history import Examples, Recording, Timed, catalogue_from, replay
from streams.catalog import Catalogue
from streams.features import pack
from streams.labels.joined import Record, example_id, signed
from streams.labels.rules import Rule
from streams.sources.risk import NEW_KIND
from streams.sources.world import World, WorldConfig, milliseconds
from streams.tasks import make_task
from streams.tasks.base import Task
from streams.vectors import HashingEncoder, catalogue_vectors

DAY_MS = 86_400_000
START = "2011-01-01"


@dataclass(frozen=True, slots=True)
class Scenario:
    """Days from the start of the world. trained: when the first release is made and serves; drift: when the world
    changes; cycle: days between fine-tunes; wait: days after which both labels of an event are known.

    The first fine-tune that counts is the first that ends `cycle + wait` days after the drift; `cycles` of them count.
    """

    task: str
    orders_a_day: float
    trained: int
    drift: int
    cycle: int
    wait: int
    world: dict[str, Any]
    keep: float = 1.0
    ground: float = 0.02
    cycles: int = 2

    @property
    def counted(self) -> int:
        """The day of the first fine-tune that may have learned what is new."""
        return self.drift + self.cycle + self.wait

    @property
    def fine_tunes(self) -> list[int]:
        """Days on which there is one."""
        last = self.counted + (self.cycles - 1) * self.cycle
        first = last - (last - self.trained - self.wait - 1) // self.cycle * self.cycle
        return list(range(first, last + 1, self.cycle))

    @property
    def days(self) -> list[int]:
        """On which a period begins that is judged: from the drift on, and after each fine-tune."""
        return sorted({*self.fine_tunes, *range(self.drift, self.end, self.cycle)})

    @property
    def end(self) -> int:
        """The day on which the last period ends that is judged."""
        return self.fine_tunes[-1] + self.cycle

    def moment(self, day: int) -> int:
        return milliseconds(START) + day * DAY_MS

    def config(self) -> WorldConfig:
        drift: dict[str, Any] = {f"{'fraud' if self.task == 'fraud' else 'taste'}_drift": _day(self.drift)}
        return WorldConfig(
            start=START, end=_day(self.end), shop="generated", orders_a_day=self.orders_a_day, **drift, **self.world
        )


def _day(number: int) -> str:
    return str(np.datetime64(START) + number)


FRAUD = Scenario(
    "fraud", 500.0, trained=90, drift=118, cycle=14, wait=28,
    world={"fraud_rate": 0.06, "browse": 0.05, "guests": 0.0},
)  # fmt: skip
CLICKS = Scenario("ctr", 600.0, trained=42, drift=49, cycle=7, wait=0, world={"browse": 1.5, "guests": 0.5})
SCENARIOS = {each.task: each for each in (FRAUD, CLICKS)}


@dataclass(slots=True)
class Arrived:
    """A training example as the joiner would send it, but for its bytes. example: number of the row."""

    matured_at: int
    example: int
    candidate: str | None
    label: float
    weight: float
    revision: int
    source: str
    observed_at: int
    label_hash: int


@dataclass(slots=True)
class Story:
    """One replayed world. truth, chance, seen (N, C): what became of each place of an example, how likely it was, and
    whether it came to the user's eyes. kind (N,): of the fraud; new (N,): how likely the new kind of it alone was.
    """

    scenario: Scenario
    seed: int
    world: World
    catalog: Catalogue
    recording: Recording
    arrived: list[Arrived]
    truth: NDArray[np.float64]
    chance: NDArray[np.float64]
    seen: NDArray[np.bool_]
    kind: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    new: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def task(self) -> Task:
        return make_task(self.scenario.task)

    @property
    def examples(self) -> Examples:
        return self.recording.examples[self.scenario.task]

    def between(self, low: int, high: int) -> NDArray[np.intp]:
        """Numbers of the examples of these days."""
        time = self.examples.time
        return np.flatnonzero((time >= self.scenario.moment(low)) & (time < self.scenario.moment(high)))

    def record(self, each: Arrived) -> Record:
        """The TrainingExample, in physical types."""
        event, task = self.examples.events[each.example], self.task
        target, name = task.target(event), task.labels.name
        return {
            "example_id": example_id(task.name, target, each.candidate or "", name, each.revision),
            "task": task.name,
            "target_id": target,
            "candidate_id": each.candidate,
            "name": name,
            "label": each.label,
            "weight": each.weight,
            "matured_at": each.matured_at,
            "revision": each.revision,
            "event_time": event["event_time"],
            "release": "",
            "features_format": 1,
            "features": pack(self.examples.rows[each.example : each.example + 1])[0],
            "user_id": event["user_id"] or "",
            "source": each.source,
            "label_hash": each.label_hash,
            "observed_at": each.observed_at,
            "prediction": None,
            "automation": [],
        }


def tell(scenario: Scenario, seed: int) -> Story:
    """Replays the world of the seed, once."""
    world = World(scenario.config(), seed)
    items, ads = world.catalog()
    catalog = catalogue_from(items, ads, catalogue_vectors(items, ads, HashingEncoder()))
    labels: dict[tuple[str, str], list[Record]] = {}

    def stream() -> Iterator[Timed]:
        for event in world.events():
            if event.time >= world.end and event.topic != "labels":
                continue
            if event.topic == "labels":
                labels.setdefault((event.record["target_id"], ""), []).append(event.record)
            elif event.topic == "clicks" and event.record["impression_id"] is not None:
                labels.setdefault((event.record["impression_id"], event.record["ad_id"]), []).append(
                    _click(event.record)
                )
            yield event.topic, event.record

    task = make_task(scenario.task)
    ground = make_task("recommendations")  # what the first training begins with
    recording = replay(stream(), [task, ground], catalog, {scenario.task: scenario.keep, ground.name: scenario.ground})
    examples = recording.examples[scenario.task]
    arrived = sorted(joined(task, examples, labels), key=lambda each: (each.matured_at, each.example))
    return Story(scenario, seed, world, catalog, recording, arrived, *_truths(world, task, examples))


def _click(record: Record) -> Record:
    return {
        "label_id": record["event_id"], "value": 1.0, "source": "derived", "observed_at": record["event_time"],
        "revision": 0, "name": "click",
    }  # fmt: skip


def joined(task: Task, examples: Examples, labels: dict[tuple[str, str], list[Record]]) -> Iterator[Arrived]:
    """What the label join makes of labels and silence, by the task's rule; blocked orders are none here."""
    rule = Rule.of(task)
    for number, event in enumerate(examples.events):
        target, time = task.target(event), int(examples.time[number])
        closed = time + rule.window_ms
        candidates: list[tuple[str | None, bool]] = [(None, True)]
        if "slate" in event:
            candidates = [(ad["ad_id"], ad["shown"]) for ad in event["slate"]]
        for candidate, shown in candidates:
            revision = 0
            for label in sorted(labels.get((target, candidate or ""), ()), key=lambda each: each["observed_at"]):
                if label["name"] != rule.name or label["observed_at"] > closed + rule.grace_ms:
                    continue
                if revision == 0 and label["observed_at"] > closed and shown and rule.samples(target, candidate or ""):
                    yield Arrived(closed, number, candidate, 0.0, 1 / rule.negatives, 0, "", closed, 0)
                    revision = 1
                known = max(label["observed_at"], 0 if rule.at_once else closed)
                hashed = signed(xxhash.xxh3_64_intdigest(label["label_id"].encode()))
                yield Arrived(
                    known, number, candidate, label["value"], 1.0, revision, label["source"], label["observed_at"],
                    hashed,
                )  # fmt: skip
                revision += 1
            if revision == 0 and shown and rule.samples(target, candidate or ""):
                yield Arrived(closed, number, candidate, 0.0, 1 / rule.negatives, 0, "", closed, 0)


def _truths(
    world: World, task: Task, examples: Examples
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.str_], NDArray[np.float64]]:
    width = examples.rows["ad"].shape[1] if task.name == "ctr" else 1
    truth, chance = np.zeros((len(examples), width)), np.zeros((len(examples), width))
    seen = np.zeros((len(examples), width), np.bool_)
    kinds: list[str] = []
    new = np.zeros(len(examples))
    for number, event in enumerate(examples.events):
        told = world.truth(event["event_id"])
        assert told is not None, event["event_id"]
        count = len(told.outcomes)
        truth[number, :count], chance[number, :count], seen[number, :count] = told.outcomes, told.probabilities, True
        kinds.append(told.kind)
        new[number] = told.new
    return truth, chance, seen, np.array(kinds, np.str_), new


def is_new(kind: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(N,) whether it is the fraud that there was not before the drift."""
    return np.asarray(kind == NEW_KIND)
