"""A file as what is carried: its rows in pieces, and how many were published, committed in the same transactions.
The count is kept as an offset of a group that is named after the file's content: the same file goes on where it was.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import KafkaException, TopicPartition

from schemas.errors import BadRecord, SettingsError
from streams.config import Settings
from streams.mapping.reading import AT_ONCE, Item
from streams.offsets import TIMEOUT_S, kafka_error, plain_consumer
from streams.raw import RawRecord
from streams.row_files import PARQUET_MAGIC, Row, read_rows


class FileReader:
    """`ended` after the last row; rows that were published before are not mapped again."""

    def __init__(self, settings: Settings, path: str, topic: str, digest: str) -> None:
        """`topic`: where to; `digest` as of `digest_of`. Raises SettingsError, BrokerUnavailable."""
        self._place, self._digest = (topic, 0), digest
        self._total = rows_in(path)
        self._consumer = plain_consumer(settings, f"{settings.app_id}-backfill-{digest[:16]}-{topic}")
        self.group = self._consumer.consumer_group_metadata()
        self._next = self._committed()
        self._source = f"{Path(path).name}@{digest[:8]}"
        self._open = ExitStack()
        rows = self._open.enter_context(read_rows(path, 8 * settings.max_message_bytes))
        self._rows = islice(rows, self._next, None)
        self._over = False

    def read(self, wait_s: float) -> list[Item]:
        items = [self._item(row, self._next + number) for number, row in enumerate(islice(self._rows, AT_ONCE))]
        self._next += len(items)
        self._over = len(items) < AT_ONCE
        return items

    def read_to(self) -> list[TopicPartition]:
        return [TopicPartition(*self._place, self._next)]

    @property
    def ended(self) -> bool:
        return self._over

    @property
    def done(self) -> tuple[int, int]:
        return self._next, max(self._total, self._next)

    @property
    def lag(self) -> int:
        done, all_ = self.done
        return all_ - done

    def close(self) -> None:
        self._open.close()
        self._consumer.close()

    def _item(self, row: Row, number: int) -> Item:
        return Item(RawRecord(self._source, 0, number, time.time_ns() // 1_000_000, None, None), row.value)

    def _committed(self) -> int:
        try:
            [found] = self._consumer.committed([TopicPartition(*self._place)], timeout=TIMEOUT_S)
        except KafkaException as error:
            raise kafka_error(error.args[0], self._place[0]) from error
        return max(0, int(found.offset))


class BadRows:
    """Rows that could not be used, as NDJSON: to be mended and brought in by themselves."""

    def __init__(self, path: str) -> None:
        """Appends. SettingsError where it cannot be written."""
        try:
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  closed by `close`
        except OSError as error:
            raise SettingsError(f"{path} cannot be written: {error.strerror}", where="--bad") from error

    def __call__(self, item: Item, error: BadRecord) -> None:
        if isinstance(item.value, dict):
            self._file.write(json.dumps(item.value, default=str, ensure_ascii=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def digest_of(path: str) -> str:
    """SHA-256 of the file's content. SettingsError where it cannot be read, or is a pipe, which cannot be resumed."""
    try:
        if not Path(path).is_file():
            raise SettingsError(f"{path} is no file", where="backfill", expected="NDJSON or Parquet that stays there")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}", where="backfill") from error


def rows_in(path: str) -> int:
    """Rows of Parquet, lines of NDJSON: for the time that is left."""
    with open(path, "rb") as file:
        if file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC:
            try:
                return int(pq.read_metadata(path).num_rows)
            except (pa.ArrowException, OSError) as error:
                raise SettingsError(f"no Parquet: {error}", where=path, expected="a whole Parquet file") from error
        file.seek(0)
        return sum(block.count(b"\n") for block in _blocks(file))


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(1 << 20):
        yield block
