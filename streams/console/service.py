"""The console as a process: what stands behind the pages, opened once, and the server until it is stopped.
A broker that is away holds up neither the start nor a page: what was read is shown, and the rest is waited for.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress

from aiohttp import web

from schemas.errors import HeadraceError, SettingsError
from schemas.registry import Registry
from streams.access.accounts import Accounts
from streams.audit.accounts import send_changes
from streams.audit.log import Audit
from streams.config import Settings
from streams.console.app import Clock, application, now_ms
from streams.console.catalog import Names
from streams.console.desk import Desk
from streams.console.feed import DAY_MS, Feed
from streams.console.hub import Hub
from streams.console.notes import NoteBook
from streams.console.notes_file import move_notes
from streams.console.notes_topic import NotesTopic
from streams.console.office import Office
from streams.console.speaker import Labels, Orders
from streams.console.store import Applied, Store
from streams.signals import hear

log = logging.getLogger(__name__)

SEND_EVERY_S = 60.0
CURRENT_S = 10.0
CATCH_UP_S = 5.0
LEAVE_S = 5.0


class Console:
    """All that a running console holds. Close it."""

    def __init__(self, settings: Settings, registry: Registry, clock: Clock = now_ms) -> None:
        """Raises SettingsError, StateError."""
        self._clock, self._stack = clock, ExitStack()
        with ExitStack() as stack:
            self._folder = folder = settings.data_dir / "console"
            self._notes_moved, self._retention_ms = False, settings.console.retention_days * DAY_MS
            self.accounts = stack.enter_context(Accounts(settings))
            store = stack.enter_context(closing(Store(folder)))
            self.notes_topic = NotesTopic(settings, registry)
            notes = NoteBook(self.notes_topic)
            self.audit = Audit(settings, registry)
            labels = Labels(settings, registry)
            four_eyes = settings.console.four_eyes
            desk = Desk(store, notes, labels, self.audit, four_eyes=four_eyes, catch_up=self._catch_up)
            names = Names(settings, registry)
            stack.callback(names.stop)
            self.notes_topic.follow(notes)
            stack.callback(self.notes_topic.stop)
            orders = Orders(settings, registry)
            self.office = Office(store, desk, Hub(), self.accounts.names, self.audit.pseudonyms, orders, names)
            self.office.notes_problem = lambda: self.notes_topic.error
            self.feed = self.office.feed = Feed(settings, registry, store, self._told, clock, self._deleting)
            stack.callback(self.feed.stop)
            self.app = application(settings, registry, self.accounts, self.audit, self.office, clock)
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def _catch_up(self) -> None:
        """What other consoles have said up to now; one that cannot be read leaves a verdict waiting, and says so."""
        with suppress(HeadraceError, TimeoutError):
            self.feed.wait_current(CATCH_UP_S)

    def send_changes(self) -> None:
        """What was changed in the accounts, by whom, into the audit log; what cannot be sent waits."""
        try:
            if self.accounts.changes.waiting():
                send_changes(self.accounts, self.audit, self._clock())
        except HeadraceError as error:
            log.warning("changes of accounts wait for the audit log: %s", error)

    def move_notes(self) -> None:
        """Those that a console before this one kept in a file, onto their topic; what cannot be sent waits."""
        if self._notes_moved:
            return
        try:
            self.feed.wait_current(CURRENT_S)
            self.notes_topic.wait_current(CURRENT_S)
        except (HeadraceError, TimeoutError) as error:
            log.warning("notes of before wait for their topic: %s", error)
            return
        self._notes_moved = move_notes(self._folder, self.office.desk.notes, self._user_of)

    def tidy_notes(self) -> None:
        """Deletes what was written so long ago that no case here is as old, and has none: a note ends with its case."""
        book = self.office.desk.notes
        before = self._clock() - self._retention_ms
        with suppress(HeadraceError):  # later, then
            book.forget([order_id for order_id in book.orders_before(before) if self._user_of(order_id) is None])

    def _user_of(self, order_id: str) -> str | None:
        with self.office.store.reading() as connection:
            query = "SELECT user_id FROM alerts WHERE order_id = ?"
            row = connection.execute(query, (order_id,)).fetchone()
        return str(row["user_id"]) if row is not None else None

    def _deleting(self, orders: Sequence[str]) -> None:
        """On the feed's thread, before the alerts go: what is elsewhere of them."""
        self.office.desk.notes.forget(orders)
        if self.office.orders is not None:
            self.office.orders.forget(orders)

    def _told(self, applied: Applied) -> None:
        """On the feed's thread."""
        self.office.announce(applied.orders, applied.new)


async def serve(
    console: Console, settings: Settings, on_ready: Callable[[str], None], stop: asyncio.Event | None = None
) -> None:
    """Until SIGTERM, SIGINT or `stop`; `on_ready` is told the address. SettingsError if it cannot be had."""
    stop = stop or asyncio.Event()
    hear(asyncio.get_running_loop(), stop.set)
    runner = web.AppRunner(console.app, access_log=None, shutdown_timeout=LEAVE_S)
    await runner.setup()
    sending = asyncio.create_task(_sending(console))
    try:
        on_ready(await _listening(runner, settings))
        await stop.wait()
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        await runner.cleanup()


async def _listening(runner: web.AppRunner, settings: Settings) -> str:
    host, port = settings.console.host, settings.console.port
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            where="console.host, console.port",
            expected="an address of this machine with a free port",
            todo="set HEADRACE_CONSOLE__PORT; 0 takes any free one",
        ) from error
    return address(host, runner.addresses[0][1])


def address(host: str, port: int) -> str:
    """As a browser on this machine takes it."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


async def _sending(console: Console) -> None:
    while True:
        await asyncio.to_thread(console.send_changes)
        await asyncio.to_thread(console.move_notes)
        await asyncio.to_thread(console.tidy_notes)
        await asyncio.sleep(SEND_EVERY_S)
