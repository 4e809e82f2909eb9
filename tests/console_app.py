"""The console without Kafka: its real pages, store and gate, with a label topic, an audit log and orders in memory."""

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from schemas.errors import BrokerUnavailable, DataUnavailable, HeadraceError
from schemas.registry import Registry
from streams.access.accounts import Accounts
from streams.audit.chain import Entry, following
from streams.audit.log import Audit
from streams.audit.pseudonyms import Pseudonyms
from streams.config import Settings
from streams.console.answers import Label
from streams.console.app import application
from streams.console.desk import Desk
from streams.console.hub import Hub
from streams.console.notes import Note, NoteBook
from streams.console.office import Office
from streams.console.speaker import Orders
from streams.console.store import Batch, Store
from streams.events import Record
from tests.console_shop import ITEMS, NOW_MS, ROWS, Shop


class LabelTopic:
    """events.labels; `error` is what it answers with, if anything."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Label]] = []
        self.error: HeadraceError | None = None

    def say(self, order_id: str, label: Label) -> None:
        if self.error is not None:
            raise self.error
        self.said.append((order_id, label))


class AuditLog:
    """audit.log."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.pseudonyms = Pseudonyms(folder)
        self.entries: list[Entry] = []
        self.error: HeadraceError | None = None

    def append(self, who: str, action: str, subject: str, detail: Mapping[str, Any], now_ms: int) -> Entry:
        if self.error is not None:
            raise self.error
        last = self.entries[-1] if self.entries else None
        self.entries.append(following(last, now_ms, self.pseudonyms.of(who), action, subject, json.dumps(detail)))
        return self.entries[-1]


class OrderTopic:
    """events.orders."""

    def __init__(self, orders: Mapping[int, Record]) -> None:
        self.orders = orders

    def read(self, partition: int, offset: int, order_id: str) -> Record:
        if offset not in self.orders:
            raise DataUnavailable("the order is not kept any more", where=f"events.orders[{partition}]@{offset}")
        return self.orders[offset]


class NoteTopic:
    """console.notes: each console that follows it hears what the others say. `away`: it takes nothing."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[Note, str]] = {}
        self.books: list[NoteBook] = []
        self.away = False

    def follow(self, book: NoteBook) -> None:
        self.books.append(book)
        for key, (note, _) in self.kept.items():
            book.apply(key, note)

    def put(self, note: Note, user_id: str) -> None:
        self._take()
        self.kept[note.key] = note, user_id
        for book in self.books:
            book.apply(note.key, note)

    def delete(self, key: str) -> None:
        self._take()
        self.kept.pop(key, None)
        for book in self.books:
            book.apply(key, None)

    def _take(self) -> None:
        if self.away:
            raise BrokerUnavailable("no answer", where="console.notes")


class ItemNames:
    def of(self, item_id: str) -> str:
        return ITEMS.get(item_id, item_id)

    def of_row(self, row: int) -> str:
        return next((ITEMS[name] for name, number in ROWS.items() if number == row), "")


class Shown:
    """A console of one test's own. `now` is its clock."""

    def __init__(
        self,
        folder: Path,
        shop: Shop | None = None,
        *,
        four_eyes: bool = False,
        operations: bool = False,
        notes_topic: "NoteTopic | None" = None,
    ) -> None:
        self.now = NOW_MS + 60_000
        self.settings = Settings(data_dir=folder, brokers="127.0.0.1:9", console={"port": 0, "four_eyes": four_eyes})
        self.notes_topic = notes_topic or NoteTopic()
        self.store, self.notes = Store(folder / "console"), NoteBook(self.notes_topic)
        self.notes_topic.follow(self.notes)
        self.labels, self.audit, self.hub = LabelTopic(), AuditLog(folder / "access"), Hub()
        self.desk = Desk(self.store, self.notes, self.labels, self.audit, four_eyes=four_eyes)
        self.accounts = Accounts(self.settings)
        shop = shop or Shop()
        self.store.apply(Batch(shop.alerts, shop.labels))
        self.office = Office(
            self.store, self.desk, self.hub, self.accounts.names, self.audit.pseudonyms,
            cast(Orders, OrderTopic(shop.orders)), cast(Any, ItemNames()),
        )  # fmt: skip
        self.operations = operations

    def app(self) -> web.Application:
        registry, audit = cast(Registry, None), cast(Audit, self.audit)

        def clock() -> int:
            return self.now

        return application(
            self.settings, registry, self.accounts, audit, self.office, clock, operations=self.operations
        )

    def code(self, role: str, name: str = "") -> str:
        return self.accounts.login_code(role, by="test", now_ms=self.now, name=name)

    def close(self) -> None:
        self.accounts.close()
        self.store.close()


@contextmanager
def shown(folder: Path, shop: Shop | None = None, **how: Any) -> Iterator[Shown]:
    made = Shown(folder, shop, **how)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def serving(app: web.Application) -> Iterator[str]:
    """Serves it in a thread of its own; the address."""
    loop, ready, stopping = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    where: list[str] = []

    async def serve() -> None:
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        where.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        ready.set()
        await stopping.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield where[0]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()
