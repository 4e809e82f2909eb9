"""The audit log on a real broker: one appender at a time, nothing lost or twice, and changes find their way there."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import confluent_kafka
import pytest

import streams.audit.log
from schemas.confluent import ConfluentRegistry
from schemas.errors import BrokerUnavailable, SettingsError, StateError
from streams.access.accounts import Accounts
from streams.access.places import access_folder
from streams.audit.accounts import send_changes
from streams.audit.chain import Entry, Head, Unreadable, verify
from streams.audit.log import Audit, newest, read, remembered_head
from streams.audit.pseudonyms import Pseudonyms, shell_user
from streams.cli.audited import write_down
from streams.config import Settings
from streams.local import LocalRegistry
from streams.transactions import Sent, TransactionalProducer
from tests.access_accounts import BY, NOW, QUICK
from tests.conftest import FreshSettings
from tests.observer import until


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    return fresh_settings()


@pytest.fixture
def schemas(settings: Settings) -> Iterator[ConfluentRegistry]:
    with closing(ConfluentRegistry(settings.registry())) as client:
        yield client


def entries(settings: Settings, schemas: ConfluentRegistry, count: int) -> list[Entry]:
    """All, once there are so many: the mark that ends a transaction may come a moment late."""
    until(lambda: len(list(read(settings, schemas))) >= count)
    found = list(read(settings, schemas))
    assert len(found) == count
    return [entry for entry in found if isinstance(entry, Entry)]


def put(settings: Settings, value: bytes) -> None:
    """Somebody else writes to the topic."""
    producer = confluent_kafka.Producer({**settings.librdkafka(), "enable.idempotence": True})
    producer.produce(settings.topics.audit, value, partition=0)
    assert producer.flush(30) == 0


def test_what_is_appended_is_there_with_its_pseudonym_and_chained(
    settings: Settings, schemas: ConfluentRegistry
) -> None:
    audit = Audit(settings, schemas)
    first = audit.append("ann", "policy.apply", "v7", {"why": "caf\u00e9", "a": 1}, NOW)
    second = audit.append("bob", "release.pin", "fraud/v1", {}, NOW + 1)
    assert entries(settings, schemas, 2) == [first, second]
    assert (first.sequence, first.at, first.who) == (1, NOW, audit.pseudonyms.of("ann"))
    assert first.detail == '{"a":1,"why":"caf\u00e9"}'
    assert second.previous == first.hash
    assert remembered_head(settings) == Head(2, second.hash)


def test_two_consoles_may_take_turns_and_neither_loses_anything(settings: Settings, schemas: ConfluentRegistry) -> None:
    consoles = [Audit(settings, schemas), Audit(settings, schemas)]
    for number in range(6):
        consoles[number % 2].append("ann", "lists.add", f"card {number}", {}, NOW)
    found = entries(settings, schemas, 6)
    assert [entry.subject for entry in found] == [f"card {number}" for number in range(6)]
    assert verify(found).broken is None


def test_threads_of_two_consoles_at_once_make_one_chain(settings: Settings, schemas: ConfluentRegistry) -> None:
    consoles = [Audit(settings, schemas), Audit(settings, schemas)]

    def work(number: int) -> None:
        for step in range(4):
            consoles[number % 2].append(f"user{number}", "verdict", f"{number}/{step}", {}, NOW)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = entries(settings, schemas, 16)
    assert {entry.subject for entry in found} == {f"{number}/{step}" for number in range(4) for step in range(4)}
    assert verify(found).broken is None


class Silent(TransactionalProducer):
    """Commits, and then hears nothing of it; or does not commit and hears nothing either."""

    commits = True
    times = 1

    def send(self, records: object, last: Sent) -> int:
        if Silent.times:
            Silent.times -= 1
            if Silent.commits:
                super().send([], last)
            raise BrokerUnavailable("no answer")
        return super().send([], last)


@pytest.mark.parametrize("commits", [True, False])
def test_an_append_without_an_answer_is_there_once(
    settings: Settings, schemas: ConfluentRegistry, monkeypatch: pytest.MonkeyPatch, commits: bool
) -> None:
    monkeypatch.setattr(streams.audit.log, "TransactionalProducer", Silent)
    monkeypatch.setattr(Silent, "commits", commits)
    monkeypatch.setattr(Silent, "times", 0)
    audit = Audit(settings, schemas)
    audit.append("ann", "a", "before", {}, NOW)
    monkeypatch.setattr(Silent, "times", 2)
    said = audit.append("ann", "a", "in doubt", {}, NOW)
    audit.append("ann", "a", "after", {}, NOW)
    found = entries(settings, schemas, 3)
    assert found[1] == said
    assert [entry.subject for entry in found] == ["before", "in doubt", "after"]
    assert verify(found).broken is None


def test_a_broker_that_stays_silent_is_given_up(
    settings: Settings, schemas: ConfluentRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams.audit.log, "TransactionalProducer", Silent)
    monkeypatch.setattr(streams.audit.log, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(Silent, "commits", False)
    monkeypatch.setattr(Silent, "times", 1_000)
    audit = Audit(settings, schemas)
    with pytest.raises(BrokerUnavailable):
        audit.append("ann", "a", "b", {}, NOW)
    monkeypatch.setattr(Silent, "times", 0)
    monkeypatch.setattr(streams.audit.log, "TIMEOUT_S", 20.0)
    assert audit.append("ann", "a", "c", {}, NOW).sequence == 1


def test_what_others_wrote_shows_and_does_not_stop_the_log(settings: Settings, schemas: ConfluentRegistry) -> None:
    audit = Audit(settings, schemas)
    audit.append("ann", "a", "first", {}, NOW)
    put(settings, b"\x09garbage")
    later = Audit(settings, schemas)
    assert later.append("ann", "a", "second", {}, NOW).sequence == 2
    until(lambda: len(list(read(settings, schemas))) == 3)
    found = list(read(settings, schemas))
    assert isinstance(found[1], Unreadable)
    broken = verify(found).broken
    assert broken is not None
    assert broken.kind == "unreadable"


def test_the_newest_are_found_from_the_end_page_by_page(settings: Settings, schemas: ConfluentRegistry) -> None:
    assert newest(settings, schemas, 5) == []
    audit = Audit(settings, schemas)
    for number in range(40):
        audit.append("ann", "a", str(number), {}, NOW)
    entries(settings, schemas, 40)
    last = newest(settings, schemas, 5)
    assert [entry.subject for entry in last if isinstance(entry, Entry)] == ["35", "36", "37", "38", "39"]
    before = newest(settings, schemas, 30, before=last[0].offset)
    assert [entry.subject for entry in before if isinstance(entry, Entry)] == [str(n) for n in range(5, 35)]
    assert len(newest(settings, schemas, 30, before=before[0].offset)) == 5


def test_a_log_that_was_cut_does_not_become_the_one_that_is_remembered(
    settings: Settings, schemas: ConfluentRegistry
) -> None:
    audit = Audit(settings, schemas)
    for number in range(3):
        audit.append("ann", "a", str(number), {}, NOW)
    known = remembered_head(settings)
    topics = settings.topics.model_copy(update={"audit": settings.topics.shadow})
    other = settings.model_copy(update={"topics": topics})
    Audit(other, schemas).append("ann", "a", "anew", {}, NOW)
    assert remembered_head(settings) == known
    until(lambda: len(list(read(other, schemas))) == 1)
    broken = verify(read(other, schemas), known).broken
    assert broken is not None
    assert broken.kind == "missing end"


def test_a_topic_that_is_not_there_says_what_to_do(registry: LocalRegistry, fresh_settings: FreshSettings) -> None:
    settings = fresh_settings(create=False)
    with (
        closing(ConfluentRegistry(settings.registry())) as schemas,
        pytest.raises(SettingsError, match="topics create"),
    ):
        Audit(settings, schemas).append("ann", "a", "b", {}, NOW)


def test_what_is_remembered_of_the_log_is_not_guessed(settings: Settings, tmp_path: Path) -> None:
    assert remembered_head(settings) is None
    (settings.data_dir / "access" / "audit.head").write_text("what?")
    with pytest.raises(StateError, match=r"audit\.head"):
        remembered_head(settings)


# -- changes of accounts ------------------------------------------------------------------------------------------


def test_changes_of_accounts_are_sent_in_their_order_with_the_time_they_were_made(
    settings: Settings, schemas: ConfluentRegistry
) -> None:
    audit = Audit(settings, schemas)
    with Accounts(settings, QUICK) as accounts:
        accounts.users.add("ann", "analyst", None, **BY)
        accounts.users.set_role("ann", "operator", by="root", now_ms=NOW + 1)
        assert send_changes(accounts, audit, NOW + 99) == 2
        assert (send_changes(accounts, audit, NOW + 99), accounts.changes.waiting()) == (0, 0)
    made, changed = entries(settings, schemas, 2)
    names = audit.pseudonyms.names(["ann", "root", "shell:root"])
    assert (names[made.who], made.action, made.at) == ("shell:root", "users.add", NOW)
    assert (names[changed.who], changed.action, changed.at) == ("root", "users.role", NOW + 1)
    assert made.subject == changed.subject == f"user {audit.pseudonyms.of('ann')}"
    assert changed.detail == '{"before":"analyst","change":2,"role":"operator"}'


def test_a_change_that_could_not_be_sent_is_sent_later(
    settings: Settings, schemas: ConfluentRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise BrokerUnavailable("no answer")

    audit = Audit(settings, schemas)
    with Accounts(settings, QUICK) as accounts:
        accounts.users.add("ann", "analyst", None, **BY)
        with monkeypatch.context() as patch:
            patch.setattr(audit, "append", away)
            with pytest.raises(BrokerUnavailable):
                send_changes(accounts, audit, NOW)
        assert accounts.changes.waiting() == 1
        assert send_changes(accounts, audit, NOW) == 1
    assert len(entries(settings, schemas, 1)) == 1


def test_a_change_at_the_command_line_is_written_down_by_who_runs_it(
    settings: Settings, schemas: ConfluentRegistry
) -> None:
    write_down(settings, schemas, "release.pin", "fraud/v1", epoch=3)
    [entry] = entries(settings, schemas, 1)
    assert entry.who == Pseudonyms(access_folder(settings)).of(shell_user())
    assert (entry.action, entry.subject, entry.detail) == ("release.pin", "fraud/v1", '{"epoch":3}')
