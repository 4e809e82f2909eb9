"""Partitions of keys, against Java's own test vectors and against each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.partitioning import FEW, LONG, Partitions, murmur2, partition_for, partitions_for

# From Apache Kafka's UtilsTest.testMurmur2.
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}

keys = st.lists(st.binary(max_size=40), min_size=FEW, max_size=60)


@pytest.mark.parametrize(("key", "expected"), JAVA.items())
def test_the_hash_is_the_one_of_java_clients(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF
    assert partition_for(key, 7) == (expected & 0x7FFFFFFF) % 7


@given(keys, st.integers(1, 10_000))
def test_many_keys_at_once_get_the_partitions_that_each_would_get(keys: list[bytes], partitions: int) -> None:
    found = partitions_for(keys, partitions)
    assert found.tolist() == [partition_for(key, partitions) for key in keys]
    assert found.dtype.name == "int32"


def test_a_few_keys_and_a_very_long_one_are_no_exception() -> None:
    for keys in ([], [b"one"], [b"x" * (LONG + 1), *(b"%d" % i for i in range(FEW))]):
        assert partitions_for(keys, 5).tolist() == [partition_for(key, 5) for key in keys]


@given(st.lists(st.lists(st.text(max_size=3), max_size=9), max_size=9), st.integers(1, 50))
def test_what_is_remembered_of_users_is_what_their_ids_say(batches: list[list[str]], partitions: int) -> None:
    remembered = Partitions(partitions, most=10)
    for users in batches:
        assert remembered.of(users) == [partition_for(user.encode(), partitions) for user in users]
        assert len(remembered) <= 10
