"""Partitions that come and go while workers start: whoever has lost them shuts nobody out, and who cannot score yet
takes none. Real workers on a real broker."""

import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from streams.ports import free_port
from tests import shop
from tests.records import NOON_MS, click

SESSION_S = 6.0
PARTITIONS = 4


@pytest.fixture
def settings(fresh_settings, registry):
    store, _ = shop.releases()
    made = fresh_settings(
        release_store=store, partitions=PARTITIONS, session_timeout_s=SESSION_S, state={"flush_interval_s": 0.3},
        deadlines_ms={"fraud": 3_600_000, "recommendations": 3_600_000, "ctr": 3_600_000},
    )  # fmt: skip
    shop.furnish(made)
    return made


@pytest.fixture
def start(settings, tmp_path):
    """`start(seconds, gate, **over)`: a worker with a folder and a port of its own, as slow as slow_worker says."""
    workers: list[shop.WorkerProcess] = []

    def make(*slow: object, **over: object) -> shop.WorkerProcess:
        name = f"worker-{len(workers)}"
        web = settings.web.model_copy(update={"port": free_port()})
        own = settings.model_copy(update={"data_dir": tmp_path / name, "web": web} | over)
        command = [sys.executable, "-m", "tests.slow_worker", *map(str, slow)] if slow else None
        workers.append(shop.WorkerProcess(own, tmp_path / f"{name}.log", command))
        return workers[-1]

    yield make
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGCONT)
            worker.process.kill()
            worker.process.wait()


def acquired(worker: shop.WorkerProcess) -> list[int]:
    return [int(found) for found in re.findall(r"acquired (\d+)", worker.log.read_text())]


def said(worker: shop.WorkerProcess, words: str) -> None:
    shop.wait_for(
        lambda: worker.process.poll() is not None or words in worker.log.read_text(), 180, worker.log.read_text
    )
    assert worker.process.poll() is None, worker.log.read_text()


def members(settings) -> int:
    admin = AdminClient({**settings.librdkafka(), "log_level": 0})
    return len(admin.describe_consumer_groups([settings.app_id])[settings.app_id].result(30).members)


def test_two_workers_that_start_together_both_live(settings, start, tmp_path):
    """The second joins while the first restores what it has no more: to go on would shut the second one out."""
    gates = [tmp_path / "first may join", tmp_path / "second may join"]
    first, second = start(3.0, gates[0]), start(0.2, gates[1])
    for worker in (first, second):
        said(worker, "ready to join")
    gates[0].touch()
    said(first, "acquired 0")
    gates[1].touch()
    scored_whole(settings, [first, second], "c")
    assert "the assignment ended while its partitions were restored" in first.log.read_text()
    assert len(acquired(first)) < PARTITIONS
    assert [first.end(), second.end()] == [0, 0], first.log.read_text() + second.log.read_text()


def test_a_worker_that_was_frozen_past_its_session_while_it_restored_shuts_nobody_out(settings, start):
    frozen = start(1.5)
    said(frozen, "acquired 0")
    frozen.process.send_signal(signal.SIGSTOP)
    held = acquired(frozen)
    second = start()
    second.wait_ready()
    frozen.process.send_signal(signal.SIGCONT)
    scored_whole(settings, [frozen, second], "d")
    log = frozen.log.read_text()
    assert "the assignment ended while its partitions were restored" in log
    assert acquired(frozen)[: len(held)] == held
    assert [frozen.end(), second.end()] == [0, 0], log + second.log.read_text()


def scored_whole(settings, workers, name):
    """Events go on until all workers are ready, and for some flushes after: by one, who is shut out hears of it.
    Then each event has its score.
    """
    sent: list[tuple[str, dict[str, Any]]] = []
    ready_at, deadline = None, time.monotonic() + 180
    while ready_at is None or time.monotonic() < ready_at + 4:
        assert time.monotonic() < deadline, "\n".join(worker.log.read_text()[-2000:] for worker in workers)
        for _ in range(20):
            event = click(
                event_id=f"{name}{len(sent)}", user_id=f"user-{len(sent) % 50}", event_time=NOON_MS + len(sent)
            )
            sent.append(("clicks", event))
        shop.publish(settings, sent[-20:])
        for worker in workers:
            assert worker.process.poll() is None, worker.log.read_text()[-3000:]
        if ready_at is None and all(worker.ready() for worker in workers):
            ready_at = time.monotonic()
        time.sleep(0.2)
    expected = {event["event_id"] for _, event in sent}
    shop.wait_for(lambda: {s["event_id"] for s in shop.scores(settings, "recommendations")} == expected, 60)
    for worker in workers:
        assert worker.process.poll() is None, worker.log.read_text()[-3000:]


def test_a_worker_joins_when_its_engines_are_ready_and_waits_for_a_store_that_is_away(settings, start, tmp_path):
    store = Path(shutil.copytree(settings.release_store, tmp_path / "store"))
    away = store.rename(tmp_path / "away")
    worker = start(release_store=str(store))
    shop.wait_for(lambda: "store does not answer" in shop.missing(worker.settings), 120, worker.log.read_text)
    assert members(settings) == 0
    assert worker.process.poll() is None
    away.rename(store)
    worker.wait_ready()
    assert members(settings) == 1
    log = worker.log.read_text()
    assert log.index("is live") < log.index("restored")
    assert worker.end() == 0, worker.log.read_text()
