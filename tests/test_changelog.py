"""The state changelog: whole flushes or none, one writer, and a restore that ends where the writer stood."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BrokerUnavailable, Fenced, FrontierTooOld, ProduceFailed, SettingsError, StateError
from streams.changelog import Changelog, Frontier, Rows, Store
from streams.config import Settings
from streams.local import LocalBroker
from streams.offsets import bounds, read_range
from streams.ports import free_port
from streams.store import UserStore
from streams.topics import create_topics

FRONTIER = Frontier((10, 20, 30), {"fraud": 5}, 1_700_000_000_000)


class Copy:
    """A local copy in memory: what streams.store.UserStore keeps in RocksDB."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.at = -1
        self.writes: list[int] = []

    def position(self, partition: int) -> int:
        return self.at

    def write(self, partition: int, records: Rows, position: int) -> None:
        for key, value in records:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.at = position
        self.writes.append(position)

    def drop(self, partition: int) -> None:
        self.rows.clear()
        self.at = -1


@pytest.fixture
def changelog(settings: Settings) -> Iterator[Changelog]:
    log = Changelog(settings)
    log.acquire(0)
    yield log
    log.close()


def rows(*names: str, value: bytes = b"row") -> list[tuple[bytes, bytes | None]]:
    return [(name.encode(), value) for name in names]


def at(offset: int) -> Frontier:
    return Frontier((offset, 0, 0), {}, offset)


def log_of(settings: Settings) -> list[bytes]:
    """Keys of the committed records of partition 0."""
    topic = settings.topics.state
    end = bounds(settings, [(topic, 0)])[topic, 0][1]
    return [message.key() for batch in read_range(settings, topic, 0, 0, end) for message in batch]


def restored(changelog: Changelog, copy: Store, progress: Callable[[int, int], None] | None = None) -> Frontier | None:
    """What a worker does that takes partition 0 over."""
    changelog.acquire(0)
    return changelog.restore(0, copy, progress)


@given(
    st.builds(
        Frontier,
        st.tuples(*[st.integers(0, 2**62)] * 3),
        st.dictionaries(st.text(max_size=20), st.integers(0, 2**62), max_size=4),
        st.integers(0, 2**62),
    )
)
def test_a_frontier_survives_packing(frontier: Frontier) -> None:
    assert Frontier.unpack(frontier.pack()) == frontier


@pytest.mark.parametrize("packed", [b"", b"\xff", b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "inputs": 3}'])
def test_a_frontier_of_another_format_is_refused(packed: bytes) -> None:
    with pytest.raises(StateError, match=r"state\.users"):
        Frontier.unpack(packed, "state.users[0]")


def test_a_frontier_before_the_log_begins_is_too_old() -> None:
    topics = ("events.clicks", "events.orders", "events.impressions")
    found = {(topic, 1): (0, 100) for topic in topics}
    FRONTIER.check(found, topics, 1)
    with pytest.raises(FrontierTooOld, match=r"events\.orders\[1\].*docs/operate"):
        FRONTIER.check(found | {("events.orders", 1): (21, 100)}, topics, 1)


def test_what_was_flushed_is_restored_with_its_frontier(changelog: Changelog) -> None:
    changelog.flush(0, rows("ann", "bob"), FRONTIER)
    copy = Copy()
    assert restored(changelog, copy) == FRONTIER
    assert copy.rows == {b"ann": b"row", b"bob": b"row"}


def test_nothing_flushed_restores_to_nothing(changelog: Changelog) -> None:
    copy = Copy()
    assert restored(changelog, copy) is None
    assert copy.at == -1


def test_a_flush_without_rows_moves_the_frontier(changelog: Changelog) -> None:
    changelog.flush(0, [], at(1))
    changelog.flush(0, [], at(2))
    assert restored(changelog, Copy()) == at(2)


def test_a_deleted_row_is_gone_after_the_restore(changelog: Changelog) -> None:
    copy = Copy()
    copy.write(0, rows("ann"), changelog.flush(0, rows("ann"), at(1)))
    changelog.flush(0, [(b"ann", None)], at(2))
    restored(changelog, copy)
    assert copy.rows == {}


def test_the_newest_row_of_a_user_wins(changelog: Changelog) -> None:
    changelog.flush(0, rows("ann", value=b"old"), at(1))
    changelog.flush(0, rows("ann", value=b"new"), at(2))
    copy = Copy()
    restored(changelog, copy)
    assert copy.rows == {b"ann": b"new"}


def test_a_copy_at_the_end_is_restored_without_a_row_and_still_learns_the_frontier(
    changelog: Changelog,
) -> None:
    copy = Copy()
    copy.write(0, rows("ann"), changelog.flush(0, rows("ann"), at(1)))
    copy.rows[b"ann"] = b"untouched"
    assert restored(changelog, copy) == at(1)
    assert copy.rows == {b"ann": b"untouched"}


def test_a_copy_continues_from_its_position(changelog: Changelog) -> None:
    copy = Copy()
    copy.write(0, rows("ann"), changelog.flush(0, rows("ann"), at(1)))
    copy.rows[b"ann"] = b"untouched"
    changelog.flush(0, rows("bob"), at(2))
    assert restored(changelog, copy) == at(2)
    assert copy.rows == {b"ann": b"untouched", b"bob": b"row"}


def test_the_worker_s_own_store_is_restored_continued_and_dropped(changelog: Changelog, tmp_path: Path) -> None:
    store = UserStore(tmp_path / "users")
    changelog.flush(0, rows("ann", "bob", "cem"), at(1))
    assert restored(changelog, store) == at(1)
    changelog.flush(0, [(b"ann", None), *rows("bob", value=b"new")], at(2))
    assert restored(changelog, store) == at(2)
    assert store.get_many(0, [b"ann", b"bob", b"cem"]) == [None, b"new", b"row"]
    store.write(0, rows("stranger"), 1_000)
    assert restored(changelog, store) == at(2)
    assert store.get_many(0, [b"ann", b"bob", b"cem", b"stranger"]) == [None, b"new", b"row", None]
    store.close()


def test_a_copy_of_another_log_is_dropped(changelog: Changelog) -> None:
    changelog.flush(0, rows("ann"), at(1))
    copy = Copy()
    copy.write(0, rows("stranger"), 1_000)
    assert restored(changelog, copy) == at(1)
    assert copy.rows == {b"ann": b"row"}


def test_a_copy_that_may_have_missed_tombstones_is_dropped(
    changelog: Changelog, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Copy()
    copy.write(0, rows("ann"), changelog.flush(0, rows("ann"), at(1)))
    changelog.flush(0, rows("bob"), at(2))
    changelog.flush(0, rows("cem"), at(3))
    copy.rows[b"forgotten"] = b"row"
    now = time.time_ns() // 1_000_000
    monkeypatch.setattr("streams.changelog._now_ms", lambda: now + 13 * 3_600_000)
    assert restored(changelog, copy) == at(3)
    assert sorted(copy.rows) == [b"ann", b"bob", b"cem"]


def test_progress_counts_up_to_the_total(changelog: Changelog) -> None:
    changelog.flush(0, ((str(number).encode(), b"row") for number in range(25_000)), at(1))
    told: list[tuple[int, int]] = []
    copy = Copy()
    restored(changelog, copy, lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert {total for _, total in told} == {25_002}
    assert told[-1][0] == 25_001
    assert len(copy.rows) == 25_000


def test_a_flush_larger_than_the_queue_waits_for_it(changelog: Changelog, settings: Settings) -> None:
    changelog.flush(0, ((str(number).encode(), bytes(200)) for number in range(50_000)), at(1))
    assert len(log_of(settings)) == 50_001


def test_partitions_are_apart(settings: Settings) -> None:
    log = Changelog(settings)
    log.acquire(0)
    log.acquire(1)
    log.flush(0, rows("ann"), at(1))
    log.flush(1, rows("bob"), at(2))
    copy = Copy()
    log.acquire(1)
    assert log.restore(1, copy) == at(2)
    assert copy.rows == {b"bob": b"row"}
    log.close()


def test_a_partition_that_is_not_held_cannot_be_flushed(changelog: Changelog) -> None:
    changelog.release(0)
    with pytest.raises(StateError, match="not held"):
        changelog.flush(0, [], FRONTIER)


def test_a_zombie_is_fenced_and_nothing_of_it_is_seen(settings: Settings) -> None:
    zombie, successor = Changelog(settings), Changelog(settings)
    zombie.acquire(0)
    zombie.flush(0, rows("ann", value=b"first"), at(1))
    successor.acquire(0)
    with pytest.raises(Fenced, match="another process"):
        zombie.flush(0, rows("ann", value=b"stale"), at(9))
    copy = Copy()
    assert restored(successor, copy) == at(1)
    successor.flush(0, rows("bob"), at(2))
    assert restored(successor, copy) == at(2)
    assert copy.rows == {b"ann": b"first", b"bob": b"row"}
    with pytest.raises(StateError, match="not held"):
        zombie.flush(0, rows("ann"), at(9))
    successor.close()


def test_a_zombie_stopped_amid_a_flush_is_fenced_and_nothing_of_it_is_seen(settings: Settings) -> None:
    zombie, successor = Changelog(settings), Changelog(settings)
    zombie.acquire(0)
    zombie.flush(0, rows("ann", value=b"first"), at(1))

    def stalled() -> Iterator[tuple[bytes, bytes | None]]:
        for number in range(5_000):
            yield f"user {number}".encode(), bytes(1_000)
        successor.acquire(0)
        successor.flush(0, rows("bob"), at(2))
        yield b"ann", b"stale"

    with pytest.raises(Fenced):
        zombie.flush(0, stalled(), at(9))
    copy = Copy()
    assert restored(successor, copy) == at(2)
    assert copy.rows == {b"ann": b"first", b"bob": b"row"}
    successor.close()


def test_a_predecessor_that_died_amid_a_flush_leaves_nothing(settings: Settings) -> None:
    dead = Producer({**settings.librdkafka(), "transactional.id": f"{settings.app_id}-state-0"})
    dead.init_transactions(10)
    dead.begin_transaction()
    dead.produce(settings.topics.state, b"half", b"u:ann", 0)
    dead.flush(10)
    log = Changelog(settings)
    log.acquire(0)
    copy = Copy()
    assert restored(log, copy) is None
    assert copy.rows == {}
    log.close()


def test_a_refused_row_undoes_the_flush_and_the_next_may_follow(changelog: Changelog, settings: Settings) -> None:
    changelog.flush(0, rows("ann"), at(1))
    with pytest.raises(ProduceFailed, match=r"state\.users\[0\]"):
        changelog.flush(0, [*rows("bob"), (b"cem", bytes(2_000_000))], at(2))
    copy = Copy()
    assert restored(changelog, copy) == at(1)
    changelog.flush(0, rows("bob"), at(2))
    assert restored(changelog, copy) == at(2)
    assert sorted(copy.rows) == [b"ann", b"bob"]


def test_rows_that_cannot_be_made_undo_the_flush(changelog: Changelog) -> None:
    def broken() -> Iterator[tuple[bytes, bytes | None]]:
        yield b"ann", b"row"
        raise StateError("a row that cannot be packed")

    with pytest.raises(StateError, match="cannot be packed"):
        changelog.flush(0, broken(), at(1))
    assert restored(changelog, Copy()) is None


def test_a_broker_that_is_away_is_named_in_bounded_time() -> None:
    log = Changelog(Settings(brokers=f"127.0.0.1:{free_port()}"), timeout_s=0.5)
    with pytest.raises(BrokerUnavailable, match=r"state\.users\[3\]"):
        log.acquire(3)


def test_a_state_topic_that_is_missing_or_too_narrow_is_a_wrong_setting(
    fresh_settings: Callable[..., Settings],
) -> None:
    with pytest.raises(SettingsError, match=r"state\.users.*headrace topics create"):
        Changelog(fresh_settings(create=False)).acquire(0)
    with pytest.raises(SettingsError, match=r"state\.users\[7\]"):
        Changelog(fresh_settings()).acquire(7)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[LocalBroker]:
    server = LocalBroker(tmp_path / "kafka", outlive=False)
    server.start()
    yield server
    server.stop()


def test_a_flush_waits_for_a_broker_that_comes_back_and_gives_up_on_one_that_does_not(
    own_broker: LocalBroker, tmp_path: Path
) -> None:
    settings = Settings(brokers=own_broker.address, data_dir=tmp_path, partitions=1)
    create_topics(settings)
    patient, hasty = Changelog(settings, timeout_s=60), Changelog(settings, timeout_s=1)
    patient.acquire(0)
    own_broker.kill()
    with ThreadPoolExecutor() as pool:
        flushed = pool.submit(patient.flush, 0, rows("ann"), at(1))
        own_broker.start()
        flushed.result(60)
    hasty.acquire(0)
    own_broker.kill()
    with pytest.raises(BrokerUnavailable, match=r"state\.users\[0\]"):
        hasty.flush(0, rows("bob"), at(2))
    own_broker.start()
    copy = Copy()
    assert restored(hasty, copy) == at(1)
    assert copy.rows == {b"ann": b"row"}
