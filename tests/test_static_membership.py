"""Static members on a real broker: a restart moves no partition, and two workers of one name do not go on."""

import json
import signal
from collections.abc import Callable, Iterator
from threading import Timer
from typing import Any, cast

import pytest
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from schemas.errors import SettingsError
from streams.config import Settings
from tests.conftest import FreshSettings
from tests.observer import publish, until
from tests.test_transport import Worker

#: Longer than a restart takes on a busy machine.
SESSION_S = 60
PATIENCE_S = 240


@pytest.fixture
def settings(fresh_settings: FreshSettings) -> Settings:
    return fresh_settings(session_timeout_s=SESSION_S, partitions=4, batch={"max_events": 32}, web={"port": 0})


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[[str], Worker]]:
    workers: list[Worker] = []

    def make(name: str) -> Worker:
        own = settings.model_copy(update={"instance_id": name})
        workers.append(Worker(own, settings.topics.scores_ctr))
        return workers[-1]

    yield make
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.communicate()


def assigned(worker: Worker, count: int) -> set[str]:
    """Waits until it says that it has so many partitions; one that never does is ended, and the test with it."""
    end = Timer(PATIENCE_S, worker.process.kill)
    end.start()
    try:
        while True:
            line = cast(Any, worker.process.stdout).readline()
            assert line, worker.result()
            found = set(json.loads(line)["assigned"])
            if len(found) == count:
                return found
    finally:
        end.cancel()


def members(settings: Settings) -> dict[str, tuple[str, set[str]]]:
    """By instance id: member id and partitions; empty while the group is rebalancing."""
    admin = AdminClient({**settings.librdkafka(), "log_level": 0})
    group = admin.describe_consumer_groups([settings.app_id])[settings.app_id].result(30)
    if group.state != ConsumerGroupState.STABLE:
        return {}
    return {
        member.group_instance_id: (
            member.member_id,
            {f"{tp.topic}/{tp.partition}" for tp in member.assignment.topic_partitions},
        )
        for member in group.members
    }


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_restart_within_the_session_moves_no_partition_and_loses_nothing(settings, observer, start, how):
    inputs, output = settings.topics.inputs, settings.topics.scores_ctr
    first = start("a")
    assigned(first, 12)
    second = start("b")
    theirs = assigned(second, 6)
    mine = assigned(first, 6)
    until(lambda: len(members(settings)) == 2, PATIENCE_S)
    before = members(settings)
    publish(settings, inputs[0], 400)
    until(lambda: observer.count(output) > 0, PATIENCE_S)
    first.end(how)
    publish(settings, inputs[1], 400)
    again = start("a")
    assert assigned(again, 6) == mine
    until(lambda: observer.caught_up(*inputs[:2]), PATIENCE_S)
    after = members(settings)
    assert {name: places for name, (_, places) in after.items()} == {"a": mine, "b": theirs}
    assert after["b"][0] == before["b"][0]  # never joined again
    assert after["a"][0] != before["a"][0]
    assert set(observer.outputs(output)) == observer.inputs(*inputs[:2])
    second.process.terminate()
    said, _ = second.process.communicate(timeout=PATIENCE_S)
    assert said == ""  # no rebalance reached it


def test_of_two_workers_of_one_name_the_newer_goes_on_and_the_older_says_why_it_ends(settings, observer, start):
    inputs = settings.topics.inputs
    older = start("a")
    assigned(older, 12)
    newer = start("a")
    code, said = older.result()
    assert code == 1
    assert "Fenced: " in said
    assert "another worker joined by that name" in said
    assert "instance_id" in said
    assigned(newer, 12)
    publish(settings, inputs[0], 200)
    until(lambda: observer.caught_up(inputs[0]), PATIENCE_S)
    assert newer.end(signal.SIGTERM) == 0
    assert set(observer.outputs(settings.topics.scores_ctr)) == observer.inputs(inputs[0])


@pytest.mark.parametrize("name", ["a b", ".", "..", "ä", "x" * 250])
def test_a_name_that_no_broker_takes_is_refused(name):
    with pytest.raises(SettingsError, match="instance_id"):
        Settings(instance_id=name)
