"""Single records by offset: what is there is found, what is not is left out, and nobody waits for it."""

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from streams.config import Settings
from streams.joining.lookup import GAP, ServedReader, stretches
from tests.observer import Observer, publish


@pytest.fixture
def reader(settings: Settings) -> Iterator[ServedReader]:
    with closing(ServedReader(settings)) as reader:
        yield reader


@given(st.sets(st.integers(0, 20 * GAP)))
def test_stretches_hold_each_offset_once_and_no_gap_is_wide(offsets: set[int]) -> None:
    found = list(stretches(sorted(offsets)))
    assert sorted(offset for _, _, wanted in found for offset in wanted) == sorted(offsets)
    for start, end, wanted in found:
        assert (min(wanted), max(wanted) + 1) == (start, end)
        ordered = sorted(wanted)
        assert all(later - sooner <= GAP for sooner, later in pairwise(ordered))
    assert all(later[0] - sooner[1] >= GAP for sooner, later in pairwise(found))


def test_records_far_apart_are_found_by_their_offsets(settings: Settings, reader: ServedReader) -> None:
    topic = settings.topics.clicks
    publish(settings, topic, 4000)
    observer = Observer(settings)
    end = observer.ends(topic)[0]
    observer.close()
    wanted = {0, 1, 7, GAP + 50, end - 1}
    found = reader.read(topic, 0, wanted)
    assert set(found) == wanted
    assert len(set(found.values())) == len(wanted)
    assert reader.read(topic, 0, []) == {}


def test_what_is_not_there_is_left_out(settings: Settings, reader: ServedReader) -> None:
    topic = settings.topics.orders
    assert reader.read(topic, 0, [0]) == {}
    publish(settings, topic, 400)
    place = TopicPartition(topic, 0, 50)
    admin = AdminClient(settings.librdkafka())  # kept: its answers come no more once it is gone
    admin.delete_records([place])[place].result(30)
    assert set(reader.read(topic, 0, [3, 60, 61, 10**6])) == {60, 61}
