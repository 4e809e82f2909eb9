"""One message of a shop's own topic to one message of Headrace's: decoded, mapped, checked as the worker checks.
What comes out is what the worker takes; what does not is a dead letter here and never reaches it.
"""

from pathlib import Path
from typing import Any, NamedTuple

from schemas.errors import BadRecord
from schemas.registry import Registry
from schemas.wire import Encoder
from streams.catalog import check_item
from streams.config import Settings
from streams.contracts import TopicContract, topic_contract
from streams.events import EVENT_TYPES, EventType, Record, check
from streams.mapping.compiling import Compiled
from streams.mapping.decoding import decoder
from streams.mapping.document import TARGETS, read
from streams.mapping.paths import Message
from streams.privacy.pseudonyms import publishing
from streams.raw import RawRecord


class Mapped(NamedTuple):
    """A record of the contract, and the message that it is published as."""

    record: Record
    key: bytes
    value: bytes


class Mapper:
    """Used from one thread. Making one registers the contract: SchemaError, RegistryUnavailable."""

    def __init__(self, settings: Settings, registry: Registry, compiled: Compiled, folder: Path) -> None:
        """`folder` is the mapping file's: what it names lies beside it. SettingsError where that cannot be used."""
        self.compiled = compiled
        document = compiled.document
        self.contract = topic_contract(settings, TARGETS[document.target])
        self._decode = decoder(document, registry, folder)
        self._finish = Finish(settings, registry, self.contract)

    @classmethod
    def of(cls, settings: Settings, registry: Registry, path: str) -> "Mapper":
        """Of a mapping file. SettingsError that names all that is wrong with it."""
        return cls(settings, registry, Compiled(read(path), path), Path(path).parent)

    def __call__(self, raw: RawRecord, now_ms: int) -> Mapped | None:
        """None for what the mapping leaves out, and for a deletion. Raises BadRecord, RegistryUnavailable."""
        if raw.value is None:
            return None
        return self.of_value(self._decode(raw.value), raw, now_ms)

    def of_value(self, value: Any, raw: RawRecord, now_ms: int) -> Mapped | None:
        """As above, of a value that is decoded: a row of a file."""
        record = self.compiled(message_of(raw, value))
        return None if record is None else self._finish(record, max(raw.timestamp, now_ms))


class Finish:
    """Records of a contract to messages: what no shop can mean, no key and too many bytes are a BadRecord.

    Of an event the chosen fields have pseudonyms, its user as well: it is placed by the name that it is read under.
    """

    def __init__(self, settings: Settings, registry: Registry, contract: TopicContract) -> None:
        self._encode = Encoder(registry, contract.name, contract.contract)
        self._key_field, self._limit = contract.key_field, settings.max_message_bytes
        self._contract = contract.contract
        self._event: EventType | None = next((each for each in EVENT_TYPES if each.schema == contract.contract), None)
        self._publishing = publishing(settings)

    def __call__(self, record: Record, now_ms: int) -> Mapped:
        if self._event is not None:
            check(record, self._event, now_ms)
        elif self._contract == "catalog_item":
            check_item(record)
        if not record[self._key_field]:
            raise BadRecord("out_of_range", "an empty key", where=self._key_field, expected="an id")
        if self._event is not None:
            record = self._publishing(dict(record))
        key = record[self._key_field].encode()
        value = self._encode(record)
        if len(value) > self._limit:
            expected = f"at most {self._limit} (max_message_bytes)"
            raise BadRecord("oversized", f"a record of {len(value)} bytes", expected=expected)
        return Mapped(record, key, value)


def message_of(raw: RawRecord, value: Any) -> Message:
    headers = {name: (content or b"").decode(errors="replace") for name, content in raw.headers} if raw.headers else {}
    key = raw.key.decode(errors="replace") if raw.key else ""
    return Message(value, key, headers, raw.topic, raw.partition, raw.offset, raw.timestamp)
