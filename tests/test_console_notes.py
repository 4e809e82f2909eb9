"""Notes on their topic: every console has them, no disk does, nobody reads them on the way, they go with a person."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engines.releases import ReleaseStore
from schemas.confluent import ConfluentRegistry
from schemas.errors import BrokerUnavailable
from schemas.wire import Encoder
from streams.config import Settings
from streams.console.notes import Note, NoteBook
from streams.console.notes_file import FILE, move_notes
from streams.console.service import Console
from streams.local import LocalRegistry
from streams.privacy.forget import Forget
from streams.privacy.places import find
from streams.privacy.search import OURS, records, search
from tests.conftest import FreshSettings
from tests.console_app import NoteTopic, shown
from tests.console_shop import NOW_MS, Shop, alert, alert_id
from tests.shop import send, wait_for

GIFT = "Called her: it was a gift for Zebedee"
A = alert_id("a")


def note(text: str = "text", note_id: str = "n", order_id: str = "a", who: str = "anna", at: int = NOW_MS) -> Note:
    return Note(note_id, order_id, who, at, text)


def texts(book: NoteBook, order_id: str = "a") -> list[str]:
    return [each.text for each in book.of(order_id)]


def test_what_one_console_writes_the_other_shows_and_a_lost_disk_loses_nothing(tmp_path: Path) -> None:
    topic, made = NoteTopic(), Shop([alert("a")])
    with (
        shown(tmp_path / "one", made, notes_topic=topic) as one,
        shown(tmp_path / "two", made, notes_topic=topic) as two,
    ):
        one.desk.note(A, "text", "anna", NOW_MS, "n1")
        assert texts(two.notes) == ["text"]
        assert two.desk.remove_note(A, "n1", "anna", NOW_MS).done
        assert texts(one.notes) == []
        two.desk.note(A, "again", "bert", NOW_MS)
    assert not list(tmp_path.rglob("notes*"))
    with shown(tmp_path / "new", made, notes_topic=topic) as three:
        assert texts(three.notes) == ["again"]


def test_nobody_writes_over_a_note_of_another_and_what_was_removed_does_not_come_back() -> None:
    topic = NoteTopic()
    book = NoteBook(topic)
    book.add(note("hers"), "user-1")
    book.add(note("his", who="bert"), "user-1")
    book.add(note("hers, another text"), "user-1")
    assert sorted(texts(book)) == ["hers", "his"]
    book.remove("a", "n", "carl")
    assert len(texts(book)) == 2
    book.apply(note().key, None)
    book.apply(note().key, note("read late"))
    book.add(note("sent again"), "user-1")
    assert texts(book) == ["his"]


def test_notes_of_an_order_are_forgotten_together_and_old_ones_without_a_case_are_named() -> None:
    topic = NoteTopic()
    book = NoteBook(topic)
    for each in (note(), note(note_id="m", at=NOW_MS + 5), note(order_id="b")):
        book.add(each, "user-1")
    assert book.orders_before(NOW_MS + 1) == ["b"]
    book.forget(["a", "never"])
    assert (texts(book), texts(book, "b")) == ([], ["text"])
    assert {each.order_id for each, _ in topic.kept.values()} == {"b"}
    topic.away = True
    with pytest.raises(BrokerUnavailable):
        book.forget(["b"])
    assert texts(book, "b") == ["text"]


def old_file(folder: Path, *notes: Note) -> Path:
    """As consoles wrote it."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TABLE notes (note_id TEXT PRIMARY KEY, order_id TEXT NOT NULL, who TEXT NOT NULL, "
            "at INTEGER NOT NULL, text TEXT NOT NULL)"
        )
        connection.executemany("INSERT INTO notes VALUES (?, ?, ?, ?, ?)", notes)
    return folder / FILE


def test_notes_of_before_are_moved_once_and_their_file_goes_when_all_are_there(tmp_path: Path) -> None:
    topic = NoteTopic()
    book, users = NoteBook(topic), {"a": "user-1", "b": "user-2"}
    path = old_file(tmp_path, note("one"), note("two", "m", "b"), note("of a case that is gone", "k", "c"))
    topic.away = True
    assert not move_notes(tmp_path, book, users.get)
    assert path.exists()
    topic.away = False
    assert move_notes(tmp_path, book, users.get)
    assert {(each.text, user) for each, user in topic.kept.values()} == {("one", "user-1"), ("two", "user-2")}
    assert not path.exists()
    assert move_notes(tmp_path, book, users.get)


def test_a_file_that_cannot_be_read_stays(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all, but long enough to be looked at" * 20)
    assert not move_notes(tmp_path, NoteBook(NoteTopic()), lambda order_id: "user-1")
    assert (tmp_path / FILE).exists()


# -- on the broker


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings, tmp_path: Path) -> Settings:
    return fresh_settings(console={"port": 0}, privacy={"key_file": tmp_path / "key"}, data_dir=tmp_path / "one")


@pytest.fixture
def schemas(settings: Settings) -> Iterator[ConfluentRegistry]:
    with closing(ConfluentRegistry(settings.registry())) as client:
        yield client


def console(settings: Settings, schemas: ConfluentRegistry) -> Console:
    made = Console(settings, schemas, lambda: NOW_MS)
    made.feed.wait_current(60)
    made.notes_topic.wait_current(60)
    return made


def test_consoles_share_sealed_notes_move_old_ones_and_forget_them_with_the_person(
    settings: Settings, schemas: ConfluentRegistry, tmp_path: Path
) -> None:
    encode = Encoder(schemas, settings.topics.alerts, "fraud_alert")
    for order_id, user in (("a", "ann"), ("b", "bob")):
        send(settings, settings.topics.alerts, order_id.encode(), encode(alert(order_id, user_id=user)))
    old_file(settings.data_dir / "console", note("kept before", "old"))
    other = settings.model_copy(update={"data_dir": tmp_path / "two"})
    with closing(console(settings, schemas)) as one, closing(console(other, schemas)) as two:
        one.move_notes()
        one.office.desk.note(A, GIFT, "anna", NOW_MS + 1)
        one.office.desk.note(alert_id("b"), "about bob", "anna", NOW_MS)
        wait_for(lambda: texts(two.office.desk.notes) == ["kept before", GIFT], 60)
        wait_for(lambda: texts(two.office.desk.notes, "b") == ["about bob"], 60)
        on_topic = b"".join(records(settings, settings.topics.notes))
        for word in (b"gift", b"anna", b"kept before", b"ann"):
            assert word not in on_topic
        assert search(settings, "Zebedee", "kept before") == search(other, "Zebedee", "kept before") == []
        assert len([each for each in find(settings, schemas, "ann").keyed if each.topic == settings.topics.notes]) == 2
        said = Forget(settings, schemas, ReleaseStore(settings.release_store), "ann", wait_s=0).run()
        assert said["deleted"][settings.topics.notes] == 2
        for each in (one, two):
            wait_for(lambda each=each: texts(each.office.desk.notes) == [], 60)
            assert texts(each.office.desk.notes, "b") == ["about bob"]
    assert [hit for hit in search(settings, "Zebedee", "ann") if hit.of == OURS and "console" in hit.where] == []
