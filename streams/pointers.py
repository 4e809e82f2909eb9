"""The pointers on models.releases: which version of each task is live, and how one writer at a time moves them.
A move is compare-and-set: the newest pointer is read by the one who has just shut all other writers out.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Self

from schemas.confluent import ConfluentRegistry
from schemas.errors import ReleaseError
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.events import Record
from streams.offsets import bounds, newest_by_key, read_range
from streams.transactions import Sent, TransactionalProducer

PARTITION = 0  # the topic has one: pointers and releases in one order
LIVE, PINNED = "live", "pinned"
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which version of a task is live. Whoever follows ignores an epoch that is not higher than the last."""

    task: str
    version: str
    previous: str | None
    epoch: int
    pinned: bool
    """A person has said that it stays: only a person moves it."""
    announced_at: int
    """UTC ms."""

    @classmethod
    def of(cls, record: Record) -> Self | None:
        """None for a record that announces a release and points to nothing."""
        if record["kind"] != "pointer":
            return None
        return cls(
            record["task"],
            record["version"],
            record["previous"],
            record["epoch"],
            record["state"] == PINNED,
            record["announced_at"],
        )

    def record(self) -> dict[str, object]:
        """As the contract has it."""
        return {
            "task": self.task,
            "version": self.version,
            "previous": self.previous,
            "epoch": self.epoch,
            "kind": "pointer",
            "state": PINNED if self.pinned else LIVE,
            "manifest": "",
            "gate": "",
            "announced_at": self.announced_at,
        }


@dataclass(frozen=True, slots=True)
class Announcement:
    """What became of a release: the record that is kept of it on models.releases, under its own key."""

    task: str
    version: str
    state: str
    """`live`, `refused` by the gate, `retired` (its champion was not live any more), `rolled back`, or `worse` (than
    the one before it, by labels that came when another had taken over)."""
    manifest: str
    """JSON."""
    gate: str
    """JSON: the gate's report, or of what was rolled back the watch's verdict."""
    announced_at: int
    """UTC ms."""

    @classmethod
    def of(cls, record: Record) -> Self | None:
        """None for a pointer."""
        if record["kind"] != "release":
            return None
        return cls(*(record[name] for name in ("task", "version", "state", "manifest", "gate", "announced_at")))

    @property
    def key(self) -> bytes:
        return f"{self.task}/{self.version}".encode()

    def record(self) -> dict[str, object]:
        """As the contract has it."""
        return {
            "task": self.task,
            "version": self.version,
            "previous": None,
            "epoch": 0,
            "kind": "release",
            "state": self.state,
            "manifest": self.manifest,
            "gate": self.gate,
            "announced_at": self.announced_at,
        }


class Pointers:
    """The one writer of the pointers, for as long as nobody else makes one.

    Making one reads the topic to its end, after it has shut the writer before it out: what it knows is all there is,
    and what it writes later fails with Fenced if somebody has come after it.
    """

    def __init__(self, settings: Settings, registry: Registry) -> None:
        """Raises BrokerUnavailable, RegistryUnavailable, SettingsError (no such topic)."""
        self._topic = settings.topics.releases
        self._encode = Encoder(registry, self._topic, "model_release")
        self._producer = TransactionalProducer(settings, f"{settings.app_id}-releases", self._topic, TIMEOUT_S)
        self._producer.partitions(self._topic)
        self._live = dict(read_pointers(settings, registry))

    def announce(self, announcement: Announcement) -> None:
        """Returns when the broker has it. Raises what `move` raises."""
        self._producer.send([], self._sent(announcement))

    def get(self, task: str) -> Pointer | None:
        return self._live.get(task)

    def move(
        self,
        task: str,
        version: str,
        *,
        now_ms: int,
        pinned: bool = False,
        by_hand: bool = False,
        announcements: Iterable[Announcement] = (),
    ) -> Pointer:
        """Makes a version live, and returns when the broker has it, with what is announced in the same transaction.

        A pinned pointer moves by hand only: ReleaseError. Raises Fenced where somebody else has become the writer.
        """
        before = self._live.get(task)
        if before is not None and before.pinned and not by_hand:
            raise ReleaseError(
                f"{task}/{before.version} is pinned",
                where=self._topic,
                expected="a pointer that may be moved",
                todo=f"run `headrace releases promote {task}/{version}` if that is what you want",
            )
        epoch, previous = (before.epoch + 1, before.version) if before else (1, None)
        if before is not None and before.version == version:
            previous = before.previous  # pinning what is live does not forget what to go back to
        pointer = Pointer(task, version, previous, epoch, pinned, now_ms)
        last = Sent(self._topic, PARTITION, f"{task}/live".encode(), self._encode(pointer.record()))
        self._producer.send([self._sent(one) for one in announcements], last)
        self._live[task] = pointer
        return pointer

    def roll_back(
        self, task: str, *, now_ms: int, by_hand: bool = False, announcements: Iterable[Announcement] = ()
    ) -> Pointer:
        """Makes the version before the live one live again. ReleaseError where there is none."""
        before = self._live.get(task)
        if before is None or before.previous is None:
            raise ReleaseError(
                f"there is no release of {task} to go back to",
                where=self._topic,
                expected="a pointer that has moved once",
                todo="run `headrace releases list` and `headrace releases promote TASK/VERSION`",
            )
        return self.move(task, before.previous, now_ms=now_ms, by_hand=by_hand, announcements=announcements)

    def _sent(self, announcement: Announcement) -> Sent:
        return Sent(self._topic, PARTITION, announcement.key, self._encode(announcement.record()))


def read_pointers(settings: Settings, registry: Registry) -> Iterator[tuple[str, Pointer]]:
    """(task, pointer) of each pointer that is on the topic now, oldest first: the last of a task counts.

    A record that cannot be decoded is BadRecord. Raises BrokerUnavailable, SettingsError (no such topic).
    """
    topic, decode = settings.topics.releases, Decoder(registry, "model_release")
    low, high = bounds(settings, [(topic, PARTITION)])[topic, PARTITION]
    for messages in read_range(settings, topic, PARTITION, low, high):
        for message in messages:
            if message.value() is None:
                continue
            if (pointer := Pointer.of(decode(message.value()))) is not None:
                yield pointer.task, pointer


def announcements(settings: Settings) -> list[Announcement]:
    """What was last said of each release, in the order in which that was said."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        decode = Decoder(registry, "model_release")
        records = map(decode, newest_by_key(settings, settings.topics.releases, PARTITION).values())
        return [said for record in records if (said := Announcement.of(record)) is not None]


def live_pointers(settings: Settings) -> Mapping[str, Pointer]:
    """By task; for who only looks."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        return dict(read_pointers(settings, registry))
