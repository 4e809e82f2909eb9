"""Dead letters: messages that could not be used, kept with bytes and reason, to be found and brought home.
What was brought home is marked on the topic itself, in the transaction that re-published it.

A mark is a record without a value, in its letters' partition, whose header lists their offsets: no letter
outlives its mark, a replay that dies is whole up to there and the next goes on; of two at once one is fenced.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from confluent_kafka import Message

from schemas.errors import BadRecord, DataUnavailable, ProduceFailed, SettingsError, StateError
from schemas.reading import Record
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.config import Settings
from streams.homeward import REPLAY, Homeward
from streams.offsets import bounds, places, read_range
from streams.privacy.sealed_letters import LetterSeals
from streams.raw import RawRecord
from streams.transactions import Sent, TransactionalProducer

log = logging.getLogger(__name__)

CUT = "headrace-cut"  # of a dead letter: how many bytes the original value has
DONE = "headrace-brought-home"  # of a mark: offsets, comma-separated

SIDE_BYTES = 65_536  # of a key, and of headers: what a letter carries beside the value
CARRIED_BYTES = 1_800_000
CHUNK = 100  # letters held at a time, in reading and in a transaction: they may be a megabyte each
TEXT_CHARS = 2_000


def dead_letter(record: RawRecord | Message, error: BadRecord, now_ms: int, limit: int = CARRIED_BYTES) -> Record:
    """The DeadLetter of a message, to be published under the letter's own key.

    Compression can bring in what no topic takes once it is unpacked: a value of more than `limit` bytes, a key or
    headers of more than SIDE_BYTES are cut there, and such a message cannot be brought home.
    """
    given = RawRecord.of(record) if isinstance(record, Message) else record
    topic, partition, offset, timestamp, key, value, headers = given
    replays = sum(name == REPLAY and _number(count) for name, count in headers)
    kept = [{"name": name, "value": content} for name, content in headers if name not in (REPLAY, CUT)]
    side = sum(len(name) + len(content or b"") for name, content in headers)
    if len(value or b"") > limit or len(key or b"") > SIDE_BYTES or side > SIDE_BYTES:
        kept = [*(kept if side <= SIDE_BYTES else ()), {"name": CUT, "value": str(len(value or b"")).encode()}]
        key, value = key and key[:SIDE_BYTES], value and value[:limit]
    return {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "timestamp": timestamp,
        "key": key,
        "value": value,
        "headers": kept,
        "code": error.code,
        "message": _text("; at ".join(filter(None, (error.what, error.where)))),
        "expected": _text(error.expected),
        "what_to_do": _text(error.todo),
        "failed_at": now_ms,
        "replays": replays,
        "sealed": False,
        "said": None,
    }


def carried_bytes(settings: Settings) -> int:
    """The longest value that a dead letter carries: above the inputs' limit, and within the topic's own."""
    return 2 * max(1_048_588, settings.max_message_bytes + 4_096) - 4 * SIDE_BYTES


def letter_bytes(settings: Settings) -> int:
    """What a producer of dead letters, and of what comes home, must be allowed: `message.max.bytes`."""
    return carried_bytes(settings) + 4 * SIDE_BYTES


def _number(digits: bytes | None) -> int:
    return int(digits) if digits and digits.isdigit() and len(digits) < 6 else 0


def _text(text: str) -> str:
    """Fit for Avro and for a person: it may quote what a stranger sent."""
    return text[:TEXT_CHARS].encode(errors="replace").decode()


def notice(letter: Record) -> tuple[str, str]:
    """Subject and text for streams.notices."""
    where = f"{letter['topic']}[{letter['partition']}] at {letter['offset']}"
    return f"dead letter, {letter['code']}", f"{letter['message'][:200]} ({where})"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter where it lies; `home` if it was brought home. Its record is sealed where the key is not known."""

    partition: int
    offset: int
    record: Record
    home: bool = False

    @property
    def id(self) -> str:
        return f"{self.partition}:{self.offset}"

    @property
    def cut(self) -> bool:
        return any(header["name"] == CUT for header in self.record["headers"])


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters: an empty field takes all. Times are UTC ms of `failed_at`, `until` not included."""

    codes: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    since: int = 0
    until: int = 2**63
    home: bool = False
    """Also those that were brought home already."""

    def may_be_in(self, partition: int) -> bool:
        return not self.ids or any(letter_id.startswith(f"{partition}:") for letter_id in self.ids)

    def takes(self, letter: Letter) -> bool:
        record = letter.record
        return (
            (self.home or not letter.home)
            and (not self.codes or record["code"] in self.codes)
            and (not self.topics or record["topic"] in self.topics)
            and (not self.ids or letter.id in self.ids)
            and self.since <= record["failed_at"] < self.until
        )


@dataclass(slots=True)
class Replayed:
    """What a replay did. `refused`: id and reason of letters that stay, the first 100 of `refusals`."""

    sent: int = 0
    refusals: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)

    def refuse(self, letter: Letter, why: str) -> None:
        self.refusals += 1
        if len(self.refused) < 100:
            self.refused.append((letter.id, why))


class DeadLetters:
    """The dead letters on the topic; CHUNK of them are in memory at a time.

    All raise BrokerUnavailable, RegistryUnavailable, and SettingsError where the topic does not exist.
    """

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings, self._registry = settings, registry
        self._decode, self._seals = Decoder(registry, "dead_letter"), LetterSeals(settings)
        self._topic = settings.topics.deadletters

    def find(self, selection: Selection) -> Iterator[Letter]:
        """The selected letters that are there now, by partition and offset."""
        for chunk in self._chunks(selection):
            yield from chunk

    def show(self, letter_id: str) -> Letter:
        """The letter of this id, brought home or not. DataUnavailable if there is none."""
        letter = next(self.find(Selection(ids=frozenset({letter_id}), home=True)), None)
        if letter is None:
            raise DataUnavailable(
                f"no dead letter {letter_id!r}",
                where=self._topic,
                expected="partition:offset, as `headrace deadletters list` shows it",
            )
        return letter

    def replay(self, selection: Selection, progress: Callable[[Replayed], None] | None = None) -> Replayed:
        """Re-publishes the selected letters that are there now: original key, value and headers, each once,
        in the partition of the key. One that fails again is a new letter. Raises Fenced as well.
        """
        # Made first: it waits until what a predecessor left open is closed, and so is marked or not.
        sender = _Sender(self._settings, self._registry)
        for chunk in self._chunks(selection):
            sender.send(chunk)
            if progress:
                progress(sender.done)
        return sender.done

    def _chunks(self, selection: Selection) -> Iterator[list[Letter]]:
        """Selected letters, by partition. Marks come after their letters, so everything is read twice."""
        found = bounds(self._settings, places(self._settings, self._topic))
        for (_, partition), (low, high) in found.items():
            if not selection.may_be_in(partition):
                continue
            home = bytearray(high - low)
            for message in chain.from_iterable(self._read(partition, low, high)):
                for offset in _marked(message):
                    if offset >= low:
                        home[offset - low] = 1
            for messages in self._read(partition, low, high):
                letters = self._letters([message for message in messages if message.value() is not None])
                chunk = [replace(letter, home=bool(home[letter.offset - low])) for letter in letters]
                yield [letter for letter in chunk if selection.takes(letter)]

    def _read(self, partition: int, low: int, high: int) -> Iterator[list[Message]]:
        return read_range(self._settings, self._topic, partition, low, high, batch=CHUNK)

    def _letters(self, messages: Sequence[Message]) -> Iterator[Letter]:
        records = self._decode.decode_many([message.value() for message in messages])
        for message, record in zip(messages, records, strict=True):
            if isinstance(record, BadRecord):
                where = f"{self._topic}[{message.partition()}] at {message.offset()}"
                log.warning("%s is no dead letter: %s", where, record)
            else:
                yield Letter(message.partition(), message.offset(), opened(self._seals, record))


def opened(seals: LetterSeals, record: Record) -> Record:
    """As it is where its key is not known here."""
    try:
        return seals.open(record)
    except StateError:
        return record


class _Sender:
    """Sends chunks home, each with its mark in one transaction; finds what the broker refuses by halving."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings, self._topic = settings, settings.topics.deadletters
        self._producer = self._new_producer()
        self._homeward = Homeward(settings, registry, lambda topic: self._producer.partitions(topic))
        self.done = Replayed()

    def _new_producer(self) -> TransactionalProducer:
        return TransactionalProducer(
            self._settings,
            f"{self._settings.app_id}-replay",
            f"the replay of {self._topic}",
            **{"message.max.bytes": letter_bytes(self._settings)},
        )

    def send(self, letters: Sequence[Letter]) -> None:
        """Letters of one partition of the topic."""
        good: list[tuple[Letter, Sent]] = []
        for letter in letters:
            try:
                good.append((letter, self._original(letter)))
            except SettingsError as error:
                self.done.refuse(letter, str(error))
        if good:
            self._try(good)

    def _try(self, pairs: list[tuple[Letter, Sent]]) -> None:
        offsets = ",".join(str(letter.offset) for letter, _ in pairs)
        mark = Sent(self._topic, pairs[0][0].partition, None, None, [(DONE, offsets.encode())])
        try:
            self._producer.send([sent for _, sent in pairs], mark)
            self.done.sent += len(pairs)
        except ProduceFailed as error:
            self._producer = self._new_producer()
            if len(pairs) == 1:
                self.done.refuse(pairs[0][0], str(error))
            else:
                self._try(pairs[: len(pairs) // 2])
                self._try(pairs[len(pairs) // 2 :])

    def _original(self, letter: Letter) -> Sent:
        """The message as it was, and the count of its replays. SettingsError if it cannot go home."""
        if letter.cut:
            raise SettingsError("only its beginning is kept", todo=f"publish it to {letter.record['topic']} again")
        return self._homeward(letter.record)


def _marked(message: Message) -> Iterator[int]:
    """Offsets that a mark says were brought home; none if it is no mark."""
    if message.value() is None:
        for name, content in message.headers() or ():
            if name == DONE:
                yield from map(int, content.split(b","))
