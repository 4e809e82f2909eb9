"""From an event's id to all that hangs on it: input, scores, what was served, labels, examples, shadow scores.
Each is looked for where it must lie; what retention has deleted is said to be gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.errors import DataUnavailable, SettingsError
from schemas.registry import Registry
from streams.batch import TOPICS
from streams.config import Settings
from streams.events import EVENT_TYPES, Record
from streams.partitioning import partition_for
from streams.privacy.erasures import Erasures
from streams.privacy.ledger import read_ledger
from streams.tasks import make_task
from streams.tasks.base import Task
from streams.tracing.reading import Found, TopicReader

BEFORE_MS, AFTER_MS = 60_000, 15 * 60_000  # how far the broker's time of a record may be from the worker's clock
BACK = 10_000  # records before the cut among which an input is looked for


@dataclass(slots=True)
class Lineage:
    """What is known of one event of one task. `gone`: what is not there any more, or not yet, in words."""

    task: Task
    event_id: str
    target_id: str
    user_id: str
    input: Found | None = None
    scores: list[Found] = field(default_factory=list)
    served: Found | None = None
    labels: list[Found] = field(default_factory=list)
    examples: list[Found] = field(default_factory=list)
    shadows: list[Found] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    @property
    def release(self) -> str:
        """task/version of what scored it; empty if no score and no served record is left."""
        told = self.served or (self.scores[0] if self.scores else None)
        return str(told.record["release"]) if told else ""


def task_names(settings: Settings, task: str) -> tuple[str, ...]:
    """The one that was named, or all of the settings. Raises SettingsError for one that there is not."""
    return (make_task(task).name,) if task else tuple(settings.tasks)


def trace(settings: Settings, registry: Registry, ident: str, *, task: str = "", since: int = 0) -> Lineage:
    """All that hangs on the event of this id, or of this target id (an order's). since: UTC ms of the broker.

    Raises DataUnavailable where nothing of it is found; BrokerUnavailable, RegistryUnavailable, SettingsError.
    """
    tasks = [make_task(name) for name in task_names(settings, task)]
    found = (
        _by_served(settings, registry, ident, tasks, since)
        or _by_scores(settings, registry, ident, tasks, since)
        or _by_inputs(settings, registry, ident, tasks, since)
    )
    if found is None:
        raise unknown(settings, ident, tasks, since)
    _refuse_erased(_erasures(settings, registry), found)
    _fill_input(settings, registry, found)
    _fill_scores(settings, registry, found)
    _fill_outcomes(settings, registry, found, since)
    return found


def find_served(
    settings: Settings, registry: Registry, ident: str, tasks: Sequence[Task], since: int = 0
) -> tuple[Task, Found] | None:
    """The first `served` record of an event, by its id or its target's; None if there is none.

    Raises DataUnavailable where its person was forgotten.
    """
    pair, erasures = _search_served(settings, registry, ident, tasks, since), _erasures(settings, registry)
    if pair is not None:
        _refuse_erased(erasures, _of_served(*pair))
    elif any(erasures.entries) and (event := _by_inputs(settings, registry, ident, tasks, since)) is not None:
        _refuse_erased(erasures, event)
    return pair


def _erasures(settings: Settings, registry: Registry) -> Erasures:
    try:
        return read_ledger(settings, registry)
    except SettingsError:  # a shop from before anybody could be forgotten has no such topic
        return Erasures()


def _refuse_erased(erasures: Erasures, found: "Lineage") -> None:
    """Raises DataUnavailable for an event of somebody who was forgotten since."""
    told, topic = found.served or (found.scores[0] if found.scores else None), found.task.topic
    for partition in sorted({entry.partition for entry in erasures.entries}):
        offset = told.record["cut"][TOPICS[topic]] if told else found.input.offset if found.input else 0
        if erasures.before(found.user_id, topic, partition, offset):
            raise DataUnavailable(
                "erased: its person was forgotten", where=found.event_id, expected="an event of somebody we know"
            )


def _search_served(
    settings: Settings, registry: Registry, ident: str, tasks: Sequence[Task], since: int
) -> tuple[Task, Found] | None:
    """Keyed by target: of most tasks that is the event's own id, so one partition of each is read before all others."""

    def is_it(record: Record) -> bool:
        return ident in (record["event_id"], record["target_id"])

    readers = [TopicReader(settings, registry, settings.topics.served(each.name), "served", since) for each in tasks]
    for own in (True, False):
        for task, reader in zip(tasks, readers, strict=True):
            home = reader.home(ident)
            ranges = {part: ends for part, ends in reader.ranges.items() if (part == home) == own}
            if (found := next(reader.search(ident, is_it, ranges), None)) is not None:
                return task, found
    return None


def unknown(settings: Settings, ident: str, tasks: Sequence[Task], since: int) -> DataUnavailable:
    """What to say of an event that is nowhere; it names the topics."""
    topics = settings.topics
    looked = [topics.served(task.name) for task in tasks] + [topics.scores(task.name) for task in tasks]
    looked += sorted({topics.inputs[task.topic] for task in tasks})
    return DataUnavailable(
        f"nothing is known of {ident!r}",
        where=", ".join(looked) + (", since --since" if since else ""),
        expected="the id of a scored event, or of its target (an order_id)",
        todo="look at --since and --task; what is older than the topics' retention is gone",
    )


def _by_served(settings: Settings, registry: Registry, ident: str, tasks: Sequence[Task], since: int) -> Lineage | None:
    pair = _search_served(settings, registry, ident, tasks, since)
    return None if pair is None else _of_served(*pair)


def _of_served(task: Task, found: Found) -> Lineage:
    record = found.record
    return Lineage(task, record["event_id"], record["target_id"], record["user_id"], served=found)


def _by_scores(settings: Settings, registry: Registry, ident: str, tasks: Sequence[Task], since: int) -> Lineage | None:
    """Where `served` is gone: scores are not keyed by what is asked for, so all partitions are read."""
    for task in tasks:
        reader = TopicReader(settings, registry, settings.topics.scores(task.name), task.schema, since)

        def is_it(record: Record) -> bool:
            return ident in (record["event_id"], record.get("order_id"))

        if (found := next(reader.search(ident, is_it), None)) is not None:
            record = found.record
            target = str(record.get("order_id", record["event_id"]))
            gone = [f"its record on {settings.topics.served(task.name)} is gone, or not yet written"]
            return Lineage(task, record["event_id"], target, record["user_id"], scores=[found], gone=gone)
    return None


def _by_inputs(settings: Settings, registry: Registry, ident: str, tasks: Sequence[Task], since: int) -> Lineage | None:
    """An event that came, and has no score (yet, or any more)."""
    for task in tasks:
        kind = EVENT_TYPES[task.topic]
        reader = TopicReader(settings, registry, settings.topics.inputs[task.topic], kind.schema, since)

        def is_it(record: Record) -> bool:
            return ident in (record["event_id"], record.get("order_id"))

        if (found := next(reader.search(ident, is_it), None)) is not None:
            record, names = found.record, settings.topics
            gone = [f"no score of it is on {names.scores(task.name)} or {names.served(task.name)}"]
            return Lineage(task, record["event_id"], task.target(record), record["user_id"], input=found, gone=gone)
    return None


def _fill_input(settings: Settings, registry: Registry, found: Lineage) -> None:
    """By the score's cut, which is the input's own offset unless the event came out of order."""
    told = found.served or (found.scores[0] if found.scores else None)
    if found.input is not None or told is None:
        return
    kind, topic = EVENT_TYPES[found.task.topic], settings.topics.inputs[found.task.topic]
    reader = TopicReader(settings, registry, topic, kind.schema)
    partition = partition_for(found.user_id.encode(), len(reader.bounds))
    offset = told.record["cut"][TOPICS[found.task.topic]]

    def is_it(record: Record) -> bool:
        return bool(record["event_id"] == found.event_id)

    at = reader.at(partition, offset)
    if at is None or not is_it(at.record):
        low = reader.bounds[partition][0]
        ranges = {partition: (max(low, offset - BACK), max(low, min(offset + 1, reader.bounds[partition][1])))}
        at = next(reader.search(found.event_id, is_it, ranges), None)
    found.input = at
    if at is None:
        found.gone.append(f"its input is gone from {topic}[{partition}], where it was up to offset {offset}")


def _fill_scores(settings: Settings, registry: Registry, found: Lineage) -> None:
    """All of them: after a crash a score may have been said twice."""
    if found.served is None:
        return
    topic = settings.topics.scores(found.task.name)
    reader, at = TopicReader(settings, registry, topic, found.task.schema), found.served.record["served_at"]
    home = reader.home(found.user_id)

    def is_it(record: Record) -> bool:
        return bool(record["event_id"] == found.event_id)

    for ranges in (reader.between(at - BEFORE_MS, at + AFTER_MS), reader.ranges):
        found.scores = list(reader.search(found.event_id, is_it, {home: ranges[home]}))
        if found.scores:
            return
    found.gone.append(f"its score is gone from {topic}[{home}]")


def _fill_outcomes(settings: Settings, registry: Registry, found: Lineage, since: int) -> None:
    """Labels and shadow scores are keyed by target; examples by a hash of more, so all their partitions are read."""
    topics, name, target = settings.topics, found.task.name, found.target_id
    told = found.served or (found.scores[0] if found.scores else None)
    scored_at = (told.record.get("served_at") or told.record["scored_at"]) - BEFORE_MS if told else since

    def of_target(record: Record) -> bool:
        return bool(record["task"] == name and record["target_id"] == target)

    # A label may come before its score; an example and a shadow score cannot.
    for where, topic, contract, start in (
        (found.labels, topics.labels, "label", since),
        (found.shadows, topics.shadow, "shadow_score", scored_at),
        (found.examples, topics.examples, "training_example", scored_at),
    ):
        try:
            reader = TopicReader(settings, registry, topic, contract, start)
        except SettingsError as error:
            found.gone.append(f"{topic} is not there: {error.what}")
            continue
        home = {reader.home(target): reader.ranges[reader.home(target)]}
        where += reader.search(target, of_target, None if contract == "training_example" else home)
    found.labels.sort(key=lambda each: (each.record["revision"], each.record["observed_at"]))
    found.examples.sort(key=lambda each: (each.record["candidate_id"] or "", each.record["revision"]))
