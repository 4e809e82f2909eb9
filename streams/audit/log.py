"""The topic audit.log: one process at a time appends, after it has shut the one before out and read what that wrote.
Two consoles may take turns as they like: who was shut out comes back with the next append."""

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from schemas.errors import BadRecord, BrokerUnavailable, Fenced, HeadraceError, StateError
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.access.places import AUDIT_HEAD, access_folder, write_private
from streams.audit.chain import Entry, Head, Unreadable, following
from streams.audit.pseudonyms import Pseudonyms
from streams.config import Settings
from streams.notices import Notices
from streams.offsets import bounds, read_range
from streams.transactions import Sent, TransactionalProducer

log = logging.getLogger(__name__)

PARTITION = 0  # the topic has one
TIMEOUT_S = 20.0
BACK_S = 0.2  # at most, before who was shut out comes back


class Audit:
    """Safe from threads; each append takes some hundredths of a second. Connects with the first."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        """Raises SettingsError, StateError: of the folder with the key."""
        self._settings, self._registry = settings, registry
        self._topic = settings.topics.audit
        self.pseudonyms = Pseudonyms(access_folder(settings))
        self._notices = Notices(log)
        self._lock = threading.Lock()
        self._encode: Encoder | None = None
        self._producer: TransactionalProducer | None = None
        self._last: Entry | None = None
        self._end: int | None = None  # of what was read

    def append(self, who: str, action: str, subject: str, detail: Mapping[str, Any], now_ms: int) -> Entry:
        """Returns when the broker has it. `who` is a name; the log gets its pseudonym. `subject` goes in as it is.

        Raises BrokerUnavailable, RegistryUnavailable, SettingsError (no such topic), ProduceFailed, BadRecord.
        """
        text = json.dumps(detail, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if not self._lock.acquire(timeout=TIMEOUT_S):  # else those who wait would wait for each other's patience
            raise BrokerUnavailable(f"no turn in {TIMEOUT_S:.0f} s", where=self._topic, todo="look at the broker")
        try:
            entry = self._appended(now_ms, self.pseudonyms.of(who), action, subject, text)
            self._remember(entry)
        finally:
            self._lock.release()
        return entry

    def _appended(self, at: int, who: str, action: str, subject: str, detail: str) -> Entry:
        deadline, tried = time.monotonic() + TIMEOUT_S, None
        while True:
            try:
                if self._producer is None and (done := self._connect(tried)) is not None:
                    return done
                tried = following(self._last, at, who, action, subject, detail)
                self._send(tried)
                return tried
            except (Fenced, BrokerUnavailable) as error:
                self._producer = None
                if time.monotonic() > deadline:
                    raise _given_up(error, self._topic) from error
                time.sleep(random.uniform(0, BACK_S))
            except HeadraceError:
                self._producer = None
                raise

    def _send(self, entry: Entry) -> None:
        assert self._producer is not None
        assert self._encode is not None
        value = self._encode(entry.record())
        self._end = self._producer.send([], Sent(self._topic, PARTITION, None, value)) + 1
        self._last = entry

    def _connect(self, tried: Entry | None) -> Entry | None:
        """Shuts others out and reads what they wrote; `tried` if it turns out to be there."""
        if self._encode is None:
            self._encode = Encoder(self._registry, self._topic, "audit_entry")
        producer = TransactionalProducer(self._settings, f"{self._settings.app_id}-audit", self._topic, TIMEOUT_S)
        producer.partitions(self._topic)
        found = self._written_since()
        self._producer = producer
        return next((entry for entry in found if entry == tried), None)

    def _written_since(self) -> list[Entry]:
        low, high = bounds(self._settings, [(self._topic, PARTITION)])[self._topic, PARTITION]
        if self._end is None or not low <= self._end <= high:
            whole = _back(self._settings, self._registry, low, high, lambda found: bool(_entries(found)))
            found, self._last = _entries(whole), None
        else:
            found = _entries(_read(self._settings, self._registry, self._end, high))
        if found:
            self._last = found[-1]
        self._end = high
        return found

    def _remember(self, entry: Entry) -> None:
        """For `verify`: an end that is cut off shows only to who knows that there was more.

        So a log that is shorter than it was does not make its new end the one to remember.
        """
        try:
            before = remembered_head(self._settings)
            if before is None or before.sequence < entry.sequence:
                remember_head(self._settings, Head(entry.sequence, entry.hash))
            elif before != Head(entry.sequence, entry.hash):
                self._notices.say(self._topic, f"had {before.sequence} entries before: run `headrace audit verify`")
        except HeadraceError as error:
            self._notices.say(self._topic, f"entry {entry.sequence} is written, its head not remembered: {error}")


def read(settings: Settings, registry: Registry) -> Iterator[Entry | Unreadable]:
    """All that is on the topic now, oldest first. Raises BrokerUnavailable, RegistryUnavailable, SettingsError."""
    low, high = bounds(settings, [(settings.topics.audit, PARTITION)])[settings.topics.audit, PARTITION]
    yield from _read(settings, registry, low, high)


def newest(settings: Settings, registry: Registry, count: int, before: int | None = None) -> list[Entry | Unreadable]:
    """The last `count`, oldest first, of offsets below `before`: the first one's offset leads to the page before."""
    place = settings.topics.audit, PARTITION
    low, high = bounds(settings, [place])[place]
    end = high if before is None else max(low, min(before, high))
    return _back(settings, registry, low, end, lambda found: len(found) >= count)[-count:]


def _back(
    settings: Settings, registry: Registry, low: int, end: int, enough: Callable[[list[Entry | Unreadable]], bool]
) -> list[Entry | Unreadable]:
    """What is before `end`, read from as far back as it takes."""
    width = 64  # each transaction's mark has an offset, too
    while True:
        start = max(low, end - width)
        found = list(_read(settings, registry, start, end))
        if start == low or enough(found):
            return found
        width *= 4


def remembered_head(settings: Settings) -> Head | None:
    """Of the newest entry that this machine wrote or verified. StateError if what is remembered is damaged."""
    path = access_folder(settings) / AUDIT_HEAD
    try:
        text = path.read_text("ascii", "replace")
    except FileNotFoundError:
        return None
    if (head := Head.parse(text)) is None:
        raise StateError(
            "what is remembered of the audit log is damaged",
            where=str(path),
            expected="SEQUENCE:HASH",
            todo="find out who wrote there; without the file, an end that is cut off does not show",
        )
    return head


def remember_head(settings: Settings, head: Head) -> None:
    """SettingsError if it cannot be written."""
    write_private(access_folder(settings) / AUDIT_HEAD, f"{head}\n")


def _read(settings: Settings, registry: Registry, start: int, end: int) -> Iterator[Entry | Unreadable]:
    decode = Decoder(registry, "audit_entry")
    for messages in read_range(settings, settings.topics.audit, PARTITION, start, end):
        found = decode.decode_many([message.value() for message in messages])
        for message, record in zip(messages, found, strict=True):
            if isinstance(record, BadRecord):
                yield Unreadable(message.offset(), str(record))
            else:
                yield Entry.of(record, message.offset())


def _entries(found: Iterable[Entry | Unreadable]) -> list[Entry]:
    return [entry for entry in found if isinstance(entry, Entry)]


def _given_up(error: HeadraceError, topic: str) -> HeadraceError:
    if not isinstance(error, Fenced):
        return error
    return BrokerUnavailable(
        f"others were first for {TIMEOUT_S:.0f} s",
        where=topic,
        expected="some consoles, not a crowd",
        todo="this is retried; look for a process that appends without end",
    )
