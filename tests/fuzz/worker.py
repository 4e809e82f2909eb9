"""Messages of shops through the scoring loop's body: decoded, absorbed, made features of, scored, written.
A record that passes the checks and then breaks the loop would stop its partition for good: nothing may.
"""

from random import Random
from typing import Any, NamedTuple

from bench.scoring import PARTITIONS, make_scorer
from schemas import catalog
from schemas.errors import BadRecord
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from schemas.writing import compile_writer
from streams.asking.answers import Answers
from streams.asking.header import _HEAD as ANSWER_HEAD
from streams.asking.header import ASKED, Seal
from streams.events import EVENT_TYPES
from streams.history import HISTORY
from streams.homeward import MOVED
from streams.partitioning import partition_for
from streams.policy.decide import Policy
from streams.policy.facts import FACTS
from streams.policy.lists import Lists
from streams.policy.standing import Standing
from streams.raw import RawRecord
from streams.state import UserState
from streams.state.memory import MemoryStore
from streams.work import REPLAYED
from tests import records
from tests.fuzz import drawing
from tests.fuzz.target import Wrong

USERS = tuple(f"user-{number}" for number in range(40))
MAKERS = (records.click, records.order, records.impression)
SPOILT = 0.25
HEADERS: tuple[tuple[str, Any], ...] = (
    (HISTORY, b"1"), (HISTORY, None), (REPLAYED, b"1"), (MOVED, b"0"), (MOVED, b"\xff"), (ASKED, b""), (ASKED, None),
    ("headrace-replays", b"9" * 99), ("headrace-source", b"\xff\xfe"), ("", b""), ("x" * 300, b"y" * 3_000),
    ("traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"), ("traceparent", b"\xff"), ("traceparent", None),
)  # fmt: skip
ROWS, LIFE = 64, 3_000
"""Users in memory; inputs until the state begins anew."""


class Event(NamedTuple):
    """topic: its index; user: whose partition it lies on, whatever it says itself."""

    topic: int
    user: str
    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, Any], ...] = ()


class Scoring:
    """The state is kept from input to input, with fewer rows than users, so that users leave it and come back; it
    begins anew now and then, so that what grows is not what it is there to keep.
    """

    def __init__(self) -> None:
        self._scorer, registry = make_scorer()
        self._scorer.answers = Answers(self._scorer.tasks, self._scorer.codecs.said, Seal(), remembered=ROWS)
        self._encoders = {task.name: Encoder(registry, task.schema, task.schema) for task in self._scorer.tasks}
        self._scorer.policies = Standing(_every_fact())
        self._schemas = [catalog.load(kind.schema) for kind in EVENT_TYPES]
        self._write = [compile_writer(schema, b"\0" + self._id(registry, kind.schema)) for schema, kind in
                       zip(self._schemas, EVENT_TYPES, strict=True)]  # fmt: skip
        self._offsets = [0] * len(EVENT_TYPES)
        self._looked = 0
        self._said = {
            self._scorer.names.scores[task.name]: Decoder(registry, task.schema) for task in self._scorer.tasks
        } | dict.fromkeys(self._scorer.names.served.values(), Decoder(registry, "served"))

    @staticmethod
    def _id(registry: Registry, name: str) -> bytes:
        number = registry.register(name, catalog.load(name))
        return number.to_bytes(4, "big")

    def draw(self, random: Random) -> list[Event]:
        return [self._event(random) for _ in range(random.choice((1, 1, 2, 8, 30)))]

    def _event(self, random: Random) -> Event:
        topic, user = random.randrange(len(EVENT_TYPES)), random.choice(USERS)
        record = MAKERS[topic](user_id=user, event_id=f"e{random.randrange(10**9)}")
        drawn = drawing.value(random, self._schemas[topic], {})
        for name in random.sample(sorted(record), random.choice((0, 1, 2, len(record)))):
            record[name] = drawn[name]
        record["user_id"] = user if random.random() < 0.95 else drawn["user_id"]
        record["event_time"] = drawing.NOW_MS + random.choice((0, 1, random.randrange(-(10**10), 10**7)))
        value = self._write[topic](record)
        if random.random() < SPOILT:
            value = value[:5] + drawing.spoilt(random, value[5:])
        headers = self._headers(random, record, value) if random.random() < 0.15 else ()
        return Event(topic, record["user_id"], value, drawing.NOW_MS + random.randrange(10**6), headers)

    def _headers(self, random: Random, event: Any, value: bytes) -> tuple[tuple[str, Any], ...]:
        """What others of the project set, and answers that no worker gave: without a key anybody can seal them."""
        if random.random() < 0.3:
            return tuple(random.sample(HEADERS, random.randrange(1, 4)))
        task = random.choice(self._scorer.tasks)
        score = drawing.value(random, catalog.load(task.schema), {})
        same = {"event_id", "user_id", "event_time"} if random.random() < 0.9 else set()
        score |= {name: event[name] for name in same}
        body, name = self._encoders[task.name](score), task.name.encode()
        features = random.randbytes(task.features.itemsize) if random.random() < 0.5 else bytes(task.features.itemsize)
        match random.randrange(8):
            case 0:
                body = body[:5] + drawing.spoilt(random, body[5:])
            case 1:
                name = random.choice((b"\xff\xfe", b"", b"other", b"x" * 255))
            case 2:
                features = drawing.spoilt(random, features)
        bucket, row = (random.choice((0, 8, 512, 2**31 - 1, 2**31, 2**32 - 1)) for _ in range(2))
        whole = ANSWER_HEAD.pack(1, len(name), len(body), bucket, row, len(features)) + name + body + features
        sealed = Seal()._sealed(whole, value) + whole
        return ((ASKED, drawing.spoilt(random, sealed) if random.random() < 0.1 else sealed),)

    def look(self, given: list[Event]) -> str:
        scorer = self._scorer
        if self._looked % LIFE == 0:
            self._store = MemoryStore()
            scorer.state = UserState(ROWS, store=self._store)
        self._looked += 1
        parts = [(event.topic, [self._raw(event)]) for event in given]
        decoded = [(topic, raw, scorer.decode(topic, raw)) for topic, raw in parts]
        work = scorer.prepare(decoded, drawing.NOW_MS + 10**6)
        scorer.infer(work)
        first, second = scorer.outputs.waves(work)
        scored = sum(len(job.index) for job in work.jobs)
        answers = [self._said[sent.topic](sent.value) for sent in (*first, *second) if sent.topic in self._said]
        scores = sum("features" not in answer for answer in answers)
        if scores != scored:
            raise Wrong(f"{scored} events to score, {scores} scores")
        if failed := [failure for job in work.jobs for failure in job.failures]:
            raise Wrong(f"a release failed: {failed}")
        if self._looked % 16 == 0:
            self._save()
        bad = sum(isinstance(record, BadRecord) for _, _, found in decoded for record in found)
        return "scored" if not bad else "partly" if scored else "refused"

    def _save(self) -> None:
        """As a flush does: rows to the store, by partition."""
        snapshot = self._scorer.state.snapshot(range(PARTITIONS))
        for partition in range(PARTITIONS):
            self._store.write(partition, snapshot.rows(partition), self._looked)
        self._scorer.state.saved(snapshot)

    def _raw(self, event: Event) -> RawRecord:
        self._offsets[event.topic] += 1
        name, key = EVENT_TYPES[event.topic].name, event.user.encode()
        place = partition_for(key, PARTITIONS)
        return RawRecord(name, place, self._offsets[event.topic], event.timestamp, key, event.value, event.headers)

    def close(self) -> None: ...


def _every_fact() -> Policy:
    """A rule a fact, so that all of them are read of each order."""
    rules = [
        f"[[rules]]\nid = \"r{number}\"\nwhen = '''{name} == {name}'''\nthen = \"note\"\n"
        for number, name in enumerate(FACTS)
    ]
    money = '[money]\ncurrency = "GBP"\nrates = { USD = 0.8 }\n'
    return Policy.parse(f'name = "all"\n{money}{"".join(rules)}', Lists(), "here")
