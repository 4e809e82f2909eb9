"""Dead letters where fields have pseudonyms: nothing of them can be read without the key, and they come home whole."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from schemas.errors import BadRecord, StateError
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.deadletters import CUT, DeadLetters, Selection, dead_letter, opened
from streams.partitioning import partition_for
from streams.privacy.letters import DEADLETTERS, letters_of, locked, rewrite, theirs_on
from streams.privacy.places import find
from streams.privacy.pseudonyms import pseudonyms
from streams.privacy.sealed_letters import LetterSeals, closing
from streams.privacy.seals import Seals
from streams.raw import RawRecord
from tests.conftest import FreshSettings
from tests.records import NOON_MS, order
from tests.test_deadletters import Desk

ALL = Selection()
QUOTING = BadRecord("wrong_type", "'ann@shop' is no number", where="email of ann", expected="not ann", todo="ask ann")
ONE, TWO = f"1:{'6b' * 32}", f"2:{'6e' * 32}"


def chosen(folder: Path, keys: str = ONE, fields: tuple[str, ...] = ("email",)) -> Settings:
    return Settings(data_dir=folder, privacy={"pseudonymise": fields, "pseudonym_keys": keys})


def with_keys(settings: Settings, keys: str) -> Settings:
    privacy = settings.privacy.model_copy(update={"pseudonym_keys": SecretStr(keys)})
    return settings.model_copy(update={"privacy": privacy})


def ann(**fields: Any) -> RawRecord:
    given: dict[str, Any] = {
        "key": b"ann",
        "value": b"\x01 of ann",
        "headers": [("from", b"ann"), ("headrace-moved", b"1")],
    }
    return RawRecord("events.orders", 1, 7, NOON_MS, **given)._replace(**fields)


def test_a_letter_says_why_and_whence_and_nothing_that_came(tmp_path: Path) -> None:
    settings, registry = chosen(tmp_path), MemoryRegistry()
    letter = dead_letter(ann(), QUOTING, NOON_MS)
    key, closed = closing(settings)(letter)
    written = Encoder(registry, "deadletters", "dead_letter")(closed)
    assert b"ann" not in written + (key or b"")
    assert (closed["code"], closed["topic"], closed["offset"]) == ("wrong_type", "events.orders", 7)
    again = opened(LetterSeals(settings), Decoder(registry, "dead_letter")(written))
    assert again == letter


@given(st.binary(), st.none() | st.binary(max_size=40), st.none() | st.binary(max_size=200))
def test_whatever_came_is_what_is_opened(content: bytes, key: bytes | None, value: bytes | None) -> None:
    settings = Settings(privacy={"pseudonymise": ("email",), "pseudonym_keys": ONE, "key": "ab" * 32})
    letter = dead_letter(ann(key=key, value=value, headers=[("own", content)]), QUOTING, NOON_MS)
    name, closed = closing(settings)(letter)
    assert LetterSeals(settings).open(closed) == letter
    assert (name is None) == (key is None)


def test_a_users_letters_stay_together_and_a_cut_one_is_still_known_as_such(tmp_path: Path) -> None:
    close = closing(chosen(tmp_path))
    first, second = (close(dead_letter(ann(offset=n), QUOTING, NOON_MS))[0] for n in (1, 2))
    assert first == second != close(dead_letter(ann(key=b"bob"), QUOTING, NOON_MS))[0]
    _, cut = close(dead_letter(ann(value=b"x" * 50), QUOTING, NOON_MS, 10))
    assert [each["name"] for each in cut["headers"]] == ["headrace-moved", CUT]


def test_without_chosen_fields_letters_are_as_they_were(tmp_path: Path) -> None:
    letter = dead_letter(ann(), QUOTING, NOON_MS)
    assert closing(Settings(data_dir=tmp_path))(letter) == (b"ann", letter)
    assert LetterSeals(Settings(data_dir=tmp_path)).open(letter) is letter
    assert not list(tmp_path.iterdir())  # no key was asked for


def test_after_a_change_of_keys_both_open_and_a_lost_key_leaves_it_sealed(tmp_path: Path) -> None:
    _, closed = closing(chosen(tmp_path))(dead_letter(ann(), QUOTING, NOON_MS))
    both, new = (LetterSeals(chosen(tmp_path, keys)) for keys in (f"{TWO},{ONE}", TWO))
    assert both.open(closed)["value"] == b"\x01 of ann"
    with pytest.raises(StateError, match="pseudonym_keys"):
        new.open(closed)
    assert opened(new, closed) == closed


def test_what_was_sealed_elsewhere_or_for_something_else_is_not_believed() -> None:
    keys = {"1": b"k" * 32}
    sealed = Seals(keys, "letters").seal(b"text", "a place")
    assert Seals(keys, "letters").open(sealed, "a place") == b"text"
    for seals, content, place in (
        (Seals(keys, "letters"), sealed, "another place"),
        (Seals(keys, "notes"), sealed, "a place"),
        (Seals({"1": b"n" * 32}, "letters"), sealed, "a place"),
        (Seals(keys, "letters"), sealed[:-1] + bytes([sealed[-1] ^ 1]), "a place"),
        (Seals(keys, "letters"), b"1:", "a place"),
        (Seals(keys, "letters"), b"", "a place"),
    ):
        with pytest.raises(StateError, match="cannot be opened"):
            seals.open(content, place)


# -- on the broker


class Closed(Desk):
    """Writes letters as the loop does where fields are chosen."""

    def write(self, *records: Any, error: BadRecord = QUOTING, limit: int | None = None) -> None:
        close, topic = closing(self.settings), self.settings.topics.deadletters
        for record in records:
            key, letter = close(dead_letter(record, error, NOON_MS))
            self._producer.produce(topic, self._encode(letter), key)
        assert self._producer.flush(20) == 0


@pytest.fixture
def desk(fresh_settings: FreshSettings, tmp_path: Path) -> Closed:
    privacy = {"pseudonymise": ("email", "user_id"), "pseudonym_keys": ONE, "key_file": tmp_path / "key"}
    return Closed(fresh_settings(privacy=privacy))


def test_sealed_letters_are_found_shown_and_brought_home_byte_for_byte(desk: Closed) -> None:
    orders = desk.settings.topics.orders
    desk.write(ann(topic=orders), ann(topic=orders, offset=8, key=b"bob", value=None))
    on_topic = b"".join(
        (each.key() or b"") + (each.value() or b"") for each in desk.on(desk.settings.topics.deadletters)
    )
    assert b"ann" not in on_topic
    assert b"bob" not in on_topic
    found = {letter.record["key"]: letter.record for letter in desk.letters.find(ALL)}
    assert found[b"ann"]["value"] == b"\x01 of ann"
    assert found[b"ann"]["message"] == "'ann@shop' is no number; at email of ann"
    assert desk.replay() == 2
    home = {each.key(): each for each in desk.on(orders)}
    assert (home[b"ann"].value(), home[b"bob"].value()) == (b"\x01 of ann", None)
    assert dict(home[b"ann"].headers() or ())["from"] == b"ann"


def test_an_event_without_a_pseudonym_comes_home_with_one_on_its_partition(desk: Closed) -> None:
    settings, registry = desk.settings, MemoryRegistry()
    desk.letters = DeadLetters(settings, registry)
    encode = Encoder(registry, settings.topics.orders, "order")
    desk._encode = Encoder(registry, settings.topics.deadletters, "dead_letter")
    raw = order(user_id="ann", email="ann@shop")
    desk.write(ann(topic=settings.topics.orders, value=encode(raw)))
    assert desk.replay() == 1
    (home,) = desk.on(settings.topics.orders)
    known = pseudonyms(settings)
    assert known is not None
    assert Decoder(registry, "order")(home.value()) == known.published(raw)
    assert home.key() == known.user("ann").encode()
    assert home.partition() == partition_for(home.key(), settings.partitions)


def test_letters_under_a_key_that_is_lost_stay_and_say_so(desk: Closed) -> None:
    desk.write(ann(topic=desk.settings.topics.orders))
    lost = with_keys(desk.settings, TWO)
    letters = DeadLetters(lost, desk.letters._registry)
    (letter,) = letters.find(ALL)
    assert letter.record["sealed"]
    done = letters.replay(ALL)
    assert (done.sent, done.refusals) == (0, 1)
    assert "not known here" in done.refused[0][1]
    assert [each.offset() for each in locked(lost, letters._registry)] == [letter.offset]
    assert list(locked(desk.settings, letters._registry)) == []


def test_who_is_forgotten_is_found_in_sealed_letters_by_key_and_by_what_they_hold(desk: Closed) -> None:
    settings, registry, orders = desk.settings, desk.letters._registry, desk.settings.topics.orders
    desk.write(
        ann(topic=orders),
        ann(topic=orders, key=b"bob", value=b'{"user": "ann"}'),
        ann(topic=orders, key=b"bob", headers=[], value=b"of joann"),
    )
    assert len(list(letters_of(settings, registry, DEADLETTERS, "ann"))) == 2
    for partition in range(settings.partitions):
        rewrite(settings, DEADLETTERS, partition, theirs_on(settings, registry, DEADLETTERS, "ann"))
    (left,) = desk.letters.find(replace(ALL, home=True))
    assert left.record["value"] == b"of joann"
    lost = with_keys(settings, TWO)
    assert len(find(lost, registry, "nobody").staying) == 1  # nobody here can say whose it is
    assert len(find(lost, registry, "bob").letters) == 1  # whose it is, its key says all the same
