"""Rows of a file to records on a topic: each is validated against its contract and by the rules of its event.
A file is validated whole before anything is sent; stdin, which may not end, is sent as it comes."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import IO, Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from schemas.errors import BadRecord, ProduceFailed
from schemas.registry import Registry
from schemas.values import from_json
from schemas.wire import Encoder
from streams.catalog import check_item
from streams.clients import consumer, partitions, producer
from streams.config import Settings
from streams.contracts import TopicContract, writable
from streams.events import EVENT_TYPES, EventType, check
from streams.privacy.pseudonyms import publishing
from streams.row_files import STDIN, Row, read_rows

FLUSH_S = 60.0
IN_FLIGHT = 10_000  # the client queues without bound
SPOOL_BYTES = 16 << 20  # above this, what waits for the end of the file waits on disk
_sizes = Struct(">II")

Message = tuple[bytes, bytes]  # key, value
Header = tuple[str, bytes]


@dataclass(slots=True)
class Summary:
    """What became of the rows. `bad` counts skipped rows by code; `examples` are the first of them."""

    topic: str
    rows: int = 0
    published: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def skip(self, error: BadRecord, keep: int = 3) -> None:
        self.bad[error.code] += 1
        if len(self.examples) < keep:
            self.examples.append(str(error))


class Validation:
    """Rows to messages: the contract, what no shop can mean, the size. Raises BadRecord with the place."""

    def __init__(self, settings: Settings, contract: TopicContract, registry: Registry) -> None:
        self._contract, self._limit = contract, settings.max_message_bytes
        self._encode = Encoder(registry, contract.name, contract.contract)
        self._event: EventType | None = next((kind for kind in EVENT_TYPES if kind.schema == contract.contract), None)
        self._publishing = publishing(settings)

    def __call__(self, row: Row) -> Message:
        if isinstance(row.value, BadRecord):
            raise row.value
        try:
            return self._message(row.value)
        except BadRecord as error:
            place = f"{row.where}, {error.where}" if error.where else row.where
            raise BadRecord(error.code, error.what, where=place, expected=error.expected, todo=error.todo) from error

    def _message(self, value: Any) -> Message:
        record = from_json(self._contract.contract, value)
        if self._event is not None:
            check(record, self._event, time.time_ns() // 1_000_000)
        elif self._contract.contract == "catalog_item":
            check_item(record)
        if not record[self._contract.key_field]:
            raise BadRecord("out_of_range", "an empty key", where=self._contract.key_field, expected="an id")
        if self._event is not None:
            record = self._publishing(record)
        key = str(record[self._contract.key_field])
        encoded = self._encode(record)
        if len(encoded) > self._limit:
            expected = f"at most {self._limit} (max_message_bytes)"
            raise BadRecord("oversized", f"a record of {len(encoded)} bytes", expected=expected)
        return key.encode(), encoded


def publish(
    settings: Settings,
    registry: Registry,
    topic: str,
    source: str,
    *,
    skip_bad: bool = False,
    dry_run: bool = False,
    headers: Iterable[Header] = (),
    advance: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Publishes the rows of `source` (a file, or `-`) to `topic`, and returns when all are acknowledged.

    Without `skip_bad` the first bad row is raised: of a file nothing was sent then, of stdin the rows before
    it were. `dry_run` only validates. `advance` is called now and then. Raises SettingsError, BadRecord,
    RegistryUnavailable, BrokerUnavailable, ProduceFailed.
    """
    contract = writable(settings, topic)
    with read_rows(source, 8 * settings.max_message_bytes) as rows:
        summary = Summary(contract.name)
        valid = validated(rows, Validation(settings, contract, registry), summary, skip_bad)
        if dry_run:
            for _ in valid:
                advance(summary)
            return summary
        with consumer(settings) as client:
            partitions(settings, client, contract.name)
        with producer(settings) as client:
            messages = valid if source == STDIN or skip_bad else _whole(valid)
            _send_all(Sending(client, contract.name, list(headers), summary, advance), messages)
    return summary


def _send_all(sending: "Sending", messages: Iterable[Message]) -> None:
    """A bad row's error says what became of those before it."""
    try:
        sending.run(messages)
    except BadRecord as error:
        sent = sending.summary.published
        todo = f"{sent} rows before it were published" if sent else "nothing was published"
        raise BadRecord(
            error.code, error.what, where=error.where, expected=error.expected, todo=f"{todo}; see --skip-bad"
        ) from error


def validated(rows: Iterable[Row], validate: Validation, summary: Summary, skip_bad: bool) -> Iterator[Message]:
    for row in rows:
        summary.rows += 1
        try:
            message = validate(row)
        except BadRecord as error:
            if not skip_bad:
                raise
            summary.skip(error)
        else:
            yield message


def _whole(messages: Iterator[Message]) -> Iterator[Message]:
    """The same messages, but the first one only once the last one is known to be good."""
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
        for key, value in messages:
            spool.write(_sizes.pack(len(key), len(value)) + key + value)
        spool.seek(0)
        yield from _spooled(spool)


def _spooled(spool: IO[bytes]) -> Iterator[Message]:
    while sizes := spool.read(_sizes.size):
        key_size, value_size = _sizes.unpack(sizes)
        yield spool.read(key_size), spool.read(value_size)


class Sending:
    """Messages to acknowledgements; the first refusal ends it."""

    def __init__(
        self,
        client: KafkaProducer,
        topic: str,
        headers: list[Header],
        summary: Summary,
        advance: Callable[[Summary], None],
    ) -> None:
        self._client, self._topic, self._headers = client, topic, headers
        self.summary, self._advance = summary, advance
        self._refusal: BaseException | None = None
        self._sent = 0

    def run(self, messages: Iterable[Message]) -> None:
        """Returns when all are acknowledged; whatever ends it, what was sent is waited for."""
        try:
            for key, value in messages:
                self._send(key, value)
                self._advance(self.summary)
        finally:
            self._flush()

    def _send(self, key: bytes, value: bytes) -> None:
        self._check()
        try:
            sent = self._client.send(self._topic, value=value, key=key, headers=self._headers)
        except KafkaError as error:
            raise self._failed(error) from error
        sent.add_callback(self._acknowledged)
        sent.add_errback(self._refused)
        self._sent += 1
        if self._sent % IN_FLIGHT == 0:
            self._flush()

    def _flush(self) -> None:
        try:
            self._client.flush(timeout=FLUSH_S)
        except KafkaError as error:
            raise self._failed(error) from error
        self._check()

    def _acknowledged(self, _: object) -> None:
        self.summary.published += 1

    def _refused(self, error: BaseException) -> None:
        self._refusal = self._refusal or error

    def _check(self) -> None:
        if self._refusal is not None:
            raise self._failed(self._refusal) from self._refusal

    def _failed(self, error: BaseException) -> ProduceFailed:
        return ProduceFailed(
            f"the broker did not take a record: {error or type(error).__name__}",
            where=self._topic,
            todo=f"{self.summary.published} of the rows were published; an event sent again counts once",
        )
