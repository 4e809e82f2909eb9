"""One app in this process, on a real broker: barriers, pauses, parks, assignments, and how it ends."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from faust.types import TP

from schemas.errors import BrokerUnavailable, HeadraceError, ProduceFailed, SettingsError
from streams.app import App, check_topics, make_app, run_app, start_app
from streams.config import Settings
from streams.consumer_thread import ConsumerThread
from streams.intake import Intake, MicroBatch
from streams.tenure import Moved
from tests.conftest import FreshSettings
from tests.observer import Observer, new_topic, publish


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 90))


@pytest.fixture
def settings(fresh_settings: FreshSettings) -> Settings:
    return fresh_settings(partitions=4, batch={"max_events": 32}, web={"port": 0})


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


def test_what_was_handed_out_is_committed_once_it_is_settled(settings: Settings, observer: Observer) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, 500)

    async def story() -> None:
        app = make_app(settings)
        intake = app.intake(topic)
        async with running(app):
            taken = await take(intake, 100)
            settling = asyncio.ensure_future(intake.settled())
            for micro in reversed(taken):
                micro.done()
            await settling
            assert await app.batches.commit_now()
            handed: dict[int, int] = {}
            for record in (record for micro in taken for record in micro.records()):
                handed[record.partition] = record.offset + 1
            assert observer.committed(topic) == handed
            assert app.batches.committed() == {TP(topic, p): offset for p, offset in handed.items()}

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


def test_records_that_were_dropped_before_anything_was_committed_are_read_again(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, 200)

    async def story() -> None:
        app = make_app(settings)
        intake = app.intake(topic)
        async with running(app):
            taken = await take(intake, 200)
            await app.batches.perform_seek()  # as after a rebalance
            again = await take(intake, 200)
            for micro in (*taken, *again):
                micro.done()
        places = [{(r.partition, r.offset) for micro in some for r in micro.records()} for some in (taken, again)]
        assert places[0] == places[1]

    run(story())


def test_an_assignment_that_ends_while_it_is_restored_is_left_for_the_next_one(settings: Settings) -> None:
    """The second member joins while the first restores. Nothing flows, and nothing counts as kept, but what was up."""
    topic = settings.topics.clicks
    publish(settings, topic, 200)
    places = {TP(topic, number) for number in range(settings.partitions)}

    async def story() -> None:
        first, second = (
            make_app(settings.model_copy(update={"data_dir": settings.data_dir / name})) for name in ("first", "second")
        )
        intake = first.intake(topic)
        calls: list[tuple[set[TP], set[TP], int]] = []
        theirs: list[set[TP]] = []
        second.intake(topic)
        up = {TP(topic, number) for number in range(settings.partitions - 1)}

        async def restore(assigned: set[TP], kept: set[TP]) -> None:
            calls.append((assigned, kept, intake.queued))
            if len(calls) == 1:
                tenure = first.share.tenure  # this one: a moment after it is over there may be the next
                joining.append(asyncio.ensure_future(start_app(second)))
                while not tenure.over:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(1.0)  # it takes its time to notice: whoever is given them has begun meanwhile
                raise Moved(up)

        async def restore_theirs(assigned: set[TP], kept: set[TP]) -> None:
            theirs.append(assigned)

        joining: list[asyncio.Future[None]] = []
        first.on_assigned(restore)
        second.on_assigned(restore_theirs)
        async with running(first):
            await joining[0]
            (await intake.take()).done()
            mine = calls[1][0]
            assert calls[0] == (places, set(), 0)
            assert calls[1] == (mine, mine & up, 0)
            assert mine | theirs[-1] == places
            assert not mine & theirs[-1]
            await second.stop()

    run(story())


def test_a_worker_that_still_restores_can_be_stopped(settings: Settings) -> None:
    app = make_app(settings)
    app.intake(settings.topics.clicks)

    async def restore(assigned: set[TP], kept: set[TP]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    app.on_assigned(restore)
    run_app(app)


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


def test_a_topic_that_is_not_there_is_said_before_the_start(fresh_settings: FreshSettings) -> None:
    settings = fresh_settings(create=False)
    with pytest.raises(SettingsError, match="no such topic") as error:
        check_topics(settings, settings.topics.inputs)
    assert "headrace topics create" in str(error.value)


def test_event_topics_of_different_partition_counts_are_refused(settings: Settings) -> None:
    other = new_topic(settings.model_copy(update={"partitions": 7}), f"{settings.app_id}.seven")
    check_topics(settings, (settings.topics.clicks, other))
    with pytest.raises(SettingsError, match=r"expected 2 for each event topic"):
        check_topics(settings, (settings.topics.clicks, other), partitions=2)


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
