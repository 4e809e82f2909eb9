"""The local store of user rows, and its twin in memory: the same promises, checked on both."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from schemas.errors import StateError
from streams.state.memory import MemoryStore
from streams.store import UserStore

Records = list[tuple[bytes, bytes | None]]


class Store(Protocol):
    def get_many(self, partition: int, keys: list[bytes]) -> list[bytes | None]: ...
    def write(self, partition: int, records: Records, position: int) -> None: ...
    def position(self, partition: int) -> int: ...
    def close(self, partition: int | None = None) -> None: ...
    def drop(self, partition: int) -> None: ...


@pytest.fixture(params=["rocksdb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = UserStore(tmp_path / "state") if request.param == "rocksdb" else MemoryStore()
    yield made
    made.close()


def test_rows_come_back_by_user_in_the_order_asked(store: Store) -> None:
    store.write(0, [(b"ann", b"1"), (b"bob", b"\x00\xff" * 3_000)], 7)
    assert store.get_many(0, [b"bob", b"nobody", b"ann"]) == [b"\x00\xff" * 3_000, None, b"1"]


def test_a_store_nobody_wrote_to_is_empty_and_at_no_position(store: Store) -> None:
    assert store.position(3) == -1
    assert store.get_many(3, [b"ann"]) == [None]


def test_nobody_asked_for_is_nobody_found(store: Store) -> None:
    assert store.get_many(0, []) == []


def test_a_write_replaces_rows_and_moves_the_position(store: Store) -> None:
    store.write(0, [(b"ann", b"1"), (b"bob", b"1")], 7)
    store.write(0, [(b"ann", b"2")], 9)
    assert store.get_many(0, [b"ann", b"bob"]) == [b"2", b"1"]
    assert store.position(0) == 9


def test_a_row_of_none_is_deleted(store: Store) -> None:
    store.write(0, [(b"ann", b"1")], 1)
    store.write(0, [(b"ann", None), (b"bob", None)], 2)
    assert store.get_many(0, [b"ann"]) == [None]


def test_partitions_do_not_know_each_other(store: Store) -> None:
    store.write(0, [(b"ann", b"0")], 5)
    store.write(1, [(b"ann", b"1")], 6)
    assert store.get_many(0, [b"ann"]) == [b"0"]
    assert (store.position(0), store.position(1)) == (5, 6)


def test_a_dropped_partition_is_empty_and_the_others_stay(store: Store) -> None:
    store.write(0, [(b"ann", b"0")], 5)
    store.write(1, [(b"ann", b"1")], 6)
    store.drop(0)
    store.drop(2)
    assert store.get_many(0, [b"ann"]) == [None]
    assert store.position(0) == -1
    assert store.get_many(1, [b"ann"]) == [b"1"]


@pytest.mark.parametrize("user", [b"p", b"", "анна".encode(), b"a" * 1024, b"u:ann"])
def test_no_user_id_is_taken_for_anything_else(store: Store, user: bytes) -> None:
    store.write(0, [(user, b"row")], 42)
    assert store.position(0) == 42
    assert store.get_many(0, [user]) == [b"row"]


def test_rows_and_position_survive_closing(tmp_path: Path) -> None:
    first = UserStore(tmp_path)
    first.write(2, [(b"ann", b"1")], 7)
    first.close()
    again = UserStore(tmp_path)
    assert (again.get_many(2, [b"ann"]), again.position(2)) == ([b"1"], 7)
    again.close()


def test_a_closed_partition_opens_again_when_asked(tmp_path: Path) -> None:
    store = UserStore(tmp_path)
    store.write(0, [(b"ann", b"1")], 7)
    store.close(0)
    assert store.get_many(0, [b"ann"]) == [b"1"]
    store.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from streams.store import UserStore
store = UserStore(Path(sys.argv[1]))
for number in range(300):
    store.write(0, [(b"user-%d" % n, b"%d" % number) for n in range(20)], number)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_rows_and_position_are_of_one_write(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    store = UserStore(tmp_path)
    position = store.position(0)
    assert position == 299
    assert store.get_many(0, [b"user-%d" % n for n in range(20)]) == [b"%d" % position] * 20
    store.close()


def test_a_broken_folder_is_named_and_may_be_deleted(tmp_path: Path) -> None:
    store = UserStore(tmp_path)
    store.write(0, [(b"ann", b"1")], 7)
    store.close()
    for manifest in (tmp_path / "0").glob("MANIFEST*"):
        manifest.write_bytes(os.urandom(200))
    with pytest.raises(StateError) as caught:
        store.get_many(0, [b"ann"])
    folder = str(tmp_path / "0")
    assert caught.value.where == folder
    assert caught.value.todo == f"delete {folder}: it is rebuilt from the changelog"
    store.drop(0)
    assert store.position(0) == -1
    store.close()


def test_a_file_in_the_folders_place_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "0").write_text("not a folder")
    with pytest.raises(StateError, match=str(tmp_path / "0")):
        UserStore(tmp_path).position(0)


def test_a_folder_that_is_in_use_is_not_said_to_be_broken(tmp_path: Path) -> None:
    first = UserStore(tmp_path)
    first.write(0, [], 1)
    with pytest.raises(StateError, match="another process") as caught:
        UserStore(tmp_path).position(0)
    assert "delete" not in caught.value.todo
    first.close()


def test_a_write_that_fails_leaves_rows_and_position_as_they_were(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[bytes, bytes | None]]:
        yield b"ann", b"2"
        raise RuntimeError("while packing")

    store = UserStore(tmp_path)
    store.write(0, [(b"ann", b"1")], 1)
    with pytest.raises(RuntimeError, match="while packing"):
        store.write(0, broken(), 2)
    assert (store.get_many(0, [b"ann"]), store.position(0)) == ([b"1"], 1)
    store.close()
