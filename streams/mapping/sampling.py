"""A look at a topic, or at a file of its records: the newest few of each partition, or the first rows.
It commits nothing and joins no group.
"""

import json
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice

from schemas.errors import BadRecord
from streams.config import Settings
from streams.mapping.reading import Item
from streams.offsets import bounds, places, read_range
from streams.raw import RawRecord
from streams.row_files import Row, read_rows


def of_topic(settings: Settings, topic: str, count: int) -> list[Item]:
    """The newest records, at most `count` in all, the partitions' in turn. Raises SettingsError, BrokerUnavailable."""
    found = bounds(settings, places(settings, topic))
    filled = {place: ends for place, ends in found.items() if ends[0] < ends[1]}
    each = -(-count // max(1, len(filled)))
    items: list[Item] = []
    for (_, partition), (low, high) in filled.items():
        for messages in read_range(settings, topic, partition, max(low, high - each), high):
            items += [Item(RawRecord.of(message)) for message in messages]
    return items[:count]


def of_file(path: str, count: int, longest: int) -> list[Item]:
    """The first rows. Raises SettingsError."""
    with read_rows(path, longest) as rows:
        return list(islice(_items(rows, path), count))


def _items(rows: Iterator[Row], path: str) -> Iterator[Item]:
    now_ms = time.time_ns() // 1_000_000
    for number, row in enumerate(rows):
        value = plain(row.value)
        text = b"" if isinstance(value, BadRecord) else json.dumps(value, default=str).encode()
        yield Item(RawRecord(path, 0, number, now_ms, None, text), value)


def plain(value: object) -> object:
    """A row as a message would have it: amounts as JSON's numbers are, not as Decimals, which CEL does not know."""
    if isinstance(value, Decimal):
        return float(value) if value != value.to_integral_value() else int(value)
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value
