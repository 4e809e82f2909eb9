"""A consumer group's member in the words of librdkafka, whose transactions may carry the offsets that it has read.
The member is aiokafka's, which librdkafka's own object cannot stand for; the broker only asks whether it is current.
"""

import struct
from typing import NamedTuple

_MAGIC, _GENERATION = b"CGMDv2:", struct.Struct("=i")


class Member(NamedTuple):
    """Who reads, and since which rebalance: a transaction of an older generation is refused by the group."""

    group: str
    generation: int
    member_id: str
    instance_id: str = ""

    @property
    def current(self) -> bool:
        """False before the first join and after membership is lost: the broker would not ask who commits, then."""
        return self.generation >= 0 and bool(self.member_id)

    def packed(self) -> bytes:
        """What `confluent_kafka.Consumer.consumer_group_metadata` returns of such a member.

        Layout of rd_kafka_consumer_group_metadata_write, librdkafka 1.8 to 2.12 (src/rdkafka_cgrp.c).
        """
        instance = b"\0" + self.instance_id.encode() + b"\0" if self.instance_id else b"\1"
        texts = self.group.encode() + b"\0" + self.member_id.encode() + b"\0"
        return _MAGIC + _GENERATION.pack(self.generation) + texts + instance
