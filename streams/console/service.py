"""The console as a process: what stands behind the pages, opened once, and the server until it is stopped.
A broker that is away holds up neither the start nor a page: what was read is shown, and the rest is waited for.
"""

import asyncio
import logging
import signal
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
from streams.console.feed import Feed
from streams.console.hub import Hub
from streams.console.notes import NoteBook
from streams.console.office import Office
from streams.console.speaker import Labels, Orders
from streams.console.store import Applied, Store

log = logging.getLogger(__name__)

SEND_EVERY_S = 60.0
LEAVE_S = 5.0


class Console:
    """All that a running console holds. Close it."""

    def __init__(self, settings: Settings, registry: Registry, clock: Clock = now_ms) -> None:
        """Raises SettingsError, StateError."""
        self._clock, self._stack = clock, ExitStack()
        with ExitStack() as stack:
            folder = settings.data_dir / "console"
            self.accounts = stack.enter_context(Accounts(settings))
            store = stack.enter_context(closing(Store(folder)))
            notes = stack.enter_context(closing(NoteBook(folder)))
            self.audit = Audit(settings, registry)
            labels = Labels(settings, registry)
            desk = Desk(store, notes, labels, self.audit, four_eyes=settings.console.four_eyes)
            names = Names(settings, registry)
            stack.callback(names.stop)
            orders = Orders(settings, registry)
            self.office = Office(store, desk, Hub(), self.accounts.names, self.audit.pseudonyms, orders, names)
            self.feed = self.office.feed = Feed(settings, registry, store, self._told, clock, self._deleting)
            stack.callback(self.feed.stop)
            self.app = application(settings, registry, self.accounts, self.audit, self.office, clock)
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def send_changes(self) -> None:
        """What was changed in the accounts, by whom, into the audit log; what cannot be sent waits."""
        try:
            if self.accounts.changes.waiting():
                send_changes(self.accounts, self.audit, self._clock())
        except HeadraceError as error:
            log.warning("changes of accounts wait for the audit log: %s", error)

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
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        with suppress(RuntimeError, ValueError):  # in a test's thread: it stops by `stop`
            loop.add_signal_handler(sign, stop.set)
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
        await asyncio.sleep(SEND_EVERY_S)
