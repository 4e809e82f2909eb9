"""Verdict, undo, four eyes, notes: what is said to Kafka, in which order, and what is left when it does not take it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import BrokerUnavailable
from streams.console import desk
from streams.console.cases import case
from streams.console.desk import Desk
from streams.console.notes import MOST_CHARACTERS
from streams.console.rows import NOTE, NOTE_REMOVED, OPINION, OPINION_WITHDRAWN, VERDICT, WITHDRAWAL, Change
from streams.console.store import Batch, Store
from tests.console_app import Shown, shown
from tests.console_shop import NOW_MS, Shop, alert, alert_id, label

A = alert_id("a")


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Shown]:
    with shown(tmp_path, Shop([alert("a")])) as made:
        yield made


@pytest.fixture
def careful(tmp_path: Path) -> Iterator[Shown]:
    with shown(tmp_path, Shop([alert("a")]), four_eyes=True) as made:
        yield made


def state(console: Shown) -> tuple[int, Any, int]:
    with console.store.reading() as connection:
        row = connection.execute("SELECT answered, answer, waiting FROM alerts").fetchone()
    return tuple(row)


def actions(console: Shown) -> list[str]:
    return [entry.action for entry in console.audit.entries]


def test_a_verdict_is_audited_published_and_then_shown(console: Shown) -> None:
    done = console.desk.verdict(A, 1.0, "anna", NOW_MS)
    assert (done.kind, done.order_id, done.value) == (desk.PUBLISHED, "a", 1.0)
    ((order_id, said),) = console.labels.said
    assert (order_id, said.value, said.source, said.revision, said.observed_at) == ("a", 1.0, "analyst", 0, NOW_MS)
    assert actions(console) == [VERDICT]
    assert console.audit.entries[0].who == console.audit.pseudonyms.of("anna")
    assert state(console) == (1, 1.0, 0)


def test_the_label_coming_back_from_its_topic_changes_nothing(console: Shown) -> None:
    console.desk.verdict(A, 1.0, "anna", NOW_MS)
    changes = [Change.of(entry) for entry in console.audit.entries]
    console.store.apply(Batch(labels=console.labels.said, changes=changes))
    with console.store.reading() as connection:
        found = case(connection, A)
    assert found is not None
    assert (len(found.labels), len(found.changes)) == (1, 1)


def test_an_undo_is_a_new_revision_and_the_alert_is_open_again(console: Shown) -> None:
    console.desk.verdict(A, 1.0, "anna", NOW_MS)
    assert console.desk.undo(A, "anna", NOW_MS + 1).kind == desk.WITHDRAWN
    assert [(said.revision, said.value) for _, said in console.labels.said] == [(0, 1.0), (1, 0.0)]
    assert state(console) == (0, None, 0)
    assert console.desk.undo(A, "anna", NOW_MS + 2).kind == desk.NOTHING
    assert actions(console) == [VERDICT, WITHDRAWAL]


def test_a_verdict_outranks_a_shop_that_says_otherwise_but_not_the_bank(console: Shown) -> None:
    console.store.apply(Batch(labels=[label("a", 1.0, "shop", revision=4)]))
    console.desk.verdict(A, 0.0, "anna", NOW_MS)
    assert console.labels.said[0][1].revision == 5
    assert state(console) == (1, 0.0, 0)
    console.store.apply(Batch(labels=[label("a", 1.0, "chargeback")]))
    assert state(console) == (1, 1.0, 0)


def test_what_kafka_refuses_changes_no_answer_and_shows_as_not_published(console: Shown) -> None:
    console.labels.error = BrokerUnavailable("no broker listens")
    with pytest.raises(BrokerUnavailable):
        console.desk.verdict(A, 1.0, "anna", NOW_MS)
    assert state(console) == (0, None, 0)
    console.labels.error = None
    assert console.desk.verdict(A, 1.0, "anna", NOW_MS).kind == desk.PUBLISHED
    ((_, said),) = console.labels.said
    assert said.label_id.startswith("a-analyst-0-")


def test_of_two_consoles_that_judge_at_once_both_go_by_the_verdict_that_came_first(tmp_path: Path) -> None:
    """Each has a label of its own on the topic, and at first believes its own."""
    shop = Shop([alert("a")])
    with shown(tmp_path / "one", shop) as one, shown(tmp_path / "two", shop) as two:
        assert one.desk.verdict(A, 1.0, "anna", NOW_MS).kind == desk.PUBLISHED
        assert two.desk.verdict(A, 0.0, "bert", NOW_MS).kind == desk.PUBLISHED
        assert (state(one)[1], state(two)[1]) == (1.0, 0.0)
        topic = [*two.labels.said, *one.labels.said]
        assert len({said.label_id for _, said in topic}) == 2
        for console in (one, two):
            for told in (*topic, topic[0]):
                console.store.apply(Batch(labels=[told]))
        assert (state(one)[1], state(two)[1]) == (0.0, 0.0)


def test_what_the_audit_log_refuses_is_not_said(console: Shown) -> None:
    console.audit.error = BrokerUnavailable("no broker listens")
    for act in (
        lambda: console.desk.verdict(A, 1.0, "anna", NOW_MS),
        lambda: console.desk.note(A, "text", "anna", NOW_MS),
        lambda: console.desk.assign(A, "anna", "anna", NOW_MS),
    ):
        with pytest.raises(BrokerUnavailable):
            act()
    assert console.labels.said == []
    assert console.notes.of("a") == []


def test_who_answers_to_an_older_state_is_told_so(console: Shown) -> None:
    with console.store.reading() as connection:
        found = case(connection, A)
    assert found is not None
    seen = found.alert["seen"]
    assert console.desk.verdict(A, 1.0, "anna", NOW_MS, seen).kind == desk.PUBLISHED
    assert console.desk.verdict(A, 0.0, "bert", NOW_MS, seen) == desk.Outcome(desk.STALE, "a", 1.0)
    assert len(console.labels.said) == 1


def test_with_four_eyes_two_must_say_the_same(careful: Shown) -> None:
    assert careful.desk.verdict(A, 1.0, "anna", NOW_MS).kind == desk.WAITING
    assert careful.desk.verdict(A, 1.0, "anna", NOW_MS + 1).kind == desk.WAITING
    assert careful.desk.verdict(A, 0.0, "bert", NOW_MS + 2).kind == desk.WAITING
    assert (careful.labels.said, state(careful)) == ([], (0, None, 1))
    assert careful.desk.verdict(A, 0.0, "carl", NOW_MS + 3).kind == desk.PUBLISHED
    assert [said.value for _, said in careful.labels.said] == [0.0]
    assert state(careful) == (1, 0.0, 0)
    assert actions(careful) == [OPINION] * 4 + [VERDICT]


def test_of_two_analysts_who_agree_at_once_on_two_consoles_the_second_one_publishes(
    careful: Shown, tmp_path: Path
) -> None:
    """Each has written its opinion before it reads the other's: by the log there is a first and a second."""
    other = Store(tmp_path / "other")
    other.apply(Batch([alert("a")]))
    fed: list[str] = []

    def both_read() -> None:
        said = [Change.of(entry) for entry in careful.audit.entries]
        for store in (careful.store, other):
            store.apply(Batch(changes=said))

    def meanwhile() -> None:
        if not fed:
            fed.append(second.verdict(A, 1.0, "bert", NOW_MS + 1).kind)
        both_read()

    first = Desk(careful.store, careful.notes, careful.labels, careful.audit, four_eyes=True, catch_up=meanwhile)
    second = Desk(other, careful.notes, careful.labels, careful.audit, four_eyes=True, catch_up=both_read)
    assert first.verdict(A, 1.0, "anna", NOW_MS).kind == desk.WAITING
    assert fed == [desk.PUBLISHED]
    assert [label.value for _, label in careful.labels.said] == [1.0]
    other.close()


def test_ones_own_opinion_can_be_taken_back_and_not_anothers(careful: Shown) -> None:
    careful.desk.verdict(A, 1.0, "anna", NOW_MS)
    assert careful.desk.undo(A, "bert", NOW_MS).kind == desk.NOTHING
    assert careful.desk.undo(A, "anna", NOW_MS).kind == desk.NO_LONGER
    assert state(careful) == (0, None, 0)
    assert actions(careful) == [OPINION, OPINION_WITHDRAWN]


def test_after_an_undo_two_must_agree_anew(careful: Shown) -> None:
    for who in ("anna", "bert"):
        careful.desk.verdict(A, 1.0, who, NOW_MS)
    assert careful.desk.undo(A, "bert", NOW_MS).kind == desk.WITHDRAWN
    assert careful.desk.verdict(A, 1.0, "bert", NOW_MS).kind == desk.WAITING


def test_a_store_that_was_deleted_is_the_same_again_from_the_topics(careful: Shown, tmp_path: Path) -> None:
    careful.desk.verdict(A, 1.0, "anna", NOW_MS)
    careful.desk.assign(A, "anna", "anna", NOW_MS)
    careful.desk.verdict(A, 1.0, "bert", NOW_MS + 1)
    careful.desk.undo(A, "anna", NOW_MS + 2)
    careful.desk.verdict(A, 0.0, "carl", NOW_MS + 3)
    again = Store(tmp_path / "again")
    again.apply(Batch([alert("a")], careful.labels.said, [Change.of(entry) for entry in careful.audit.entries]))
    for table in ("opinions", "assignments", "changes"):
        query = f"SELECT * FROM {table}"
        with again.reading() as new, careful.store.reading() as old:
            assert [tuple(row) for row in new.execute(query)] == [tuple(row) for row in old.execute(query)]
    query = "SELECT answered, answer, waiting, assignee FROM alerts"
    with again.reading() as new, careful.store.reading() as old:
        assert tuple(new.execute(query).fetchone()) == tuple(old.execute(query).fetchone())
    again.close()


def test_a_note_is_kept_whole_once_and_never_in_the_audit_log(console: Shown) -> None:
    for _ in range(2):
        console.desk.note(A, "  Called her: it was a gift. ", "anna", NOW_MS, "the same form")
    assert [(note.who, note.text) for note in console.notes.of("a")] == [("anna", "Called her: it was a gift.")]
    assert not any("gift" in entry.detail for entry in console.audit.entries)
    console.desk.note(A, "x" * (MOST_CHARACTERS + 9), "anna", NOW_MS + 1)
    assert len(console.notes.of("a")[1].text) == MOST_CHARACTERS
    assert console.desk.note(A, " \n", "anna", NOW_MS).kind == desk.NOTHING


def test_a_note_is_removed_by_who_wrote_it_alone(console: Shown) -> None:
    console.desk.note(A, "text", "anna", NOW_MS, "n1")
    assert not console.desk.remove_note(A, "n1", "bert", NOW_MS).done
    assert console.desk.remove_note(A, "n1", "anna", NOW_MS).done
    assert console.notes.of("a") == []
    assert actions(console) == [NOTE, NOTE_REMOVED]


def test_a_note_that_its_topic_does_not_take_is_not_kept_and_who_wrote_it_is_told(console: Shown) -> None:
    console.notes_topic.away = True
    with pytest.raises(BrokerUnavailable):
        console.desk.note(A, "text", "anna", NOW_MS, "n1")
    assert console.notes.of("a") == []
    console.notes_topic.away = False
    assert console.desk.note(A, "text", "anna", NOW_MS, "n1").done  # the same form again
    console.notes_topic.away = True
    with pytest.raises(BrokerUnavailable):
        console.desk.remove_note(A, "n1", "anna", NOW_MS)
    assert [note.text for note in console.notes.of("a")] == ["text"]


def test_an_alert_that_is_not_there_is_unknown_to_all(console: Shown) -> None:
    for done in (
        console.desk.verdict("nothing", 1.0, "anna", NOW_MS),
        console.desk.undo("nothing", "anna", NOW_MS),
        console.desk.note("nothing", "text", "anna", NOW_MS),
        console.desk.assign("nothing", "anna", "anna", NOW_MS),
    ):
        assert done.kind == desk.UNKNOWN
    assert (console.labels.said, console.audit.entries) == ([], [])
