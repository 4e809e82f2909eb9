"""Pseudonyms at ingest: equal values stay equal, nothing of ours sees what they were, two keys live side by side."""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from schemas.errors import BadRecord, SettingsError
from schemas.registry import MemoryRegistry
from schemas.values import to_json
from schemas.wire import Decoder, Encoder
from streams.catalog import Catalogue
from streams.cli import app
from streams.config import Settings
from streams.config_sections import Personal
from streams.contracts import topic_contract
from streams.events import EVENT_TYPES, event_batch, order_entities
from streams.mapping.mapper import Finish
from streams.privacy.pseudonyms import KINDS, Pseudonyms, ingesting, names_of, pseudonyms
from streams.publish import Validation
from streams.row_files import Row
from tests.records import NOON_MS, click, impression, order

ONE, TWO = {"1": b"k" * 32}, {"2": b"n" * 32, "1": b"k" * 32}
CHOSEN = ("payment.instrument", "email", "billing_address", "shipping_address")


def test_only_the_chosen_fields_change_and_equal_values_stay_equal() -> None:
    known = Pseudonyms(CHOSEN, ONE)
    before, other = order(), order(email="mail-2", billing_address="home-9")
    after = known.event(before)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"payment", "email", "billing_address", "shipping_address"}
    assert after["payment"] == before["payment"] | {"instrument": after["payment"]["instrument"]}
    assert after["shipping_address"] == after["billing_address"] == known.event(other)["shipping_address"]
    assert after["email"] != known.event(other)["email"]
    assert before == order()  # what came is as it was
    assert not {"card-1", "mail-1", "home-1"} & set(order_entities(after))


def test_every_field_that_may_be_chosen_is_known() -> None:
    assert set(get_args(Personal)) == KINDS.keys()


def test_an_attribute_of_the_shops_own_is_replaced_whatever_its_type_and_others_stay() -> None:
    known = Pseudonyms(("attributes.phone", "attributes.a.b"), ONE)
    before = order(attributes={"phone": 441632960961.0, "a.b": "ann", "vip": True, "none": None})
    after = known.event(before)["attributes"]
    assert {name for name in after if after[name] != before["attributes"][name]} == {"phone", "a.b"}
    assert after["a.b"] != known.event(order(attributes={"a.b": "bob"}))["attributes"]["a.b"]
    assert after["phone"].startswith("p1:")
    assert known.event(order(attributes=after))["attributes"] == after
    assert known.event(order(attributes={}))["attributes"] == {}
    registry = MemoryRegistry()
    kept = Encoder(registry, "orders", "order")(order(attributes=after))
    assert Decoder(registry, "order")(kept)["attributes"] == after


def test_the_settings_take_attributes_by_name_and_no_other_field(tmp_path: Path) -> None:
    made = Settings(data_dir=tmp_path, privacy={"pseudonymise": "email,attributes.phone"})
    assert made.privacy.pseudonymise == ("email", "attributes.phone")
    for wrong in ("attributes.", "phone"):
        with pytest.raises(SettingsError, match=r"privacy.pseudonymise.*or attributes.NAME"):
            Settings(privacy={"pseudonymise": wrong})


def test_what_is_missing_stays_missing_and_a_token_is_not_hashed_again() -> None:
    known = Pseudonyms(CHOSEN, ONE)
    bare = order(email=None, payment={"method": "cash", "instrument": None, "bin": None, "issuer_country": None})
    assert known.event(bare)["email"] is None
    assert known.event(bare)["payment"] == bare["payment"]
    once = known.event(order())
    assert known.event(once) == once
    assert Pseudonyms(CHOSEN, TWO).event(once) == once  # one that the key before has made


@given(st.sampled_from(sorted(KINDS.values())), st.text(min_size=1), st.text(min_size=1))
def test_a_token_names_its_key_and_is_another_one_for_another_value_kind_or_key(kind: str, one: str, two: str) -> None:
    first, second = Pseudonyms((), TWO).tokens(kind, one)
    assert (first[:3], second[:3]) == ("p2:", "p1:")
    assert first[3:] != second[3:]
    assert Pseudonyms((), ONE).tokens(kind, one) == [second]
    if one != two:
        assert Pseudonyms((), TWO).tokens(kind, two)[0] != first
    assert Pseudonyms((), TWO).tokens("another", one)[0] != first


def test_events_are_read_with_pseudonyms_and_bad_ones_as_before(tmp_path: Path) -> None:
    settings, registry = Settings(data_dir=tmp_path, privacy={"pseudonymise": ("email", "ip")}), MemoryRegistry()
    encode, decoder = Encoder(registry, "events.orders", "order"), Decoder(registry, "order")
    read = ingesting(settings, decoder)
    good, bad = read.decode_many([encode(order()), b"garbage"])
    assert isinstance(bad, BadRecord)
    assert not isinstance(good, BadRecord)
    assert good["email"].startswith("p0:")
    assert good["payment"] == order()["payment"]
    assert read(encode(order())) == good
    assert ingesting(Settings(data_dir=tmp_path), decoder) is decoder


def test_every_kind_of_event_can_be_read_with_all_fields_replaced(tmp_path: Path) -> None:
    known = pseudonyms(Settings(data_dir=tmp_path, privacy={"pseudonymise": tuple(KINDS)}))
    assert known is not None
    events = [known.event(event) for event in (click(query="shoes", device="phone"), order(), impression())]
    assert events[0]["query"].startswith("p0:")
    event_batch(events, [kind.topic for kind in EVENT_TYPES], [0] * 3, [0] * 3, Catalogue())


def test_who_publishes_says_the_user_by_a_pseudonym_and_who_reads_does_not_touch_it() -> None:
    known = Pseudonyms(("email", "user_id"), TWO)
    before = order(user_id="ann")
    said = known.published(before)
    assert said["user_id"] == known.tokens("user", "ann")[0] == known.user("ann")
    assert said["email"] == known.event(before)["email"]
    assert known.published(said) == said == known.read(said)
    assert known.event(before)["user_id"] == "ann"
    assert Pseudonyms(("email",), TWO).published(before)["user_id"] == "ann"
    old = Pseudonyms(("email", "user_id"), ONE).published(before)
    assert known.read(old) == old  # under the key before


def test_an_event_whose_user_has_no_pseudonym_is_bad_and_its_error_does_not_say_who(tmp_path: Path) -> None:
    settings, registry = Settings(data_dir=tmp_path, privacy={"pseudonymise": ("user_id",)}), MemoryRegistry()
    encode = Encoder(registry, "events.orders", "order")
    known, read = pseudonyms(settings), ingesting(settings, Decoder(registry, "order"))
    assert known is not None
    raw, said = read.decode_many([encode(order(user_id="ann")), encode(known.published(order(user_id="ann")))])
    assert isinstance(raw, BadRecord)
    assert (raw.code, raw.where) == ("out_of_range", "user_id")
    assert "ann" not in str(raw)
    assert not isinstance(said, BadRecord)


def test_what_headrace_publishes_has_pseudonyms_in_key_and_value(tmp_path: Path) -> None:
    settings, registry = Settings(data_dir=tmp_path, privacy={"pseudonymise": ("email", "user_id")}), MemoryRegistry()
    known, contract = pseudonyms(settings), topic_contract(settings, "orders")
    assert known is not None
    mapped = Finish(settings, registry, contract)(order(user_id="ann"), NOON_MS)
    assert mapped.record == known.published(order(user_id="ann"))
    row = Row("row 1", to_json("order", order(user_id="ann")))
    read = ingesting(settings, Decoder(registry, "order"))
    for key, value in ((mapped.key, mapped.value), Validation(settings, contract, registry)(row)):
        event = read(value)
        assert key == known.user("ann").encode() == event["user_id"].encode()
        assert event["email"] == mapped.record["email"]
    with pytest.raises(BadRecord, match="user_id"):
        Finish(settings, registry, contract)(order(user_id=""), NOON_MS)


def test_a_person_has_a_name_under_each_key_and_a_pseudonym_is_their_own(tmp_path: Path) -> None:
    keys = f"2:{'6e' * 32},1:{'6b' * 32}"
    chosen = Settings(data_dir=tmp_path, privacy={"pseudonymise": ("user_id",), "pseudonym_keys": keys})
    names = names_of(chosen, "ann")
    assert names == Pseudonyms((), TWO).tokens("user", "ann")
    assert names_of(chosen, names[1]) == [names[1]]
    assert names_of(Settings(data_dir=tmp_path, privacy={"pseudonymise": ("email",)}), "ann") == ["ann"]
    assert names_of(Settings(data_dir=tmp_path), "ann") == ["ann"]


@pytest.mark.parametrize("keys", ["1", "1:abc", f"1:{'z' * 64}", f"1:{'a' * 64},1:{'b' * 64}", f":{'a' * 64}"])
def test_keys_that_cannot_be_used_are_refused(tmp_path: Path, keys: str) -> None:
    privacy = {"pseudonymise": ("email",), "pseudonym_keys": keys}
    with pytest.raises(SettingsError, match=r"privacy\.pseudonym_keys"):
        pseudonyms(Settings(data_dir=tmp_path, privacy=privacy))


def test_a_field_that_events_do_not_have_is_no_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"privacy\.pseudonymise"):
        Settings(data_dir=tmp_path, privacy={"pseudonymise": ("event_id",)})


def test_the_command_says_what_a_value_is_called_under_each_key(tmp_path: Path, logging_as_it_was: None) -> None:
    env = {
        "HEADRACE_DATA_DIR": str(tmp_path), "HEADRACE_PRIVACY__PSEUDONYMISE": "email",
        "HEADRACE_PRIVACY__PSEUDONYM_KEYS": f"2:{'6e' * 32},1:{'6b' * 32}",
    }  # fmt: skip
    done = CliRunner().invoke(app, ["pseudonym", "email", "mail-1"], env=env)
    assert done.output.split() == Pseudonyms((), TWO).tokens("email", "mail-1")
    assert CliRunner().invoke(app, ["pseudonym", "ip", "10.0.0.1"], env=env).exit_code == 2
