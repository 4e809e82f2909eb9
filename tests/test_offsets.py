"""Offsets: what is asked of a log, and stretches of it, on a real broker."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.errors import BrokerUnavailable, FrontierTooOld, SettingsError, StateError
from streams.config import Settings
from streams.offsets import bounds, check_start, committed, newest_by_key, read_range, topic_id
from streams.ports import free_port


def publish(settings: Settings, topic: str, values: Iterator[bytes], **conf: object) -> Producer:
    producer = Producer({**settings.librdkafka(), "enable.idempotence": True, **conf})  # retries keep the order
    if conf:
        producer.init_transactions(10)
        producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, b"k", 0)
    producer.flush(10)
    return producer


def numbers(start: int, stop: int) -> Iterator[bytes]:
    return (str(number).encode() for number in range(start, stop))


def read(settings: Settings, topic: str, start: int, end: int) -> list[int]:
    batches = read_range(settings, topic, 0, start, end)
    return [int(message.value()) for batch in batches for message in batch]


def delete_before(settings: Settings, topic: str, offset: int) -> None:
    admin = AdminClient(settings.librdkafka())
    for answer in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
        answer.result(10)


def wait_for_end(settings: Settings, topic: str, end: int) -> None:
    """Until the mark of a transaction is written: a moment after its commit."""
    deadline = time.monotonic() + 10
    while bounds(settings, [(topic, 0)])[topic, 0][1] < end and time.monotonic() < deadline:
        time.sleep(0.01)
    assert bounds(settings, [(topic, 0)])[topic, 0][1] == end


def test_an_empty_partition_begins_and_ends_at_zero(settings: Settings) -> None:
    place = (settings.topics.clicks, 0)
    assert bounds(settings, [place]) == {place: (0, 0)}


def test_bounds_are_told_for_each_partition_asked(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, numbers(0, 5))
    delete_before(settings, topic, 2)
    assert bounds(settings, [(topic, 0), (topic, 1)]) == {(topic, 0): (2, 5), (topic, 1): (0, 0)}


def test_a_topic_that_does_not_exist_is_a_wrong_setting(settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"no\.such"):
        bounds(settings, [("no.such", 0)])


def test_a_broker_that_is_away_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.offsets.TIMEOUT_S", 0.5)
    settings = Settings(brokers=f"127.0.0.1:{free_port()}")
    with pytest.raises(BrokerUnavailable):
        bounds(settings, [("events.clicks", 0)])
    with pytest.raises(BrokerUnavailable):
        committed(settings, "headrace", [("events.clicks", 0)])


def test_a_range_holds_its_start_and_not_its_end(settings: Settings) -> None:
    publish(settings, settings.topics.clicks, numbers(0, 100))
    assert read(settings, settings.topics.clicks, 10, 20) == list(range(10, 20))


def test_a_range_may_be_longer_than_a_batch(settings: Settings) -> None:
    publish(settings, settings.topics.clicks, numbers(0, 25_000))
    found = read(settings, settings.topics.clicks, 0, 25_000)
    astray = [(offset, number) for offset, number in enumerate(found) if offset != number]
    assert (len(found), astray[:5]) == (25_000, [])


def test_the_newest_of_each_key_comes_in_the_order_of_saying_and_what_was_deleted_does_not(settings: Settings) -> None:
    topic = settings.topics.clicks
    producer = Producer({**settings.librdkafka(), "enable.idempotence": True})
    for key, value in ((b"a", b"1"), (b"b", b"1"), (b"c", b"1"), (b"a", b"2"), (b"c", None), (None, b"0")):
        producer.produce(topic, value, key, 0)
    assert producer.flush(10) == 0
    assert list(newest_by_key(settings, topic).items()) == [(b"b", b"1"), (b"a", b"2"), (b"", b"0")]
    assert newest_by_key(settings, topic, 1) == {}


@pytest.mark.parametrize("start", [0, 5])
def test_an_empty_range_reads_nothing(settings: Settings, start: int) -> None:
    publish(settings, settings.topics.clicks, numbers(0, 5))
    assert read(settings, settings.topics.clicks, start, start) == []


def test_a_range_ends_although_its_last_offset_is_a_transaction_mark(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, numbers(0, 3), **{"transactional.id": topic}).commit_transaction(10)
    wait_for_end(settings, topic, 4)
    assert read(settings, topic, 0, 4) == [0, 1, 2]


def test_what_was_aborted_is_not_read(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, numbers(0, 3))
    publish(settings, topic, numbers(3, 6), **{"transactional.id": topic}).abort_transaction(10)
    wait_for_end(settings, topic, 7)
    assert read(settings, topic, 0, 7) == [0, 1, 2]


def test_an_open_transaction_counts_as_not_there(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, numbers(0, 3))
    writer = publish(settings, topic, numbers(3, 6), **{"transactional.id": topic})
    assert bounds(settings, [(topic, 0)])[topic, 0] == (0, 3)
    assert read(settings, topic, 0, 3) == [0, 1, 2]
    writer.commit_transaction(10)


def test_a_range_that_begins_before_the_log_names_the_way_out(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, numbers(0, 5))
    delete_before(settings, topic, 3)
    with pytest.raises(FrontierTooOld, match=r"offset 2, and the log begins at 3.*docs/operate"):
        read_range(settings, topic, 0, 2, 5)
    assert read(settings, topic, 3, 5) == [3, 4]


def test_a_range_that_begins_after_the_log_is_another_log(settings: Settings) -> None:
    publish(settings, settings.topics.clicks, numbers(0, 5))
    with pytest.raises(StateError, match="the log ends at 5"):
        read_range(settings, settings.topics.clicks, 0, 6, 10)


def test_a_range_whose_end_never_comes_is_given_up(settings: Settings) -> None:
    publish(settings, settings.topics.clicks, numbers(0, 5))
    with pytest.raises(BrokerUnavailable, match="offset 5 of 9"):
        list(read_range(settings, settings.topics.clicks, 0, 0, 9, stall_s=0.2))


def test_committed_offsets_are_those_of_the_group(settings: Settings) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, numbers(0, 5))
    consumer = Consumer({**settings.librdkafka(), "group.id": settings.app_id})
    consumer.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
    consumer.close()
    places = [(topic, 0), (topic, 1)]
    assert committed(settings, settings.app_id, places) == {(topic, 0): 3}
    assert committed(settings, "another", places) == {}
    assert committed(settings, settings.app_id, []) == {}


def test_each_topic_has_an_id_of_its_own(settings: Settings) -> None:
    first = topic_id(settings, settings.topics.state)
    assert first == topic_id(settings, settings.topics.state)
    assert first != topic_id(settings, settings.topics.clicks)


@pytest.mark.parametrize(("start", "error"), [(1, FrontierTooOld), (2, None), (5, None), (6, StateError)])
def test_a_place_is_checked_against_the_bounds(start: int, error: type[Exception] | None) -> None:
    if error:
        with pytest.raises(error):
            check_start("events.clicks", 0, start, 2, 5)
    else:
        check_start("events.clicks", 0, start, 2, 5)
