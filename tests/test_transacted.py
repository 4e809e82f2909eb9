"""Exactly once: whatever crashes, what is committed is what the committed positions say, and the broker refuses the
transaction of a reader that is no member any more.
"""

import asyncio
import random
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from confluent_kafka import Consumer, TopicPartition
from faust.types import TP
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from schemas.errors import BrokerUnavailable, Fenced, HeadraceError
from streams.config import Settings
from streams.group import Member
from streams.in_order import InOrder, Offsets
from streams.lease import Lease
from streams.metrics import Metrics
from streams.offsets import bounds, committed, read_range
from streams.producer import Acknowledged
from streams.rights import worker
from streams.transacted import TransactedSender, transactional_id, transactions
from streams.transactions import Sent
from streams.work import Outgoing

QUIET = {"log_level": 0}
CLICKS = TP("clicks", 0)
READER = Member("shop", 3, "reader-1")


class Log:
    """A broker in memory: a transaction that fails may have been committed, or not; that is not said."""

    def __init__(self, dice: random.Random) -> None:
        self.dice, self.said, self.read = dice, list[bytes](), dict[TP, int]()
        self.fails_at = 0

    def carry(self, records: Sequence[Outgoing], positions: Offsets, member: Member) -> Acknowledged:
        self.fails_at -= 1
        if not self.fails_at and self.dice.random() < 0.5:
            raise BrokerUnavailable("gone before anything was committed")
        self.said += [record.value or b"" for record in records]
        self.read |= positions
        if not self.fails_at:
            raise BrokerUnavailable("gone with the answer")
        return {("scores", 0): len(self.said)}


async def life(log: Log, inputs: int, dice: random.Random) -> None:
    """One worker: from the committed position on, micro-batches in order, alerts that take their time; to its end."""
    order = InOrder(log.carry, lambda: READER, lambda *_: None, 0.0, Metrics())
    running = asyncio.ensure_future(order.run())

    async def alert(at: int) -> list[Outgoing]:
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        return [Outgoing("alerts", None, b"alert %d" % at)]

    async def one(first: int, last: int) -> None:
        records = [Outgoing("scores", None, b"score %d" % at) for at in range(first, last)]
        alerts = asyncio.ensure_future(alert(first)) if dice.random() < 0.5 else None
        try:
            await order.send(records, {CLICKS: last}, alerts)
        finally:
            if alerts is not None:
                alerts.cancel()

    sends, at = [], log.read.get(CLICKS, 0)
    while at < inputs:
        last = min(inputs, at + dice.randrange(1, 4))
        sends.append(asyncio.ensure_future(one(at, last)))
        at = last
        if dice.random() < 0.5:
            await asyncio.sleep(0)
    done = asyncio.gather(*sends, return_exceptions=True)
    while not (running.done() or done.done()):
        await asyncio.sleep(0.001)
    for task in (running, *sends):
        task.cancel()
    await asyncio.gather(running, done, return_exceptions=True)


@given(st.integers(0, 1 << 30), st.integers(1, 25))
@limits(deadline=None, max_examples=40)
def test_however_often_it_fails_each_input_is_said_once_and_none_is_missing(seed, inputs):
    dice = random.Random(seed)
    log = Log(dice)
    for crash in (1, 2, 3, 1, 2, 0):  # the transaction that fails; the last life has none
        log.fails_at = crash
        asyncio.run(life(log, inputs, dice))
        scores = [said for said in log.said if said.startswith(b"score")]
        assert scores == [b"score %d" % at for at in range(log.read.get(CLICKS, 0))]
    assert log.read[CLICKS] == inputs
    assert max(Counter(log.said).values()) == 1


def test_micro_batches_that_wait_share_a_transaction_and_the_next_one_waits_its_time():
    groups: list[tuple[int, float]] = []

    def carry(records: Sequence[Outgoing], positions: Offsets, member: Member) -> Acknowledged:
        groups.append((len(records), time.monotonic()))
        return {}

    async def run() -> None:
        order = InOrder(carry, lambda: READER, lambda *_: None, 0.1, Metrics())
        running = asyncio.ensure_future(order.run())
        await order.send([Outgoing("scores", None, b"0")], {CLICKS: 1})
        await asyncio.gather(*(order.send([Outgoing("scores", None, b"x")], {CLICKS: at}) for at in (2, 3, 4)))
        running.cancel()

    asyncio.run(run())
    assert [count for count, _ in groups] == [1, 3]
    assert groups[1][1] - groups[0][1] >= 0.09


@pytest.mark.parametrize("now", [READER._replace(generation=4), READER._replace(member_id="", generation=-1)])
def test_what_was_read_under_another_membership_is_not_even_sent(now):
    members = [READER]

    def carry(records: Sequence[Outgoing], positions: Offsets, member: Member) -> Acknowledged:
        raise AssertionError("sent")

    async def run() -> Metrics:
        metrics = Metrics()
        order = InOrder(carry, lambda: members[-1], lambda *_: None, 0.0, metrics)
        sending = asyncio.ensure_future(order.send([], {CLICKS: 1}))
        await asyncio.sleep(0)
        members.append(now)
        with pytest.raises(Fenced):
            await order.run()
        with pytest.raises(Fenced):
            await sending
        with pytest.raises(Fenced):
            await order.send([], {CLICKS: 2})
        return metrics

    assert asyncio.run(run()).total("transactions") == {("aborted",): 1.0}


def test_a_restart_has_the_same_transactional_id_and_another_worker_another(tmp_path):
    one, other = (Settings(app_id="shop", data_dir=tmp_path / name) for name in "ab")
    assert transactional_id(one) == transactional_id(one) != transactional_id(other)
    named = Settings(app_id="shop", data_dir=tmp_path / "c", instance_id="w7")
    assert transactional_id(named) == "shop-scores-w7"
    allowed = {r.name for r in worker(Settings(app_id="shop", delivery="exactly_once")) if r.kind == "transactional-id"}
    assert "shop-scores-" in allowed
    assert "shop-scores-" not in {right.name for right in worker(Settings(app_id="shop"))}


@pytest.mark.parametrize("instance", ["", "w7"])
def test_a_member_is_packed_as_librdkafka_does_it(instance):
    conf = {"bootstrap.servers": "127.0.0.1:1", "group.id": "shop", **QUIET}
    with closing(Consumer(conf | ({"group.instance.id": instance} if instance else {}))) as consumer:
        assert Member("shop", -1, "", instance).packed() == consumer.consumer_group_metadata()


# -- on the real broker


@pytest.fixture
def reader(settings: Settings) -> Iterator[Consumer]:
    """A member of the group, which stands for aiokafka's."""
    conf = {"group.id": settings.app_id, "enable.auto.commit": False, "session.timeout.ms": 6_000, **QUIET}
    with closing(Consumer(settings.librdkafka() | conf)) as consumer:
        consumer.subscribe([settings.topics.clicks])
        deadline = time.monotonic() + 30
        while not consumer.assignment() and time.monotonic() < deadline:
            consumer.poll(0.1)
        yield consumer


def member_of(settings: Settings, consumer: Consumer) -> Member:
    packed = consumer.consumer_group_metadata()
    return Member(settings.app_id, struct.unpack_from("=i", packed, 7)[0], consumer.memberid())


def values(settings: Settings, topic: str) -> list[bytes]:
    """What a reader of committed records sees on partition 0."""
    _, end = bounds(settings, [(topic, 0)])[topic, 0]
    return [message.value() for messages in read_range(settings, topic, 0, 0, end) for message in messages]


def test_a_member_that_joined_is_packed_as_librdkafka_does_it(settings, reader):
    assert member_of(settings, reader).packed() == reader.consumer_group_metadata()


def test_the_group_refuses_an_older_generation_and_nothing_of_its_transaction_is_seen(settings, reader):
    member, topic = member_of(settings, reader), settings.topics.scores_fraud
    place = (settings.topics.clicks, 0)
    transactions(settings).carry([Sent(topic, 0, None, b"mine")], [TopicPartition(*place, 5)], member.packed())
    stale = member._replace(generation=member.generation - 1)
    for wrong in (stale, member._replace(member_id="nobody")):
        producer = transactions(settings)
        with pytest.raises(Fenced):
            producer.carry([Sent(topic, 0, None, b"a zombie's")], [TopicPartition(*place, 9)], wrong.packed())
    assert values(settings, topic) == [b"mine"]
    assert committed(settings, settings.app_id, [place]) == {place: 5}


def test_whoever_asks_where_to_go_on_waits_until_a_transaction_is_decided(settings, reader):
    settings = settings.model_copy(update={"session_timeout_s": 60.0})  # nobody aborts it meanwhile
    place = (settings.topics.clicks, 0)
    member = member_of(settings, reader)
    producer = transactions(settings)
    producer._producer.begin_transaction()
    producer._producer.produce(settings.topics.scores_fraud, b"undecided", partition=0)
    producer._producer.send_offsets_to_transaction([TopicPartition(*place, 7)], member.packed(), 10)
    with ThreadPoolExecutor(1) as beside:
        asking = beside.submit(until_told, settings, place)
        time.sleep(1.0)
        assert not asking.done()
        transactions(settings)  # its successor, by the same id
        assert asking.result(30) == {}
    assert values(settings, settings.topics.scores_fraud) == []


def until_told(settings: Settings, place: tuple[str, int]) -> Mapping[tuple[str, int], int]:
    while True:
        try:
            return committed(settings, settings.app_id, [place])
        except BrokerUnavailable:
            time.sleep(0.1)


def test_scores_and_positions_arrive_together_and_the_ends_of_the_score_topics_are_known(settings, reader):
    topic, told = settings.topics.scores_fraud, list[Mapping[TP, int]]()
    metrics, clicks = Metrics(), TP(settings.topics.clicks, 0)

    lease = Lease(60.0)
    lease.renew(lease.clock())

    async def run() -> TransactedSender:
        sender = TransactedSender(
            settings, lease, {"fraud": topic}, [], metrics=metrics,
            member=lambda: member_of(settings, reader), carried=told.append,
        )  # fmt: skip
        running = asyncio.ensure_future(sender.run())
        scores = [Outgoing(topic, b"u", b"%d" % at, 0) for at in range(3)]
        served = [Outgoing(settings.topics.served_fraud, b"o", b"served")]
        await sender.send(scores, served, positions=lambda: {clicks: 3})
        running.cancel()
        await sender.close()
        return sender

    sender = asyncio.run(run())
    assert values(settings, topic) == [b"0", b"1", b"2"]
    assert told == [{clicks: 3}]
    assert committed(settings, settings.app_id, [(*clicks,)]) == {(*clicks,): 3}
    assert sender.ends == {"fraud": {0: 3}}
    assert metrics.total("transactions") == {("committed",): 1.0}


def test_a_refused_record_takes_its_whole_transaction_with_it(settings, reader):
    topic, place = settings.topics.scores_fraud, (settings.topics.clicks, 0)
    producer = transactions(settings)
    records = [Sent(topic, 0, None, b"good"), Sent(topic, 99, None, b"to no partition")]
    with pytest.raises(HeadraceError):
        producer.carry(records, [TopicPartition(*place, 2)], member_of(settings, reader).packed())
    assert values(settings, topic) == []
    assert committed(settings, settings.app_id, [place]) == {}
