"""What a backfill carries, by its source: rows of a file or an old topic, through a mapping or in the contract already.
Everything of it is marked as history.
"""

from pathlib import Path

from schemas.errors import BadRecord, SettingsError
from schemas.registry import Registry
from schemas.values import from_json
from schemas.wire import Decoder
from streams.backfill.files import BadRows, FileReader, digest_of
from streams.config import Settings
from streams.contracts import TopicContract, writable
from streams.mapping.mapper import Finish, Mapped, Mapper
from streams.mapping.reading import Item, TopicReader
from streams.mapping.sampling import plain
from streams.mapping.service import Plan, mapped_topic

SUFFIXES = (".ndjson", ".jsonl", ".json", ".parquet")


def is_file(source: str) -> bool:
    """Whether a source is meant as a file: it is one, or is named like one."""
    return Path(source).exists() or source.endswith(SUFFIXES) or "/" in source


def plan(
    settings: Settings, registry: Registry, source: str, *, mapping: str = "", to: str = "", bad: BadRows | None = None
) -> Plan:
    """`mapping`: a file; else `to` names the topic whose contract the source has. Raises SettingsError."""
    if bool(mapping) == bool(to):
        raise SettingsError("one of a mapping and --to", where="backfill", expected="how the source becomes events")
    mapper = Mapper.of(settings, registry, mapping) if mapping else None
    contract = mapper.contract if mapper is not None else writable(settings, to)
    if is_file(source):
        return _file(settings, registry, source, contract, mapper, bad)
    if mapper is None:
        return _topic(settings, registry, source, contract)
    if source != mapper.compiled.document.source:
        raise SettingsError(
            f"the mapping is of {mapper.compiled.document.source}", where=mapping, expected=f"source = {source!r}"
        )
    return mapped_topic(settings, mapper, history=True)


def _file(
    settings: Settings, registry: Registry, path: str, contract: TopicContract, mapper: Mapper | None,
    bad: BadRows | None,
) -> Plan:  # fmt: skip
    digest, finish = digest_of(path), Finish(settings, registry, contract)

    def map_(item: Item, now_ms: int) -> Mapped | None:
        if isinstance(item.value, BadRecord):
            raise item.value
        if mapper is not None:
            return mapper.of_value(plain(item.value), item.raw, now_ms)
        return finish(from_json(contract.contract, item.value), now_ms)

    name = f"backfill-{digest[:16]}"
    return Plan(
        name, contract.name, lambda start: FileReader(settings, path, contract.name, digest), map_,
        history=True, letters=False, refused=bad,
    )  # fmt: skip


def _topic(settings: Settings, registry: Registry, topic: str, contract: TopicContract) -> Plan:
    """An old topic of records of the contract itself."""
    if topic == contract.name:
        raise SettingsError(f"{topic} would be published to itself", where="--to", expected="another topic")
    decode, finish = Decoder(registry, contract.contract), Finish(settings, registry, contract)

    def map_(item: Item, now_ms: int) -> Mapped | None:
        if item.raw.value is None:
            return None
        return finish(decode(item.raw.value), max(item.raw.timestamp, now_ms))

    name = f"backfill-{topic}"
    group = f"{settings.app_id}-{name}-{contract.name}"
    return Plan(
        name, contract.name, lambda start: TopicReader(settings, topic, group, start, history=True), map_, history=True
    )
