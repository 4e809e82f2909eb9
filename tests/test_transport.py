"""Delivery on a real broker: what is finished is committed, all of it and no more, whatever ends a worker."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from streams.config import Settings
from tests.conftest import FreshSettings
from tests.observer import Observer, new_topic, publish, until

ROOT = Path(__file__).parent.parent
SESSION_S = 3


@pytest.fixture
def settings(fresh_settings: FreshSettings) -> Settings:
    return fresh_settings(session_timeout_s=SESSION_S, partitions=4, batch={"max_events": 32}, web={"port": 0})


class Worker:
    """The relay as a process: clicks, orders and impressions in, one output each."""

    def __init__(self, settings: Settings, output: str, pause_s: float = 0.0) -> None:
        given = json.loads(settings.model_dump_json(exclude_defaults=True))
        arguments = {
            "settings": given | {"data_dir": str(settings.data_dir / str(time.monotonic_ns()))},
            "inputs": settings.topics.inputs,
            "output": output,
            "pause_s": pause_s,
        }
        command = [sys.executable, "-m", "tests.relay_worker", json.dumps(arguments)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self, by: signal.Signals) -> int:
        self.process.send_signal(by)
        return self.result()[0]

    def result(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=180)
        return self.process.returncode, said


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def make(output: str = settings.topics.scores_ctr, pause_s: float = 0.0) -> Worker:
        workers.append(Worker(settings, output, pause_s))
        return workers[-1]

    yield make
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.communicate()


def test_a_killed_worker_loses_nothing(settings: Settings, observer: Observer, start: Callable[..., Worker]) -> None:
    inputs, output = settings.topics.inputs, settings.topics.scores_ctr
    for topic, count in zip(inputs, (3000, 300, 600), strict=True):
        publish(settings, topic, count)
    worker = start(pause_s=0.02)
    until(lambda: observer.count(output) > 500)
    worker.end(signal.SIGKILL)
    worker = start()
    until(lambda: observer.caught_up(*inputs))
    assert worker.end(signal.SIGTERM) == 0
    assert set(observer.outputs(output)) == observer.inputs(*inputs)


def test_members_that_come_and_go_in_order_repeat_nothing(
    settings: Settings, observer: Observer, start: Callable[..., Worker]
) -> None:
    inputs, output = settings.topics.inputs, settings.topics.scores_ctr
    for topic, count in zip(inputs, (6000, 600, 1200), strict=True):
        publish(settings, topic, count)
    first = start(pause_s=0.02)
    until(lambda: observer.count(output) > 300)
    second = start(pause_s=0.02)
    assigned = json.loads(cast(Any, second.process.stdout).readline())["assigned"]
    # Both joined: the partitions of one number are together, whatever their topic.
    numbers = [place.rpartition("/")[2] for place in assigned]
    assert len(numbers) == 6
    assert set(Counter(numbers).values()) == {3}
    assert first.end(signal.SIGTERM) == 0
    until(lambda: observer.caught_up(*inputs))
    assert second.end(signal.SIGTERM) == 0
    outputs = observer.outputs(output)
    assert set(outputs) == observer.inputs(*inputs)
    assert outputs.total() == len(outputs)


def test_a_refused_output_ends_the_process_with_nothing_committed(
    settings: Settings, observer: Observer, start: Callable[..., Worker]
) -> None:
    narrow = new_topic(settings, f"{settings.app_id}.narrow", {"max.message.bytes": "20"})
    publish(settings, settings.topics.clicks, 100)
    code, said = start(narrow).result()
    assert code == 1
    assert "ProduceFailed" in said.splitlines()[-1]
    assert observer.committed(settings.topics.clicks) == {}
    assert observer.count(narrow) == 0


def test_a_worker_that_slept_through_its_session_sends_nothing_more(
    settings: Settings, observer: Observer, start: Callable[..., Worker]
) -> None:
    inputs, output = settings.topics.inputs, settings.topics.scores_ctr
    publish(settings, inputs[0], 4000)
    sleeper = start(pause_s=0.05)
    until(lambda: observer.count(output) > 100)
    sleeper.process.send_signal(signal.SIGSTOP)
    start()
    until(lambda: observer.caught_up(*inputs))
    before = observer.count(output)
    sleeper.process.send_signal(signal.SIGCONT)
    code, said = sleeper.result()
    assert code == 1
    assert said.splitlines()[-1].startswith("Fenced")
    assert observer.count(output) == before
    assert set(observer.outputs(output)) == observer.inputs(*inputs)
