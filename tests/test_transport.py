"""Delivery on a real broker: what is finished is committed, all of it and no more, whatever ends a worker."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BrokerUnavailable, HeadraceError, ProduceFailed, SettingsError
from streams.app import App, check_topics, make_app, run_app, start_app
from streams.batches import Ledger, RecordBatch
from streams.config import Settings
from streams.consumer_thread import ConsumerThread
from streams.intake import Intake, MicroBatch
from tests.conftest import FreshSettings
from tests.test_intake import batch

ROOT = Path(__file__).parent.parent
SESSION_S = 3


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 90))


def new_topic(settings: Settings, name: str, config: dict[str, str] | None = None) -> str:
    client = AdminClient({**settings.librdkafka(), "log_level": 0})
    client.create_topics([NewTopic(name, settings.partitions, 1, config=config or {})])[name].result()
    until(lambda: name in client.list_topics(timeout=10).topics)
    return name


def publish(settings: Settings, topic: str, count: int) -> None:
    client = confluent_kafka.Producer({**settings.librdkafka(), "partitioner": "murmur2_random"})
    for i in range(count):
        client.produce(topic, b"value-%d" % i, b"user-%d" % i)
    client.flush()


class Observer:
    """Looks from outside at what a worker read and wrote."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._client = confluent_kafka.Consumer(
            {**settings.librdkafka(), "group.id": settings.app_id, "enable.auto.commit": False}
        )

    def close(self) -> None:
        self._client.close()

    def ends(self, topic: str) -> dict[int, int]:
        places = [TopicPartition(topic, number) for number in range(self.settings.partitions)]
        return {place.partition: self._client.get_watermark_offsets(place)[1] for place in places}

    def has(self, topic: str) -> bool:
        """A topic is created some moments before each partition has its leader."""
        try:
            return bool(self.ends(topic))
        except confluent_kafka.KafkaException:
            return False

    def count(self, topic: str) -> int:
        return sum(self.ends(topic).values())

    def committed(self, topic: str) -> dict[int, int]:
        """Partitions that have nothing committed are left out."""
        places = [TopicPartition(topic, number) for number in range(self.settings.partitions)]
        found = self._client.committed(places, timeout=30)
        return {place.partition: place.offset for place in found if place.offset >= 0}

    def caught_up(self, *topics: str) -> bool:
        full = [{number: end for number, end in self.ends(topic).items() if end} for topic in topics]
        return all(self.committed(topic) == ends for topic, ends in zip(topics, full, strict=True))

    def outputs(self, topic: str) -> Counter[str]:
        """How often each input's output is there."""
        found: Counter[str] = Counter()
        for number, end in self.ends(topic).items():
            self._client.assign([TopicPartition(topic, number, 0)])
            left = end
            while left:
                messages = self._client.consume(left, 5.0)
                found.update(message.key().decode() for message in messages)
                left -= len(messages)
        self._client.unassign()
        return found

    def inputs(self, *topics: str) -> set[str]:
        return {
            f"{topic}/{number}/{offset}"
            for topic in topics
            for number, end in self.ends(topic).items()
            for offset in range(end)
        }


@pytest.fixture
def settings(fresh_settings: FreshSettings) -> Settings:
    return fresh_settings(session_timeout_s=SESSION_S, partitions=4, batch={"max_events": 32}, web={"port": 0})


@pytest.fixture
def observer(settings: Settings) -> Iterator[Observer]:
    observer = Observer(settings)
    for topic in (*settings.topics.inputs, settings.topics.scores_ctr):
        until(partial(observer.has, topic))
    yield observer
    observer.close()


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.05)


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
        _, said = self.process.communicate(timeout=60)
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


# -- whole workers


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


# -- one app in this process


@asynccontextmanager
async def running(app: App) -> AsyncIterator[None]:
    await start_app(app)
    try:
        yield
    finally:
        await app.stop()


async def take(intake: Intake, events: int) -> list[MicroBatch]:
    """Micro-batches of at least so many events."""
    taken: list[MicroBatch] = []
    while sum(len(micro) for micro in taken) < events:
        micro = await intake.take()
        micro.computed()
        taken.append(micro)
    return taken


async def came_true(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.02)


def test_a_barrier_commits_exactly_what_was_handed_out(settings: Settings, observer: Observer) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, 500)

    async def story() -> None:
        app = make_app(settings)
        intake = app.intake(topic)
        async with running(app):
            taken = await take(intake, 100)
            draining = asyncio.ensure_future(intake.drain())
            for micro in reversed(taken):
                micro.done()
            await draining
            assert await app.batches.commit_now()
            handed: dict[int, int] = {}
            for record in (record for micro in taken for record in micro.records()):
                handed[record.partition] = record.offset + 1
            assert observer.committed(topic) == handed
            assert app.batches.committed() == {TP(topic, p): offset for p, offset in handed.items()}
            intake.resume()

    run(story())


def test_unfinished_records_are_read_again_and_finished_ones_are_not(settings: Settings, observer: Observer) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, 400)
    seen: list[str] = []

    async def story() -> None:
        app = make_app(settings)
        intake = app.intake(topic)
        async with running(app):
            enough = min(len(seen) + 150, 400)
            while len(seen) < enough:
                micro = await intake.take()
                seen.extend(f"{record.partition}/{record.offset}" for record in micro.records())
                micro.done()

    run(story())
    run(story())
    run(story())
    assert len(seen) == len(set(seen)) == 400


def test_a_paused_partition_sends_nothing_until_it_is_resumed_while_others_flow(settings: Settings) -> None:
    topic, held = settings.topics.clicks, 0

    async def story() -> None:
        app = make_app(settings)
        intake = app.intake(topic)
        async with running(app):
            app.batches.pause(TP(topic, held))
            await asyncio.to_thread(publish, settings, topic, 400)
            others: Counter[int] = Counter()
            while others.total() < 250:
                micro = await intake.take()
                others.update(record.partition for record in micro.records())
                micro.done()
            assert held not in others
            app.batches.resume(TP(topic, held))
            while others.total() < 400:
                micro = await intake.take()
                others.update(record.partition for record in micro.records())
                micro.done()
            assert others[held] > 0

    run(story())


def test_a_parked_partition_goes_on_where_it_was_given_back(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, 300)
    seen: dict[int, list[int]] = {number: [] for number in range(settings.partitions)}

    async def story() -> None:
        app = make_app(settings)
        intake = app.intake(topic)
        async with running(app):
            while sum(map(len, seen.values())) < 300:
                micro = await intake.take()
                for part in micro.parts:
                    if part.tp.partition == 1 and not seen[1]:
                        intake.park(part, 1)
                    seen[part.tp.partition] += [record.offset for record in part.records]
                micro.done()
                if intake.parked and sum(map(len, seen.values())) > 150:
                    assert seen[1] == [0]
                    intake.unpark(TP(topic, 1))

    run(story())
    assert all(offsets == list(range(len(offsets))) for offsets in seen.values())


def test_an_assignment_is_told_before_its_records_flow(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, 50)

    async def story() -> None:
        app = make_app(settings)
        intake = app.intake(topic)
        calls: list[tuple[set[TP], set[TP], int]] = []

        async def restore(assigned: set[TP], kept: set[TP]) -> None:
            calls.append((assigned, kept, intake.queued))

        app.on_assigned(restore)
        async with running(app):
            (await intake.take()).done()
        assert calls == [({TP(topic, number) for number in range(settings.partitions)}, set(), 0)]

    run(story())


def test_what_a_restore_raises_ends_the_worker(settings: Settings) -> None:
    app = make_app(settings)
    app.intake(settings.topics.clicks)

    async def restore(assigned: set[TP], kept: set[TP]) -> None:
        raise ProduceFailed("the state cannot be had")

    app.on_assigned(restore)
    with pytest.raises(ProduceFailed, match="cannot be had"):
        run_app(app)


def test_a_task_that_fails_ends_the_worker_and_whoever_waits_for_records(settings: Settings) -> None:
    app = make_app(settings)
    intake = app.intake(settings.topics.clicks)
    ended: list[BaseException] = []

    async def waits() -> None:
        try:
            await intake.take()
        except HeadraceError as error:
            ended.append(error)

    async def fails() -> None:
        raise ProduceFailed("refused")

    for task in (waits, fails):
        app.task(task)
    with pytest.raises(ProduceFailed, match="refused"):
        run_app(app)
    assert [str(error) for error in ended] == ["refused"]


def test_a_signal_ends_a_worker_in_order(settings: Settings) -> None:
    app = make_app(settings)
    app.intake(settings.topics.clicks)

    async def asks() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    app.task(asks)
    run_app(app)


def test_faust_s_own_producer_refuses(settings: Settings) -> None:
    async def story() -> None:
        app = make_app(settings)
        app.intake(settings.topics.clicks)
        async with running(app):
            with pytest.raises(ProduceFailed, match=r"streams\.producer"):
                await app.send(settings.topics.scores_ctr, b"key", b"value")

    run(story())


# -- before a worker starts


def test_a_topic_that_is_not_there_is_said_before_the_start(fresh_settings: FreshSettings) -> None:
    settings = fresh_settings(create=False)
    with pytest.raises(SettingsError, match="no such topic") as error:
        check_topics(settings, settings.topics.inputs)
    assert "headrace topics create" in str(error.value)


def test_event_topics_of_different_partition_counts_are_refused(settings: Settings) -> None:
    other = new_topic(settings.model_copy(update={"partitions": 7}), f"{settings.app_id}.seven")
    check_topics(settings, (settings.topics.clicks, other))
    with pytest.raises(SettingsError, match="partition counts differ"):
        check_topics(settings, (settings.topics.clicks, other), together=True)


def test_a_broker_that_is_away_is_said_before_the_start(tmp_path: Path) -> None:
    settings = Settings(brokers="127.0.0.1:1", session_timeout_s=1, data_dir=tmp_path)
    with pytest.raises(BrokerUnavailable, match="no broker answered"):
        check_topics(settings, settings.topics.inputs)


def test_security_reaches_the_consumer(tmp_path: Path) -> None:
    async def story() -> None:
        app = make_app(
            Settings(
                data_dir=tmp_path,
                web={"port": 0},
                security={"protocol": "SASL_SSL", "username": "shop", "password": "secret"},
            )
        )
        thread = cast(ConsumerThread, app.batches._thread)
        consumer = thread._create_worker_consumer(app.transport)
        client = consumer._client
        assert (client._security_protocol, client._sasl_mechanism) == ("SASL_SSL", "PLAIN")
        assert (client._sasl_plain_username, client._sasl_plain_password) == ("shop", "secret")
        assert client._ssl_context is not None
        await consumer.stop()
        thread.thread_loop.close()

    run(story())


# -- how far a partition is done


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=6), max_size=5), st.lists(st.integers(0, 30)))
def test_the_position_follows_the_finished_records_that_have_no_gap_before_them(
    sizes: list[list[int]], steps: list[int]
) -> None:
    ledger, tp, offset = Ledger(), TP("clicks", 0), 0
    batches: list[RecordBatch] = []
    for gaps in sizes:
        offsets = []
        for gap in gaps:
            offset += gap
            offsets.append(offset)
        batches.append(batch(tp, offsets))
        ledger.opened(batches[-1])
    for step in steps:
        if batches:
            grown = batches[step % len(batches)]
            grown.done = min(grown.done + 1, len(grown))
        expected = None
        for each in batches:
            if each.done:
                expected = each.records[each.done - 1].offset + 1
            if not each.complete:
                break
        assert ledger.position(tp) == expected


def test_what_is_finished_after_a_partition_is_gone_does_not_count() -> None:
    ledger, tp = Ledger(), TP("clicks", 0)
    old = batch(tp, range(5))
    ledger.opened(old)
    ledger.forget([tp])
    old.done = 5
    assert (ledger.position(tp), list(ledger.partitions())) == (None, [])
