"""Where our own topics have something of a person, and whose it is: by the user_id in a record, or by its key.
Topics are read whole, and decoded only where the bytes hold the name: a search of a month takes as long as reading it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Message

from schemas.registry import Registry
from streams.changelog import USER
from streams.config import Settings
from streams.entities import touched
from streams.events import EVENT_TYPES, Record
from streams.joining.deriver import AD_CLICKS
from streams.labels import rows
from streams.offsets import Place, bounds, offsets_at, places, read_range
from streams.partitioning import partition_for
from streams.privacy.letters import LETTERS, letters_of, locked
from streams.privacy.persons import persons
from streams.tasks import make_task
from streams.tasks.fraud import Fraud
from streams.tracing.reading import Found, TopicReader


@dataclass(frozen=True, slots=True)
class Copy:
    """A record of ours. stamped: the broker's UTC ms; deleted: it is a deletion, of which only the key is left."""

    topic: str
    partition: int
    offset: int
    key: bytes
    stamped: int = 0
    deleted: bool = False

    @property
    def place(self) -> str:
        return f"{self.topic}[{self.partition}]"


@dataclass(slots=True)
class Copies:
    """What there is of one person now.

    keyed: records that a deletion of their key takes away. state: of logs that their owner writes. staying: what ends
    by time alone, and letters that nobody here can open, whosever they are. letters: in partitions that are written
    again. examples: what releases may have learned.
    """

    keyed: list[Copy] = field(default_factory=list)
    state: list[Copy] = field(default_factory=list)
    staying: list[Copy] = field(default_factory=list)
    letters: list[Copy] = field(default_factory=list)
    examples: list[Found] = field(default_factory=list)
    targets: set[tuple[str, str]] = field(default_factory=set)
    """Task and target of what was served."""
    entities: set[bytes] = field(default_factory=set)
    """Names of cards, devices, addresses, emails and ips, as `entities.state` has them."""

    @property
    def values(self) -> list[Copy]:
        """What can be deleted, and still says something of the person."""
        return [copy for copy in (*self.keyed, *self.state, *self.letters) if not copy.deleted]


def find(settings: Settings, registry: Registry, user_id: str, names: Sequence[str] = ()) -> Copies:
    """names: all that letters may call them. Raises BrokerUnavailable, RegistryUnavailable, SettingsError (no such
    topic)."""
    found = Copies()
    for topic, contract in keyed_topics(settings):
        for record in _of_user(settings, registry, topic, contract, user_id):
            copy = Copy(topic, record.partition, record.offset, record.key, record.timestamp)
            mine = record.key != user_id.encode()  # a score from before it was keyed by its event
            (found.keyed if mine else found.staying).append(copy)
            if contract == "served":
                found.targets.add((record.record["task"], record.record["target_id"]))
            if contract == "training_example":
                found.examples.append(record)
    for task in settings.tasks if not settings.privacy.scores_by_event else ():
        topic = settings.topics.scores(task)
        for record in _of_user(settings, registry, topic, make_task(task).schema, user_id, home=True):
            found.staying.append(Copy(topic, record.partition, record.offset, record.key, record.timestamp))
    for copy, entity in _touches(settings, user_id):
        found.keyed.append(copy)
        found.entities.add(entity)
    found.state += _states(settings, user_id, found.targets)
    found.keyed += _notes(settings, registry, user_id, found)
    for topic in LETTERS:
        found.letters += map(_copy, letters_of(settings, registry, topic, *(names or (user_id,))))
    theirs = {(copy.topic, copy.partition, copy.offset) for copy in found.letters}
    letters = map(_copy, locked(settings, registry))
    found.staying += [copy for copy in letters if (copy.topic, copy.partition, copy.offset) not in theirs]
    return found


def _copy(message: Message) -> Copy:
    place = str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)
    return Copy(*place, message.key() or b"", message.timestamp()[1])


def _notes(settings: Settings, registry: Registry, user_id: str, found: Copies) -> Iterator[Copy]:
    """What analysts wrote about the person's orders: by the person, where that was known, and by the order."""
    person, topics = persons(settings).of(user_id), settings.topics
    orders = {target for task, target in found.targets if task == Fraud.name}
    orders |= {copy.key.decode(errors="replace") for copy in found.keyed if copy.topic == topics.alerts}
    for chunk in TopicReader(settings, registry, topics.notes, "case_note").chunks():
        for note in chunk:
            if note.record["person"] == person or note.record["order_id"] in orders:
                yield Copy(topics.notes, note.partition, note.offset, note.key, note.timestamp)


def keyed_topics(settings: Settings) -> list[tuple[str, str]]:
    """Topic and contract: each record has a key of its own there, and says whose it is."""
    topics, tasks = settings.topics, settings.tasks
    found = [(topics.served(task), "served") for task in tasks]
    found += [(topics.alerts, "fraud_alert"), (topics.shadow, "shadow_score"), (topics.examples, "training_example")]
    if settings.privacy.scores_by_event:
        found += [(topics.scores(task), make_task(task).schema) for task in tasks]
    return found


def of_the_shop(settings: Settings, registry: Registry, user_id: str, found: Copies) -> dict[str, int]:
    """Records on the shop's own topics, by topic: events of the person, labels on what was served to them."""
    topics, counts = settings.topics, dict[str, int]()
    for topic, kind in zip(topics.inputs, EVENT_TYPES, strict=True):
        counts[topic] = sum(1 for _ in _of_user(settings, registry, topic, kind.schema, user_id, home=True))
    labels = TopicReader(settings, registry, topics.labels, "label")
    counts[topics.labels] = sum(
        (each.record["task"], each.record["target_id"]) in found.targets for chunk in labels.chunks() for each in chunk
    )
    lists = TopicReader(settings, registry, topics.lists, "list_entry")
    counts[topics.lists] = sum(
        (each.record["type"], each.record["token"]) == ("user", user_id) for chunk in lists.chunks() for each in chunk
    )
    return {topic: count for topic, count in counts.items() if count}


def _of_user(
    settings: Settings, registry: Registry, topic: str, contract: str, user_id: str, *, home: bool = False
) -> Iterator[Found]:
    """home: in the user's partition alone."""
    reader = TopicReader(settings, registry, topic, contract)
    own = partition_for(user_id.encode(), len(reader.bounds))

    def is_theirs(record: Record) -> bool:
        return bool(record["user_id"] == user_id)

    ranges = {part: ends for part, ends in reader.ranges.items() if part == own or not home}
    return reader.search(user_id, is_theirs, ranges)


def _touches(settings: Settings, user_id: str) -> Iterator[tuple[Copy, bytes]]:
    """With the name of what was touched."""
    for copy in _keys(settings, settings.topics.entity_events):
        if user_id.encode() in copy.key and (touch := touched(copy.key)) is not None and touch["user_id"] == user_id:
            yield copy, f"{touch['type']}:{touch['token']}".encode()


def superseded(settings: Settings, found: Copies) -> list[Copy]:
    """Of what was told of the person's cards and so on, all but what is told now of those that others use as well."""
    newest: dict[bytes, Copy] = {}
    old: list[Copy] = []
    for copy in _keys(settings, settings.topics.entity_state):
        if copy.key in found.entities:
            if copy.key in newest:
                old.append(newest[copy.key])
            newest[copy.key] = copy
    return old + [copy for copy in newest.values() if copy.deleted]


def deletions(settings: Settings, since: int) -> list[Copy]:
    """Deletions since a UTC ms of the broker, of what `find` has in `keyed`: their keys name what was deleted."""
    found = []
    for topic in (*(topic for topic, _ in keyed_topics(settings)), settings.topics.notes):
        starts = offsets_at(settings, topic, since)
        found += [copy for copy in _keys(settings, topic, starts=starts) if copy.deleted]
    return found


def _states(settings: Settings, user_id: str, targets: set[tuple[str, str]]) -> Iterator[Copy]:
    """Rows of the user in the logs of workers and of the label join; deletions of them too, as their keys say whom."""
    partition = partition_for(user_id.encode(), settings.partitions)
    state, name = settings.topics.state, USER + user_id.encode()
    yield from (copy for copy in _keys(settings, state, partition) if copy.key == name)
    joined = {b"derive:" + rows.row_key(AD_CLICKS, user_id)}
    joined |= {b"join:" + rows.row_key(task, target) for task, target in targets}
    yield from (copy for copy in _keys(settings, settings.topics.label_state) if copy.key in joined)


def _keys(
    settings: Settings, topic: str, partition: int | None = None, starts: Mapping[int, int] | None = None
) -> Iterator[Copy]:
    """All records of a topic, of one partition or of all, from offsets by partition on."""
    wanted: list[Place] = places(settings, topic) if partition is None else [(topic, partition)]
    for (_, part), (low, high) in bounds(settings, wanted).items():
        for messages in read_range(settings, topic, part, max(low, (starts or {}).get(part, low)), high):
            for message in messages:
                gone = message.value() is None
                yield Copy(topic, part, message.offset(), message.key() or b"", message.timestamp()[1], gone)
