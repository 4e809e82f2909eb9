"""The sender of `delivery = "exactly_once"`: what micro-batches cause, and that they are read, in one transaction.
A reader of committed records sees all of it or none.

Not here: who may commit. The group does that: it refuses offsets of a member that is not current, and a transaction
whose offsets were refused is never committed. docs/architecture.md, Exactly once, says why that is enough.
"""

import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from confluent_kafka import KafkaError, Message, TopicPartition
from faust.types import TP

from streams.app import App
from streams.codecs import Names
from streams.config import Settings
from streams.deadletters import letter_bytes
from streams.group import Member
from streams.in_order import InOrder, Offsets
from streams.lease import Lease
from streams.metrics import Metrics
from streams.producer import ANY_PARTITION, LINGER_MS, Acknowledged
from streams.sender import Positions, Sender
from streams.transactions import Sent, TransactionalProducer
from streams.work import Outgoing


def make_sender(settings: Settings, app: App, names: Names, metrics: Metrics) -> Sender:
    """As `delivery` says. Blocks; raises what TransactedSender raises."""
    scores, urgent = dict(names.scores), [names.alerts]
    if settings.delivery == "at_least_once":
        return Sender(settings, app.lease, scores, urgent)
    app.transacted = frozenset(names.inputs)
    return TransactedSender(
        settings, app.lease, scores, urgent,
        member=lambda: app.batches.member(), carried=lambda offsets: app.batches.carried(offsets), metrics=metrics,
    )  # fmt: skip


class TransactedSender(Sender):
    """What is sent through `fast` and `patient` is of no transaction: answered events, shadows, entities' state."""

    def __init__(
        self,
        settings: Settings,
        lease: Lease,
        score_topics: dict[str, str],
        urgent: Collection[str],
        *,
        member: Callable[[], Member],
        carried: Callable[[Mapping[TP, int]], None],
        metrics: Metrics,
    ) -> None:
        """`member`: who reads now. `carried` hears of offsets that are committed. Blocks until the producer is ready,
        and what a predecessor of its id left open is undone. Raises BrokerUnavailable, SettingsError.
        """
        self._producer = transactions(settings)
        super().__init__(settings, lease, score_topics, urgent)
        self._lease, self._member, self._carried = lease, member, carried
        self._order = InOrder(self._carry, self._reader, self._committed, settings.transaction_ms / 1000, metrics)

    async def send(
        self,
        first: Sequence[Outgoing],
        second: Sequence[Outgoing],
        scored: Callable[[], None] = lambda: None,
        alerts: Awaitable[Sequence[Outgoing]] | None = None,
        positions: Positions = dict,
    ) -> None:
        """Returns when all is committed, `positions` with it; `scored` is called then.

        Raises ProduceFailed, Fenced, SettingsError and, where the outcome is not known, BrokerUnavailable.
        """
        await self._order.send([*first, *second], positions(), alerts)
        scored()

    async def run(self) -> None:
        """Until cancelled. Raises what `send` raises."""
        await self._order.run()

    def _reader(self) -> Member:
        self._lease.held()  # lost: Fenced. Only unconfirmed is no reason to wait: the group itself will say.
        return self._member()

    def _committed(self, positions: Offsets, newest: Acknowledged) -> None:
        self._acknowledged(newest)
        self._carried(positions)

    def _carry(self, records: Sequence[Outgoing], positions: Offsets, member: Member) -> Acknowledged:
        newest: Acknowledged = {}

        def report(error: KafkaError | None, message: Message) -> None:
            if error is None:
                newest[message.topic(), message.partition()] = message.offset()

        # A report costs as much as sending: only the last score of each partition has one.
        last = {(r.topic, r.partition): number for number, r in enumerate(records) if r.topic in self._task_of}
        read = [TopicPartition(*tp, offset) for tp, offset in positions.items()]
        self._producer.carry(map(sent, records), read, member.packed(), dict.fromkeys(last.values(), report))
        return newest


def sent(record: Outgoing) -> Sent:
    topic, key, value, partition, headers = record
    return Sent(topic, ANY_PARTITION if partition is None else partition, key, value, headers)


def transactions(settings: Settings) -> TransactionalProducer:
    """The broker gives up a transaction that nobody ends when the group gives up its member: after a session."""
    session_ms = round(settings.session_timeout_s * 1000)
    return TransactionalProducer(
        settings,
        transactional_id(settings),
        "transactions of scores",
        settings.session_timeout_s,
        **{
            "client.id": settings.app_id,
            "transaction.timeout.ms": session_ms,
            "partitioner": "murmur2_random",
            "linger.ms": LINGER_MS,
            "compression.type": "none",
            "message.max.bytes": letter_bytes(settings),
            "queue.buffering.max.messages": 100_000,
            "queue.buffering.max.kbytes": 65_536,
        },
    )


def transactional_id(settings: Settings) -> str:
    """The worker's own, the same after a restart: so it undoes at once what it left open when it was killed.

    By `instance_id`, else by a name that is made once and kept in data_dir.
    """
    name = settings.instance_id
    if not name:
        file = settings.data_dir / "worker" / f"{settings.app_id}.transactions"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(uuid.uuid4().hex)
        name = file.read_text().strip()
    return f"{settings.app_id}-scores-{name}"
