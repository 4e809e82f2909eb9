"""Fetching on a real broker: every record once and in order, whatever is paused, assigned anew or left behind."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import confluent_kafka
import pytest
from faust.types import TP

from schemas.errors import BrokerUnavailable
from streams.config import Settings
from streams.fetching import Fetcher
from streams.raw import RawRecord
from tests.observer import Observer, new_topic, publish


def run(story: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(story, 60)

    asyncio.run(bounded())


@asynccontextmanager
async def fetching(settings: Settings, ahead: int = 1000) -> AsyncIterator[Fetcher]:
    def fail(error: BaseException) -> None:
        raise error

    fetcher = Fetcher(settings, ahead, fail)
    try:
        yield fetcher
    finally:
        await fetcher.close()


async def gather(fetcher: Fetcher, wanted: set[TP] | None, enough: Callable[[dict[TP, list[RawRecord]]], bool]):
    """What `take` gives until it is enough, by partition."""
    found: dict[TP, list[RawRecord]] = {}
    while not enough(found):
        for tp, records in (await fetcher.take(wanted, 0.5)).items():
            found.setdefault(tp, []).extend(records)
    return found


def count(found: dict[TP, list[RawRecord]]) -> int:
    return sum(map(len, found.values()))


def holds(least: int, found: dict[TP, list[RawRecord]]) -> bool:
    return count(found) >= least


def ends(settings: Settings, topic: str) -> dict[TP, int]:
    observer = Observer(settings)
    try:
        return {TP(topic, number): end for number, end in observer.ends(topic).items()}
    finally:
        observer.close()


def test_every_record_comes_once_and_in_order_from_the_offset_assigned(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, 500)
    sizes = ends(settings, topic)

    async def story() -> None:
        async with fetching(settings) as fetcher:
            await fetcher.assign({TP(topic, 0): None, TP(topic, 1): 100})
            found = await gather(fetcher, None, lambda found: count(found) >= 500 - 100)
            offsets = {tp: [record.offset for record in records] for tp, records in found.items()}
            assert offsets == {
                TP(topic, 0): list(range(sizes[TP(topic, 0)])),
                TP(topic, 1): list(range(100, sizes[TP(topic, 1)])),
            }
            first = found[TP(topic, 0)][0]
            assert (first.topic, first.partition, first.headers) == (topic, 0, ())
            assert first.key is not None
            assert first.value is not None
            assert first.value.decode().removeprefix("value-") == first.key.decode().removeprefix("user-")
            assert {tp: fetcher.position(tp) for tp in sizes} == sizes
            assert {tp: fetcher.highwater(tp) for tp in sizes} == sizes

    run(story())


def test_what_is_not_wanted_now_stays_for_later(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, 300)
    one, other = TP(topic, 0), TP(topic, 1)
    sizes = ends(settings, topic)

    async def story() -> None:
        async with fetching(settings) as fetcher:
            await fetcher.assign({one: None, other: None})
            found = await gather(fetcher, {one}, lambda found: count(found) == sizes[one])
            assert set(found) == {one}
            rest = await gather(fetcher, {one, other}, lambda found: count(found) == sizes[other])
            assert [record.offset for record in rest[other]] == list(range(sizes[other]))

    run(story())


def test_a_new_assignment_forgets_what_was_fetched_under_the_old_one(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, 2000)
    place = TP(topic, 0)
    end = ends(settings, topic)[place]

    async def story() -> None:
        async with fetching(settings) as fetcher:
            for start in (0, 500, 20, 700, 3):
                await fetcher.assign({place: None})
                await gather(fetcher, None, lambda found: count(found) > 0)
                await fetcher.assign({place: start})
                found = await gather(fetcher, None, partial(holds, end - start))
                assert [record.offset for record in found[place]] == list(range(start, end))
            await fetcher.assign({})
            assert await fetcher.take(None, 0.2) == {}
            assert fetcher.position(place) is None

    run(story())


def test_pauses_at_any_moment_lose_nothing_and_repeat_nothing(settings: Settings) -> None:
    topic = settings.topics.clicks
    dice = random.Random(1)
    places = [TP(topic, 0), TP(topic, 1)]

    async def story() -> None:
        async with fetching(settings, ahead=50) as fetcher:
            await fetcher.assign(dict.fromkeys(places))
            found: dict[TP, list[RawRecord]] = {}
            paused: set[TP] = set()
            for _ in range(40):
                await asyncio.to_thread(publish, settings, topic, dice.randrange(200))
                place = dice.choice(places)
                (paused.discard if place in paused else paused.add)(place)
                fetcher.set_paused(place, place in paused)
                for tp, records in (await fetcher.take(None, 0.02)).items():
                    found.setdefault(tp, []).extend(records)
            for place in paused:
                fetcher.set_paused(place, False)
            sizes = await asyncio.to_thread(ends, settings, topic)
            missing = sum(sizes.values()) - count(found)
            for tp, records in (await gather(fetcher, None, lambda rest: count(rest) >= missing)).items():
                found.setdefault(tp, []).extend(records)
            assert await fetcher.take(None, 0.3) == {}
            for tp, records in found.items():
                assert [record.offset for record in records] == list(range(sizes[tp]))

    run(story())


def test_a_partition_that_was_read_to_its_end_and_paused_goes_on_with_its_next_record(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, 40)
    sizes = ends(settings, topic)

    async def story() -> None:
        async with fetching(settings) as fetcher:
            await fetcher.assign(dict.fromkeys(sizes, None))
            found = await gather(fetcher, None, partial(holds, 40))
            for more in range(1, 4):
                await fetcher.take(None, 1.0)  # librdkafka says that here it ends
                for paused in (True, False):
                    for tp in sizes:
                        fetcher.set_paused(tp, paused)
                    await asyncio.sleep(0.2)
                await asyncio.to_thread(publish, settings, topic, 40)
                for tp, records in (await gather(fetcher, None, partial(holds, 40))).items():
                    found.setdefault(tp, []).extend(records)
                assert count(found) == 40 * (more + 1)
            for records in found.values():
                assert [record.offset for record in records] == list(range(len(records)))

    run(story())


def test_no_more_waits_to_be_taken_than_there_is_room_for(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, 1000)

    async def story() -> None:
        async with fetching(settings, ahead=100) as fetcher:
            await fetcher.assign({TP(topic, 0): None, TP(topic, 1): None})
            left = 1000
            while left:
                await asyncio.sleep(0.15)
                found = count(await fetcher.take(None, 1.0))
                assert found <= 200  # one hand-over may come on top of what waits
                left -= found

    run(story())


def test_the_position_moves_past_the_marks_of_transactions(settings: Settings) -> None:
    topic = settings.topics.clicks
    producer = confluent_kafka.Producer({**settings.librdkafka(), "transactional.id": f"{settings.app_id}-t"})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b"value", b"user", 0)
    producer.commit_transaction()
    place = TP(topic, 0)

    async def story() -> None:
        async with fetching(settings) as fetcher:
            await fetcher.assign({place: None})
            found = await gather(fetcher, None, lambda found: count(found) == 1)
            assert found[place][0].offset == 0
            while fetcher.position(place) != 2:
                await fetcher.take(None, 0.05)
            assert fetcher.highwater(place) == 2

    run(story())


def test_pages_may_still_ask_for_ends_when_the_consumer_is_closed(settings: Settings) -> None:
    place = TP(settings.topics.clicks, 0)

    async def story() -> Fetcher:
        async with fetching(settings) as fetcher:
            await fetcher.assign({place: None})
        return fetcher

    assert asyncio.run(story()).highwater(place) == 0


def test_an_offset_that_retention_has_deleted_goes_on_at_the_start_of_the_log(settings: Settings) -> None:
    topic = new_topic(settings, f"{settings.app_id}.short")
    publish(settings, topic, 200)
    place = TP(topic, 0)
    admin = confluent_kafka.admin.AdminClient(settings.librdkafka())
    admin.delete_records([confluent_kafka.TopicPartition(topic, 0, 60)])[
        confluent_kafka.TopicPartition(topic, 0)
    ].result()
    end = ends(settings, topic)[place]

    async def story() -> None:
        async with fetching(settings) as fetcher:
            await fetcher.assign({place: 5})
            found = await gather(fetcher, None, lambda found: count(found) >= end - 60)
            assert [record.offset for record in found[place]] == list(range(60, end))

    run(story())


def test_an_error_that_does_not_pass_is_told_and_a_passing_one_is_not(settings: Settings) -> None:
    class Failed:
        def __init__(self, code: int) -> None:
            self._error = confluent_kafka.KafkaError(code)

        def error(self) -> confluent_kafka.KafkaError:
            return self._error

        def topic(self) -> str:
            return "clicks"

        def partition(self) -> int:
            return 0

        def offset(self) -> int:
            return -1001

    async def story() -> None:
        async with fetching(settings) as fetcher:
            fetcher._put([Failed(confluent_kafka.KafkaError._TRANSPORT)])
            with pytest.raises(BrokerUnavailable, match=r"TOPIC_AUTHORIZATION_FAILED.*clicks\[0\]|clicks\[0\]"):
                fetcher._put([Failed(confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED)])

    run(story())
