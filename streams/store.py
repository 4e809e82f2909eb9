"""All users of the partitions that this worker owns, in RocksDB: a folder per partition.
It is a copy of the changelog, never the only one: a folder that is lost or broken is rebuilt from there.
"""

import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

from rocksdict import (
    BlockBasedOptions,
    BottommostLevelCompaction,
    Cache,
    CompactOptions,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
)

from schemas.errors import StateError

USER: Final = b"u"
_POSITION: Final = b"p"


class UserStore:
    """Packed user rows by partition and user id. Calls for one partition may come from two threads.

    Memory is bounded over all partitions: `cache_mb` for blocks read, `buffer_mb` for rows not yet in files.
    The system syncs files when it likes: if the machine fails, rows and `position` fall back together.
    """

    def __init__(self, folder: Path, *, cache_mb: int = 64, buffer_mb: int = 64) -> None:
        """Partitions open when first asked for. StateError, from any method, if a folder cannot be used."""
        self._folder = folder
        self._cache = Cache(cache_mb << 20)
        self._buffers = WriteBufferManager(buffer_mb << 20, False)
        self._open: dict[int, Rdict] = {}
        self._lock = threading.Lock()

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Packed rows by user id (UTF-8), None where there is none."""
        with self._mapped(partition):
            return cast("list[bytes | None]", self._of(partition).get([USER + key for key in keys]))

    def write(self, partition: int, records: Iterable[tuple[bytes, bytes | None]], position: int) -> None:
        """Puts rows (None deletes one) and the changelog position that they reflect, all or nothing."""
        batch = WriteBatch(raw_mode=True)
        for key, packed in records:
            if packed is None:
                batch.delete(USER + key)
            else:
                batch.put(USER + key, packed)
        batch.put(_POSITION, position.to_bytes(8, "little", signed=True))
        with self._mapped(partition):
            self._of(partition).write(batch)

    def position(self, partition: int) -> int:
        """The changelog offset that the rows reflect, -1 if there are none."""
        with self._mapped(partition):
            packed = self._of(partition).get(_POSITION)
        return int.from_bytes(packed, "little", signed=True) if packed else -1

    def close(self, partition: int | None = None) -> None:
        """Closes one partition, or all; they open again when asked for."""
        with self._lock:
            which = list(self._open) if partition is None else [partition]
            for number in which:
                if found := self._open.pop(number, None):
                    found.close()

    def purge(self, partition: int) -> None:
        """Rewrites a partition's files, so that what was deleted is in none of them but the list of files: a `close`
        after this, and the next opening, make that anew."""
        with self._mapped(partition):
            rows, options = self._of(partition), CompactOptions()
            options.set_bottommost_level_compaction(BottommostLevelCompaction.force())
            rows.flush()
            rows.compact_range(None, None, options)  # of all: the log that RocksDB keeps would name the ends

    def drop(self, partition: int) -> None:
        """Deletes a partition's rows; its position is -1 after that."""
        self.close(partition)
        try:
            shutil.rmtree(self._path(partition))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._broken(partition, error) from error

    def _path(self, partition: int) -> Path:
        return self._folder / str(partition)

    def _of(self, partition: int) -> Rdict:
        found = self._open.get(partition)
        if found is None:
            with self._lock:
                found = self._open.get(partition)
                if found is None:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    found = self._open[partition] = Rdict(str(self._path(partition)), self._options())
        return found

    def _options(self) -> Options:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        # The newest files are rewritten soon: compressing them costs more than it saves.
        options.set_compression_per_level([DBCompressionType.none()] * 2 + [DBCompressionType.lz4()] * 5)
        options.set_level_zero_file_num_compaction_trigger(8)
        options.set_write_buffer_size(16 << 20)
        options.set_max_write_buffer_number(3)
        options.set_write_buffer_manager(self._buffers)
        options.set_max_background_jobs(2)
        options.set_max_open_files(256)
        options.set_keep_log_file_num(2)
        blocks = BlockBasedOptions()
        blocks.set_block_cache(self._cache)
        blocks.set_block_size(8 << 10)
        blocks.set_cache_index_and_filter_blocks(True)
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
        blocks.set_bloom_filter(10, False)
        options.set_block_based_table_factory(blocks)
        return options

    @contextmanager
    def _mapped(self, partition: int) -> Iterator[None]:
        """RocksDB's errors come as plain Exception: all that is raised inside is its own."""
        try:
            yield
        except Exception as error:
            raise self._broken(partition, error) from error

    def _broken(self, partition: int, error: Exception) -> StateError:
        path, said = self._path(partition), str(error)
        if "LOCK" in said or "lock hold" in said:
            return StateError(
                "another process has the state folder open",
                where=str(path),
                todo="end it, or give each worker a data_dir of its own",
            )
        todo = f"delete {path}: it is rebuilt from the changelog"
        return StateError(
            f"the state folder cannot be used: {said}",
            where=str(path),
            expected="the RocksDB that a worker wrote there",
            todo=todo if "orrupt" in said else f"look at disk space and permissions, or {todo}",
        )
