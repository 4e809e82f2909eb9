"""Users by pseudonym on a running shop: mapped, asked for, scored, refused where a client forgot it, and forgotten."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engines.releases import ReleaseStore
from schemas.confluent import ConfluentRegistry
from streams.config import Settings
from streams.deadletters import DeadLetters, Selection
from streams.mapping.mapper import Mapper
from streams.mapping.service import Follower, mapped_topic
from streams.ports import free_port
from streams.privacy.forget import Forget
from streams.privacy.names import forgotten_as
from streams.privacy.pseudonyms import names_of, pseudonyms
from streams.privacy.search import OURS, records, search
from tests import mapped_shop, shop
from tests.conftest import FreshSettings
from tests.mapped_shop import as_json, make_topic, order, produce, write_mapping
from tests.records import order as event

ANN, MAIL, CARD = "ann-7f3a9", "mail-of-ann", "card-of-ann"
ALL = Selection()


@pytest.fixture
def settings(fresh_settings: FreshSettings, registry: Any, tmp_path: Path) -> Settings:
    store, _ = shop.releases()
    made: Settings = fresh_settings(
        release_store=store, web={"port": free_port()}, deadlines_ms={"fraud": 600_000},
        state={"flush_interval_s": 0.5},
        privacy={"key_file": tmp_path / "key", "pseudonymise": ("user_id", "email", "payment.instrument")},
    )  # fmt: skip
    shop.furnish(made)
    return made


def anns(number: int, **changed: Any) -> dict[str, Any]:
    who = {"customer": {"id": ANN, "email_hash": MAIL}, "pay": {"kind": "CC", "token": CARD}}
    return order(number, **who, **changed)


def carry(settings: Settings, path: Path | str) -> None:
    with closing(ConfluentRegistry(settings.registry())) as known:
        plan = mapped_topic(settings, Mapper.of(settings, known, str(path)))
        Follower(settings, known, plan).run(start="beginning", until_end=True)


def scored(settings: Settings) -> dict[str, str]:
    return {score["order_id"]: score["user_id"] for score in shop.scores(settings, "fraud")}


def test_a_mapping_names_nobody_and_who_is_forgotten_by_name_goes_from_sealed_letters(
    fresh_settings: FreshSettings, registry: Any, tmp_path: Path
) -> None:
    chosen = ("user_id", "email", "payment.instrument")
    settings: Settings = fresh_settings(privacy={"key_file": tmp_path / "key", "pseudonymise": chosen})
    topic = make_topic(settings, f"{settings.app_id}.shop.orders")
    path = write_mapping(tmp_path, mapped_shop.ORDERS, name="orders", source=topic, format="json")
    bad, other = anns(9, total={"minor": MAIL, "currency": "GBP"}), order(8, placed_at="yesterday")
    produce(settings, topic, as_json(*(anns(n) for n in range(4)), order(20), bad, other), key=ANN.encode())
    carry(settings, path)
    (name,) = names_of(settings, ANN)
    assert search(settings, ANN, MAIL, CARD) == []
    carried = shop.read(settings, settings.topics.orders, "order")
    assert [each["user_id"] for each in carried].count(name) == 4
    assert all(each["user_id"].startswith("p0:") and each["email"].startswith("p0:") for each in carried)
    with closing(ConfluentRegistry(settings.registry())) as schemas:
        found = {letter.record["code"]: letter.record for letter in DeadLetters(settings, schemas).find(ALL)}
        assert found["wrong_type"]["value"] in as_json(bad, other)
        assert forgotten_as(settings, schemas, ANN) == [(name, (ANN,))]
        store = ReleaseStore(settings.release_store)
        said = Forget(settings, schemas, store, name, known_as=(ANN,), wait_s=0).run()
        assert said["deleted"][settings.topics.deadletters] == 2  # its key is theirs, whatever it holds
        assert said["of_the_shop"] == {settings.topics.orders: 4}
        assert list(DeadLetters(settings, schemas).find(ALL)) == []
    assert [hit for hit in search(settings, ANN, MAIL, CARD, name) if hit.of == OURS] == []


@pytest.mark.slow
def test_a_mapped_user_is_known_by_pseudonym_everywhere_and_forgotten_by_name(
    settings: Settings, tmp_path: Path
) -> None:
    topic = make_topic(settings, f"{settings.app_id}.shop.orders")
    path = write_mapping(tmp_path, mapped_shop.ORDERS, name="orders", source=topic, format="json")
    bad = anns(9, total={"minor": MAIL, "currency": "GBP"})
    produce(settings, topic, as_json(*(anns(n) for n in range(4)), *(order(n) for n in range(20, 24)), bad))
    known = pseudonyms(settings)
    assert known is not None
    name = known.user(ANN)
    with shop.worker(settings, tmp_path / "worker.log"), closing(ConfluentRegistry(settings.registry())) as schemas:
        carry(settings, path)
        shop.wait_for(lambda: len(scored(settings)) == 8, 120)
        assert {scored(settings)[f"SO-{n}"] for n in range(4)} == {name}
        assert [hit for hit in search(settings, ANN, MAIL, CARD) if hit.where != topic] == []
        assert any(MAIL.encode() in each for each in records(settings, topic))  # the shop's own, as it is
        client(settings, schemas, name)
        found = forgotten_as(settings, schemas, ANN)
        assert found == [(name, (ANN,))]
        store = ReleaseStore(settings.release_store)
        said = Forget(settings, schemas, store, name, known_as=(ANN,), wait_s=180).run()
        assert said["open"] == [], (tmp_path / "worker.log").read_text()[-4000:]
        assert said["deleted"][settings.topics.deadletters] == 2
        assert list(DeadLetters(settings, schemas).find(ALL)) == []
        assert [hit for hit in search(settings, ANN, MAIL, CARD, *names_of(settings, ANN)) if hit.of == OURS] == []
        assert {user for user in scored(settings).values()} == {known.user(str(1000 + n % 7)) for n in range(20, 24)}


def client(settings: Settings, schemas: ConfluentRegistry, name: str) -> None:
    """One that publishes the name as it is: refused with all its bytes, scored once it was brought home."""
    orders = settings.topics.orders
    shop.publish(settings, [("orders", event(event_id="raw", order_id="raw", user_id=ANN, email=MAIL))])
    letters = DeadLetters(settings, schemas)
    shop.wait_for(lambda: any(each.record["topic"] == orders for each in letters.find(ALL)), 60)
    assert not any(ANN.encode() in each for each in records(settings, settings.topics.deadletters))
    (letter,) = letters.find(Selection(topics=frozenset({orders})))
    assert (letter.record["code"], letter.record["key"]) == ("out_of_range", ANN.encode())
    assert letters.replay(Selection(topics=frozenset({orders}))).sent == 1
    shop.wait_for(lambda: "raw" in scored(settings), 60)
    assert scored(settings)["raw"] == name
