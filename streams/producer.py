"""Sends outputs, and says when the broker has them: one future for each list of records, over librdkafka.
A refusal is final. The caller lets it end the process, with the inputs of that list uncommitted."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import Fenced, HeadraceError, ProduceFailed
from streams.config import Settings
from streams.deadletters import letter_bytes
from streams.lease import Lease

log = logging.getLogger(__name__)

#: Key, value, partition (None: by the key, as Java clients do), headers.
Output = tuple[bytes | None, bytes | None, int | None, Sequence[tuple[str, bytes]] | None]
#: The same with its topic in front.
Addressed = tuple[str, bytes | None, bytes | None, int | None, Sequence[tuple[str, bytes]] | None]
#: Highest acknowledged offset by (topic, partition).
Acknowledged = dict[tuple[str, int], int]

#: What is sent must be on the broker, or given up, in this part of the session; the lease has the other part.
#: As long as can be, to outlast a broker's restart: a lease that runs out only delays.
DELIVERY_SHARE = 0.8
ANY_PARTITION = -1
#: Measured at full speed, CPU per event of a whole relay: 14.5 µs with 0, 12 with 0.5, 12.3 with 1.
LINGER_MS = 0.5
#: Longest pause of the poll thread between two looks at the backlog, seconds.
POLL_S = 0.1


class Producer:
    """Idempotent, acks=all. Used from one event loop; a thread of its own serves acknowledgements.

    Order is kept for each partition. What does not fit into librdkafka's queue waits in a backlog that the
    thread sends as acknowledgements make room; the caller bounds it by the futures that it leaves open.
    With a `lease`, nothing is sent while membership is unconfirmed; all fails with Fenced once it is lost.
    Without `offsets`, what is acknowledged is counted and no offset is told: a quarter less for each record.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        lease: Lease | None = None,
        linger_ms: float = LINGER_MS,
        compression: str = "none",
        offsets: bool = True,
    ) -> None:
        self._client = confluent_kafka.Producer(configuration(settings, linger_ms, compression), logger=log)
        self._lease, self._offsets = lease, offsets
        self._lock = threading.Lock()
        self._backlog: deque[_Delivery] = deque()
        self._open: set[asyncio.Future[Acknowledged]] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="producer", daemon=True)
        self._thread.start()

    def send(self, topic: str, outputs: Sequence[Output]) -> "asyncio.Future[Acknowledged]":
        """`send_all` of records of one topic."""
        return self.send_all([(topic, *output) for output in outputs])

    def send_all(self, outputs: Sequence[Addressed]) -> "asyncio.Future[Acknowledged]":
        """Resolves when all of `outputs` are acknowledged; an empty list at once.

        One future, so one wake-up of the loop, however many topics. Fails with ProduceFailed on the first refusal,
        with Fenced if the lease is lost.
        """
        future: asyncio.Future[Acknowledged] = asyncio.get_running_loop().create_future()
        if not outputs:
            future.set_result({})
            return future
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        with self._lock:
            self._backlog.append(_Delivery(outputs, future))
            self._pump()
        return future

    async def flush(self) -> None:
        """Returns when all that was sent is acknowledged or refused."""
        if waiting := list(self._open):
            await asyncio.wait(waiting)

    async def close(self, *, abandon: bool = False) -> None:
        """Flushes, then ends the thread. With `abandon` what is not yet sent is dropped."""
        if abandon:
            with self._lock:
                self._fail_backlog(ProduceFailed("the worker ended before this was sent"))
            self._client.purge()
        await self.flush()
        self._closing.set()
        await asyncio.to_thread(self._thread.join)

    def __len__(self) -> int:
        """Lists not yet fully acknowledged."""
        return len(self._open)

    def _serve(self) -> None:
        while not self._closing.is_set():
            # Returns early when acknowledgements came; they are what makes room.
            self._client.poll(POLL_S)
            if self._backlog:
                with self._lock:
                    self._pump()

    def _pump(self) -> None:
        """Moves the backlog into librdkafka until that is full. Called under the lock."""
        while self._backlog:
            try:
                if self._lease is not None and not self._lease.held():
                    return
                if not self._produce(self._backlog[0]):
                    return
            except Fenced as error:
                self._fail_backlog(error)
            else:
                self._backlog.popleft()

    def _produce(self, delivery: "_Delivery") -> bool:
        """False if the queue was full before the last output; the rest stays with the delivery."""
        produce, report = self._client.produce, delivery.report if self._offsets else delivery.count
        for index in range(delivery.produced, len(delivery.outputs)):
            topic, key, value, partition, headers = delivery.outputs[index]
            where = ANY_PARTITION if partition is None else partition
            try:
                if headers is None:
                    produce(topic, value, key, where, report)
                else:
                    produce(topic, value, key, where, report, headers=headers)
            except BufferError:
                delivery.produced = index
                return False
            except KafkaException as error:
                delivery.fail(refused(error.args[0], topic))
                return True
        return True

    def _fail_backlog(self, error: HeadraceError) -> None:
        while self._backlog:
            self._backlog.popleft().fail(error)


class _Delivery:
    """One list on its way: what is not yet produced, and what is not yet acknowledged."""

    __slots__ = ("future", "left", "offsets", "outputs", "produced")

    def __init__(self, outputs: Sequence[Addressed], future: "asyncio.Future[Acknowledged]") -> None:
        self.outputs, self.future = outputs, future
        self.produced, self.left = 0, len(outputs)
        self.offsets: Acknowledged = {}

    def report(self, error: KafkaError | None, message: confluent_kafka.Message) -> None:
        """One output's fate; called by the thread, in order for each partition."""
        if error is not None:
            self.fail(refused(error, message.topic()))
            return
        self.offsets[message.topic(), message.partition()] = message.offset()
        self.left -= 1
        if not self.left:
            self._settle(self.offsets)

    def count(self, error: KafkaError | None, message: confluent_kafka.Message) -> None:
        """`report`, for a list whose offsets nobody asks for."""
        if error is not None:
            self.fail(refused(error, message.topic()))
            return
        self.left -= 1
        if not self.left:
            self._settle(self.offsets)

    def fail(self, error: HeadraceError) -> None:
        self.left = -1
        self._settle(error)

    def _settle(self, outcome: Acknowledged | HeadraceError) -> None:
        # A closed loop: nobody waits any more.
        with suppress(RuntimeError):
            self.future.get_loop().call_soon_threadsafe(_resolve, self.future, outcome)


def _resolve(future: "asyncio.Future[Acknowledged]", outcome: Acknowledged | HeadraceError) -> None:
    if future.done():
        return
    if isinstance(outcome, HeadraceError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def refused(error: KafkaError, topic: str) -> ProduceFailed:
    return ProduceFailed(
        f"an output was not accepted: {error.str()} ({error.name()})",
        where=topic,
        todo="look at the topic and the broker; the inputs stay uncommitted and are read again",
    )


def configuration(settings: Settings, linger_ms: float, compression: str) -> Mapping[str, object]:
    return {
        **settings.librdkafka(),
        "client.id": settings.app_id,
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "linger.ms": linger_ms,
        "compression.type": compression,
        "message.timeout.ms": int(settings.session_timeout_s * 1000 * DELIVERY_SHARE),
        # A dead letter is its input and what is wrong with it.
        "message.max.bytes": letter_bytes(settings),
        "queue.buffering.max.messages": 100_000,
        "queue.buffering.max.kbytes": 65_536,
        "error_cb": _log_error,
    }


def _log_error(error: KafkaError) -> None:
    log.warning("producer: %s", error.str(), extra={"code": error.name()})
