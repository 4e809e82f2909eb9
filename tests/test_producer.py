"""The producer on a real broker, and the lease that holds it back."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.errors import Fenced, ProduceFailed
from streams import producer as module
from streams.config import Settings
from streams.lease import Lease
from streams.partitioning import partition_for
from streams.producer import Output, Producer
from tests.conftest import FreshSettings


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 60))


def new_topic(settings: Settings, name: str, partitions: int = 3, config: dict[str, str] | None = None) -> str:
    """A topic of this test's own."""
    name = f"{settings.app_id}.{name}"
    client = AdminClient({**settings.librdkafka(), "log_level": 0})
    client.create_topics([NewTopic(name, partitions, 1, config=config or {})])[name].result()
    return name


def content(settings: Settings, topic: str) -> dict[int, list[Any]]:
    """Every message of a topic, by partition."""
    client = Consumer({**settings.librdkafka(), "group.id": "reader", "enable.auto.commit": False})
    found: dict[int, list[Any]] = {}
    for partition in client.list_topics(topic).topics[topic].partitions:
        place = TopicPartition(topic, partition, 0)
        low, high = client.get_watermark_offsets(place)
        client.assign([place])
        found[partition] = client.consume(high - low, 30.0) if high > low else []
    client.close()
    return found


def outputs(count: int) -> list[Output]:
    return [(f"user-{i}".encode(), f"value-{i}".encode(), None, None) for i in range(count)]


@pytest.fixture
def settings(fresh_settings: FreshSettings) -> Settings:
    return fresh_settings(create=False)


def test_a_list_is_answered_with_the_last_offset_of_each_partition(settings: Settings) -> None:
    topic = new_topic(settings, "out")

    async def story() -> None:
        producer = Producer(settings)
        first = await producer.send(topic, outputs(100))
        second = await producer.send(topic, outputs(100))
        await producer.close()
        assert {place[0] for place in first} == {topic}
        assert sum(first.values()) == 100 - len(first)
        assert {place: offset * 2 + 1 for place, offset in first.items()} == second

    run(story())


def test_keys_go_where_java_clients_put_them_and_named_partitions_are_obeyed(settings: Settings) -> None:
    topic = new_topic(settings, "out")
    named: list[Output] = [(b"user-0", b"named", 2, [("reason", b"test")])]

    async def story() -> None:
        producer = Producer(settings)
        assert await producer.send(topic, []) == {}
        await asyncio.gather(producer.send(topic, outputs(50)), producer.send(topic, named))
        await producer.close()

    run(story())
    for partition, messages in content(settings, topic).items():
        for message in messages:
            if message.value() == b"named":
                assert (partition, message.headers()) == (2, [("reason", b"test")])
            else:
                assert partition_for(message.key(), 3) == partition


def test_a_refused_output_fails_its_list(settings: Settings) -> None:
    narrow, wide = (
        new_topic(settings, "narrow", config={"max.message.bytes": "200"}),
        new_topic(settings, "wide"),
    )

    async def story() -> None:
        producer = Producer(settings)
        refused = producer.send(narrow, [*outputs(3), (b"user", b"x" * 500, None, None)])
        taken = producer.send(wide, outputs(3))
        with pytest.raises(ProduceFailed, match="too large") as failure:
            await refused
        assert failure.value.where == narrow
        assert len(await taken) > 0
        await producer.close()

    run(story())


def test_a_producer_without_offsets_only_says_that_all_is_there_or_refused(settings: Settings) -> None:
    topic = new_topic(settings, "narrow", config={"max.message.bytes": "200"})

    async def story() -> None:
        producer = Producer(settings, offsets=False)
        assert await producer.send(topic, outputs(3)) == {}
        assert sum(map(len, content(settings, topic).values())) == 3
        with pytest.raises(ProduceFailed, match="too large"):
            await producer.send(topic, [*outputs(3), (b"user", b"x" * 500, None, None), *outputs(3)])
        await producer.close()

    run(story())


def test_an_output_that_cannot_even_be_sent_fails_its_list(settings: Settings) -> None:
    topic = new_topic(settings, "out")
    huge = b"x" * (2 * settings.max_message_bytes + 1)

    async def story() -> None:
        producer = Producer(settings)
        with pytest.raises(ProduceFailed, match="MSG_SIZE_TOO_LARGE"):
            await producer.send(topic, [(b"user", huge, None, None)])
        assert len(producer) == 0
        await producer.close()

    run(story())


def test_what_the_queue_cannot_hold_is_sent_in_order_as_there_is_room(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, stock = new_topic(settings, "out", partitions=2), module.configuration
    monkeypatch.setattr(module, "configuration", lambda *given: {**stock(*given), "queue.buffering.max.messages": 10})

    async def story() -> None:
        producer = Producer(settings)
        lists = [[(b"user", f"{i}".encode(), 1, None) for i in range(j * 300, (j + 1) * 300)] for j in range(3)]
        acknowledged = await asyncio.gather(*[producer.send(topic, each) for each in lists])
        assert acknowledged == [{(topic, 1): 299}, {(topic, 1): 599}, {(topic, 1): 899}]
        await producer.close()

    run(story())
    assert [message.value() for message in content(settings, topic)[1]] == [b"%d" % i for i in range(900)]


def test_nothing_is_sent_while_membership_is_unconfirmed(settings: Settings) -> None:
    topic, now = new_topic(settings, "out"), [100.0]
    lease = Lease(10, clock=lambda: now[0])
    lease.renew(100.0)

    async def story() -> None:
        producer = Producer(settings, lease=lease)
        await producer.send(topic, outputs(5))
        now[0] = 110.0
        waiting = producer.send(topic, outputs(5))
        await producer.send(topic, [])
        assert (waiting.done(), sum(map(len, content(settings, topic).values()))) == (False, 5)
        lease.renew(105.0)
        await waiting
        await producer.close()

    run(story())


def test_nothing_is_sent_once_membership_is_lost(settings: Settings) -> None:
    topic = new_topic(settings, "out")
    lease = Lease(10, clock=lambda: 0.0)

    async def story() -> None:
        producer = Producer(settings, lease=lease)
        waiting = producer.send(topic, outputs(5))
        lease.lose("the test says so")
        for future in (waiting, producer.send(topic, outputs(5))):
            with pytest.raises(Fenced, match="the test says so"):
                await future
        lease.renew(0.0)
        await producer.send(topic, outputs(1))
        await producer.close()

    run(story())
    assert sum(map(len, content(settings, topic).values())) == 1


def test_a_worker_that_ends_drops_what_it_has_not_sent(settings: Settings) -> None:
    topic = new_topic(settings, "out")

    async def story() -> None:
        producer = Producer(settings, lease=Lease(10))
        waiting = producer.send(topic, outputs(5))
        await producer.close(abandon=True)
        with pytest.raises(ProduceFailed, match="ended"):
            await waiting

    run(story())


def test_a_lease_counts_from_when_the_heartbeat_was_sent() -> None:
    now = [0.0]
    lease = Lease(2, clock=lambda: now[0])
    assert not lease.held()
    lease.renew(sent_at=0.0)
    now[0] = 1.9
    assert lease.held()
    now[0] = 2.0
    assert not lease.held()


def test_delivery_and_lease_together_end_before_the_session(settings: Settings) -> None:
    timeout_ms = module.configuration(settings, 0, "none")["message.timeout.ms"]
    lease_s = settings.session_timeout_s * (1 - module.DELIVERY_SHARE)
    assert isinstance(timeout_ms, int)
    assert timeout_ms / 1000 + lease_s <= settings.session_timeout_s
