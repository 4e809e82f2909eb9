"""The worker's Faust app: made from the settings, run without Faust's command line, ended by a first failure.
Faust gives assignment, rebalance and the services around them; records go through the transport and intakes."""

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import faust
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource
from faust.app.base import BootStrategy
from faust.types import TP
from mode import CrashingSupervisor
from yarl import URL

from schemas.errors import BrokerUnavailable, HeadraceError, SettingsError
from streams.batches import BatchScheduler, BatchSchema
from streams.config import Settings
from streams.consumer_thread import HEARTBEATS_PER_SESSION
from streams.intake import Intake
from streams.lease import Lease
from streams.producer import DELIVERY_SHARE
from streams.signals import hear
from streams.tenure import CONFIRM_S, Moved, Share
from streams.topics import clock_warning
from streams.transport import SCHEME, Consumer

log = logging.getLogger(__name__)

#: Batches in the channel between Faust and an intake. Deep channels let one-record batches pile up.
CHANNEL_DEPTH = 4
#: How long a stop may take, seconds: after a failure; in order, this much more than a session.
STOP_GRACE_S = 5.0
EXIT_STUCK = 70

Assigned = Callable[[set[TP], set[TP]], Awaitable[None]]


class Boot(BootStrategy):
    """Faust's own producer is not started."""

    enable_kafka_producer = False


class App(faust.App):
    """A Faust app whose topics are batch topics, read through intakes."""

    BootStrategy = Boot

    def __init__(self, settings: Settings, **options: Any) -> None:
        self.settings = settings
        self.lease = Lease(settings.session_timeout_s * (1 - DELIVERY_SHARE))
        self.transacted: frozenset[str] = frozenset()
        self._intakes: list[Intake] = []
        self._finishing: list[Callable[[], Awaitable[None]]] = []
        self.share = Share(self.lease, lambda: self.should_stop)
        self._predecessor_s = self.lease.seconds if settings.instance_id else 0.0
        super().__init__(settings.app_id, **options)

    def intake(self, *topics: str, max_events: int | None = None) -> Intake:
        """Declares that `topics` are read, and returns where their batches arrive. Before the app starts."""
        batch = self.settings.batch
        intake = Intake(
            max_events=max_events or batch.max_events,
            max_wait=batch.max_wait_ms / 1000,
            pause=lambda tp: self.batches.pause(tp),
            resume=lambda tp: self.batches.resume(tp),
        )

        async def feed(stream: Any) -> None:
            async for event in stream.noack().events():
                intake.offer(event.value, event.ack)

        self.agent(self.topic(*topics), name=f"intake-{topics[0]}")(feed)
        self._intakes.append(intake)
        return intake

    def on_assigned(self, restore: Assigned) -> None:
        """Has `restore(assigned, kept)` awaited after each rebalance, before records flow.

        `kept` are those that this worker has had without a break since the last call: their state is current.
        All others are to be restored, or dropped if not in `assigned`. It asks `share.tenure` on its way and raises
        Moved where that is over: then it is called again, for the next assignment. Any other exception ends the worker.
        """

        async def handle(*_: Any, **__: Any) -> None:
            await self._predecessor_ended()
            while await self._assigned():
                tenure, (assigned, kept) = self.share.tenure, self.share.begin()
                try:
                    await restore(assigned, kept)
                except Moved as moved:
                    log.info("the assignment ended while its partitions were restored")
                    self.share.done(moved.done)
                else:
                    self.share.done(assigned)
                    if not tenure.over:
                        return

        self.on_rebalance_complete.connect(handle, weak=False)

    async def _assigned(self) -> bool:
        """Returns when there is an assignment that holds; False where the app stops. Faust would let records flow in
        the middle of a rebalance.
        """
        while self.share.tenure.over and not self.should_stop:
            await asyncio.sleep(CONFIRM_S)
        return not self.should_stop

    async def _predecessor_ended(self) -> None:
        """A static member is let in at once, also while a process of its name still runs or is frozen: that one hands
        nothing over any more when its lease is over. Before a first assignment only: who is replaced stays away.
        """
        seconds, self._predecessor_s = self._predecessor_s, 0.0
        await asyncio.sleep(seconds)

    def on_release(self, finish: Callable[[], Awaitable[None]]) -> None:
        """Has `finish()` awaited before partitions go: at a rebalance, and at the end while we are still a member."""
        self._finishing.append(finish)

    @property
    def batches(self) -> Consumer:
        """The consumer: `pause`, `resume`, `committed`, `commit_now`."""
        return cast(Consumer, self.consumer)

    async def release(self) -> None:
        """Called when the flow has stopped: returns when no record is in anybody's hands."""
        await asyncio.gather(*[finish() for finish in self._finishing])
        for dropped in await asyncio.gather(*[intake.revoke() for intake in self._intakes]):
            self.batches.abandon(dropped)

    def _crash(self, reason: BaseException) -> None:
        super()._crash(reason)
        for intake in self._intakes:
            intake.fail(reason)


def make_app(settings: Settings) -> App:
    """The app of one worker. Nothing connects before it starts."""
    session = settings.session_timeout_s
    folder = settings.data_dir / "worker"
    folder.mkdir(parents=True, exist_ok=True)
    return App(
        settings,
        broker=[URL(f"{SCHEME}://{address}") for address in settings.brokers.split(",")],
        datadir=folder / settings.app_id,
        store="memory://",
        autodiscover=False,
        Schema=BatchSchema,
        ConsumerScheduler=BatchScheduler,
        agent_supervisor=CrashingSupervisor,
        stream_buffer_maxsize=CHANNEL_DEPTH,
        stream_wait_empty=True,
        broker_max_poll_records=max(1024, 4 * settings.batch.max_events),
        broker_commit_interval=settings.commit_interval_s,
        broker_session_timeout=session,
        broker_heartbeat_interval=session / HEARTBEATS_PER_SESSION,
        broker_request_timeout=max(40.0, 2 * session),
        table_standby_replicas=0,
        topic_disable_leader=True,
        topic_allow_declare=False,
        # Health and metrics have a server of their own, up before the app is.
        web_enabled=False,
        worker_redirect_stdouts=False,
    )


def check_topics(settings: Settings, topics: tuple[str, ...], *, partitions: int = 0) -> None:
    """Faust ignores an input topic that is not there, and reads nothing: this says so before. It warns of topics
    whose timestamps are not the broker's.

    `partitions`: how many each must have, as a user's events must meet in one worker; 0: any number.
    Raises BrokerUnavailable or SettingsError.
    """
    client = AdminClient({**settings.librdkafka(), "log_level": 0})
    try:
        known = client.list_topics(timeout=settings.session_timeout_s).topics
    except KafkaException as error:
        raise BrokerUnavailable(
            f"no broker answered: {error.args[0].str()}",
            where=settings.brokers,
            todo="start one, or set brokers",
        ) from error
    if missing := [topic for topic in topics if topic not in known]:
        raise SettingsError(
            f"no such topic: {', '.join(missing)}",
            where=settings.brokers,
            todo="run `headrace topics create`",
        )
    counts = {topic: len(known[topic].partitions) for topic in topics}
    if partitions and set(counts.values()) != {partitions}:
        raise SettingsError(
            f"partition counts: {', '.join(f'{topic} {count}' for topic, count in counts.items())}",
            where=settings.brokers,
            expected=f"{partitions} for each event topic, as the setting `partitions` says",
            todo="set `partitions` to what the topics have; they must all have the same",
        )
    if warning := clock_warning(_configs(client, topics, settings.session_timeout_s)):
        log.warning("%s", warning)


def _configs(client: AdminClient, topics: tuple[str, ...], timeout: float) -> dict[str, dict[str, str]]:
    """By topic, as far as the broker tells: a worker needs no right to read configurations."""
    told = {}
    asked = client.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics])
    for resource, answer in asked.items():
        try:
            told[resource.name] = {entry.name: entry.value for entry in answer.result(timeout).values()}
        except (KafkaException, TimeoutError) as error:
            log.info("the configuration of topic %s is not known: %s", resource.name, error)
    return told


def run_app(app: App) -> None:
    """Runs the worker until SIGTERM or SIGINT, then stops it in order: finish, commit, leave the group.

    If anything in it crashes it stops all and raises that error. Logging is the caller's.
    """
    asyncio.run(until_stopped(app))


async def until_stopped(app: App, asked: asyncio.Event | None = None, ready: Awaitable[None] | None = None) -> None:
    """`run_app` in a running loop. It joins the group when `ready` is, and not before.

    `asked` is set to stop it, by one who hears the signals already.
    """
    for handler in logging.getLogger().handlers:
        handler.addFilter(_not_a_crash_of_ours)
    if asked is None:
        hear(asyncio.get_running_loop(), (asked := asyncio.Event()).set)
    starting = asyncio.ensure_future(start_app(app, ready))
    ending = [asyncio.ensure_future(event.wait()) for event in (asked, app._crashed)]
    await asyncio.wait([starting, *ending], return_when=asyncio.FIRST_COMPLETED)
    if not (starting.done() and starting.exception()):
        await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    for task in ending:
        task.cancel()
    await _stop(app, starting)
    if app.crash_reason:
        raise app.crash_reason
    if starting.done() and not starting.cancelled():
        starting.result()


def _not_a_crash_of_ours(record: logging.LogRecord) -> bool:
    """mode logs a crash with its traceback in each service on the way; the caller has ours to say, once."""
    crash = isinstance(record.msg, str) and "Crashed reason" in record.msg
    return not (crash and record.exc_info and isinstance(record.exc_info[1], HeadraceError))


async def start_app(app: App, ready: Awaitable[None] | None = None) -> None:
    """Starts the app in the running loop; returns when its first assignment is restored. `stop` ends it."""
    if ready is not None:
        await ready
    app.finalize()
    await app.start()


async def _stop(app: App, starting: "asyncio.Future[None]") -> None:
    patience = STOP_GRACE_S + (0 if app.crashed else app.settings.session_timeout_s)
    # A thread or an executor that hangs must not keep a worker that has failed.
    timer = threading.Timer(patience, _leave)
    timer.daemon = True
    timer.start()
    starting.cancel()
    try:
        await app.stop()
    except (Exception, asyncio.CancelledError) as error:
        # What crashed is the news, not what fell with it.
        if not app.crash_reason:
            raise
        log.warning("the worker did not stop in order after its failure: %r", error)
    else:
        timer.cancel()


def _leave() -> None:
    log.critical("the worker could not stop in time; it ends here, uncommitted work is read again")
    os._exit(EXIT_STUCK)
