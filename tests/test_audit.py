"""The chain of the audit log: whatever is changed, removed, swapped or put in shows, and is called by its name."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.errors import SettingsError, StateError
from streams.audit.chain import FIRST, NOTHING, Entry, Head, Unreadable, Verdict, following, verify
from streams.audit.pseudonyms import Pseudonyms, shell_user, shell_users

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def chains(draw: st.DrawFn, least: int = 1) -> list[Entry]:
    rows = st.tuples(st.integers(0, 2**50), words, words, words, words)
    found: list[Entry] = []
    for row in draw(st.lists(rows, min_size=least, max_size=8)):
        found.append(following(found[-1] if found else None, *row))
    return found


def chain(length: int) -> list[Entry]:
    found: list[Entry] = []
    for number in range(length):
        found.append(following(found[-1] if found else None, number, "who", "action", "subject", "{}"))
    return found


def head(entries: list[Entry]) -> Head:
    return Head(entries[-1].sequence, entries[-1].hash)


def rehashed(entry: Entry, **changed: object) -> Entry:
    """As one makes it who knows how."""
    entry = replace(entry, **changed)  # type: ignore[arg-type]  # any field
    return replace(entry, hash=entry.hashed())


def kind(verdict: Verdict) -> str:
    return verdict.broken.kind if verdict.broken is not None else ""


# -- what holds ---------------------------------------------------------------------------------------------------


@given(chains(least=0))
def test_a_chain_that_was_left_alone_holds(entries: list[Entry]) -> None:
    last = head(entries) if entries else None
    assert verify(entries) == Verdict(len(entries), last, None)
    assert verify(entries, last).broken is None


def test_the_hash_is_of_the_text_that_the_documents_give() -> None:
    entry = following(None, 1_700_000_000_000, "8c1f0d2e4b6a7795", "release.pin", "fraud/v1", '{"why":"caf\u00e9"}')
    text = (
        '{"action":"release.pin","at":1700000000000,"detail":"{\\"why\\":\\"caf\\u00e9\\"}",'
        f'"previous":"{NOTHING}","sequence":{FIRST},"subject":"fraud/v1","who":"8c1f0d2e4b6a7795"}}'
    )
    assert json.loads(text) == {name: value for name, value in entry.record().items() if name != "hash"}
    import hashlib

    assert entry.hash == hashlib.sha256(text.encode("ascii")).hexdigest()


@given(chains(), st.data())
def test_a_later_reader_of_a_longer_chain_is_content(entries: list[Entry], data: st.DataObject) -> None:
    seen = data.draw(st.integers(1, len(entries)))
    assert verify(entries, head(entries[:seen])).broken is None


# -- what does not ------------------------------------------------------------------------------------------------

FIELDS = ["sequence", "at", "who", "action", "subject", "detail", "previous", "hash"]


@given(chains(), st.sampled_from(FIELDS), st.data())
def test_any_change_of_any_field_shows(entries: list[Entry], name: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(entries) - 1))
    value = data.draw(st.integers(0, 2**50) if name in ("sequence", "at") else words)
    assume(value != getattr(entries[at], name))
    changed = [*entries[:at], replace(entries[at], **{name: value}), *entries[at + 1 :]]  # type: ignore[arg-type]  # any
    found = verify(changed)
    assert kind(found) == "wrong hash"
    assert found.entries == at


@given(chains(least=2), st.sampled_from(["at", "who", "action", "subject", "detail"]), st.data())
def test_a_change_by_one_who_makes_the_hash_anew_breaks_the_next_link(
    entries: list[Entry], name: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(entries) - 2))
    value = data.draw(st.integers(0, 2**50) if name == "at" else words)
    assume(value != getattr(entries[at], name))
    changed = [*entries[:at], rehashed(entries[at], **{name: value}), *entries[at + 1 :]]
    assert kind(verify(changed)) == "broken link"
    assert kind(verify(changed, head(entries))) == "broken link"


@given(chains(), words)
def test_such_a_change_of_the_last_entry_shows_to_who_has_seen_it(entries: list[Entry], value: str) -> None:
    assume(value != entries[-1].detail)
    changed = [*entries[:-1], rehashed(entries[-1], detail=value)]
    assert kind(verify(changed, head(entries))) == "wrong hash"


@given(chains(), st.data())
def test_any_removal_shows_and_is_called_by_its_place(entries: list[Entry], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(entries) - 1))
    last = data.draw(st.integers(first + 1, len(entries)))
    left = entries[:first] + entries[last:]
    expected = "missing end" if last == len(entries) else "missing beginning" if first == 0 else "gap"
    assert kind(verify(left, head(entries))) == expected


@given(chains(least=2), st.data())
def test_any_swap_shows(entries: list[Entry], data: st.DataObject) -> None:
    one = data.draw(st.integers(0, len(entries) - 2))
    other = data.draw(st.integers(one + 1, len(entries) - 1))
    swapped = entries[:]
    swapped[one], swapped[other] = swapped[other], swapped[one]
    assert kind(verify(swapped)) == ("missing beginning" if one == 0 else "gap")


@given(chains(), chains(), st.data())
def test_any_insertion_shows_also_of_an_entry_that_follows_where_it_is_put(
    entries: list[Entry], foreign: list[Entry], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(entries) - 1))
    before = entries[at - 1] if at else None
    forged = following(before, 1, "me", "release.pin", "mine", "{}")
    for inserted in (forged, entries[at], data.draw(st.sampled_from(foreign))):
        assume(inserted != entries[at] or inserted is entries[at])
        found = verify([*entries[:at], inserted, *entries[at:]])
        assert kind(found) in {"repeat", "gap", "broken link", "missing beginning"}


def test_what_follows_a_forged_entry_at_the_end_is_the_brokers_to_prevent() -> None:
    """The limit, stated: who may write the topic may append."""
    entries = chain(2)
    assert verify([*entries, following(entries[-1], 1, "me", "a", "b", "")], head(entries)).broken is None


KINDS = {
    "wrong hash": lambda c: [c[0], replace(c[1], who="x"), c[2]],
    "broken link": lambda c: [c[0], rehashed(c[1], who="x"), c[2]],
    "gap": lambda c: [c[0], c[2]],
    "repeat": lambda c: [c[0], c[0], c[1]],
    "missing beginning": lambda c: c[1:],
    "missing end": lambda c: c[:2],
    "unreadable": lambda c: [c[0], Unreadable(7, "the first byte is 9"), c[1]],
}


@pytest.mark.parametrize("expected", KINDS)
def test_each_kind_of_break_is_told_with_its_place_and_what_holds_before_it(expected: str) -> None:
    entries = chain(3)
    found = verify(KINDS[expected](entries), head(entries))
    assert found.broken is not None
    assert found.broken.kind == expected
    assert (found.head.sequence if found.head else 0) == found.entries
    told = "offset 7 holds no entry: the first byte is 9" if expected == "unreadable" else str(found.broken.sequence)
    assert told in found.broken.what


def test_a_log_that_is_empty_is_whole_unless_something_was_there() -> None:
    assert verify([]).broken is None
    assert kind(verify([], head(chain(1)))) == "missing end"


@given(chains())
def test_a_head_that_was_written_down_is_read_again(entries: list[Entry]) -> None:
    assert Head.parse(f" {head(entries)}\n") == head(entries)


@pytest.mark.parametrize("text", ["", "1", "1:abc", f"x:{NOTHING}", f"-1:{NOTHING}", f"{'9' * 30}:{NOTHING}"])
def test_what_is_no_head_is_none(text: str) -> None:
    assert Head.parse(text) is None


# -- pseudonyms ---------------------------------------------------------------------------------------------------


def test_a_name_has_one_pseudonym_here_and_another_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    here, again, elsewhere = Pseudonyms(tmp_path), Pseudonyms(tmp_path), Pseudonyms(tmp_path / "other")
    assert here.of("ann") == again.of("ann") != elsewhere.of("ann")
    assert here.of("ann") != here.of("bob")
    assert len(here.of("ann")) == 16
    assert "ann" not in here.of("ann")
    assert here.names(["ann", "bob"])[here.of("bob")] == "bob"


def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    Pseudonyms(tmp_path)
    [key] = tmp_path.iterdir()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "short", "x" * 64])
def test_a_damaged_key_is_never_replaced_by_another(tmp_path: Path, text: str) -> None:
    (tmp_path / "pseudonyms.key").write_text(text)
    with pytest.raises(StateError, match="backup"):
        Pseudonyms(tmp_path)
    assert (tmp_path / "pseudonyms.key").read_text() == text


def test_a_folder_that_cannot_be_written_is_a_setting_to_mend(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="HEADRACE_ACCESS__FOLDER"):
        Pseudonyms(tmp_path / "none")


def test_who_runs_a_command_is_among_those_whom_the_machine_knows() -> None:
    assert shell_user() in shell_users()
    assert all(name.startswith("shell:") for name in shell_users())
