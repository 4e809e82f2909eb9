"""The operations pages over a real broker: what is pressed there is on the topics afterwards, as by a command.
And what is on the topics is on the pages, without any of them waiting for a broker."""

import time
from collections.abc import Iterator
from contextlib import closing

import confluent_kafka
import pytest
from confluent_kafka import Producer

from schemas.confluent import ConfluentRegistry
from schemas.errors import BadRecord
from schemas.wire import Encoder
from streams.audit.chain import verify
from streams.audit.log import read as read_audit
from streams.config import Settings
from streams.console.service import Console
from streams.deadletters import DeadLetters, Selection, dead_letter
from streams.learner.control import Speaker, Status, statuses
from streams.local import LocalRegistry
from streams.offsets import bounds, places, read_range
from streams.pointers import announcements, live_pointers
from streams.policy_lists import read_entries
from streams.policy_topic import read as read_policies
from streams.raw import RawRecord
from tests import shop
from tests.conftest import FreshSettings
from tests.console_app import serving
from tests.console_ops import Page, Visitor
from tests.observer import until

POLICY = 'name = "spring"\n\n[[rules]]\nid = "large"\nwhen = "order.amount > 500.0"\nthen = "review"\n'


class Place:
    """A console on a broker, and people in it."""

    def __init__(self, settings: Settings, console: Console, where: str) -> None:
        self.settings, self.console, self.where = settings, console, where

    def visitor(self, role: str) -> Visitor:
        users, now_ms = self.console.accounts.users, time.time_ns() // 1_000_000
        user = users.find(role) or users.add(role, role, None, by="test", now_ms=now_ms)
        opened = self.console.accounts.sessions.open(user, now_ms)
        assert opened is not None
        return Visitor(self.where, opened.cookie, opened.identity.csrf)

    def shows(self, path: str, *words: str, role: str = "admin") -> Page:
        """The page, once it shows the words: it is made from memory, which a moment later has what is on the topic."""
        found: list[Page] = []

        def there() -> bool:
            found.append(self.visitor(role).page(path))
            return all(word in found[-1].text for word in words)

        try:
            until(there, 20)
        except AssertionError:
            raise AssertionError(f"{path} does not show {words}: {found[-1].text}") from None
        return found[-1]

    def audited(self) -> list[str]:
        with closing(ConfluentRegistry(self.settings.registry())) as registry:
            entries = list(read_audit(self.settings, registry))
        assert verify(entries).broken is None
        return [getattr(entry, "action", "") for entry in entries]


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    store, _ = shop.releases()
    return fresh_settings(release_store=store, console={"port": 0, "workers": "127.0.0.1:9", "learners": "127.0.0.1:9"})


@pytest.fixture
def place(settings: Settings) -> Iterator[Place]:
    with (
        closing(ConfluentRegistry(settings.registry())) as registry,
        closing(Console(settings, registry)) as console,
        serving(console.app) as where,
    ):
        yield Place(settings, console, where)


def test_a_release_is_promoted_pinned_and_rolled_back_from_its_page(settings: Settings, place: Place) -> None:
    store, versions = shop.releases()
    first = versions["fraud"]
    second = shop.copy_release(store, "fraud", first, "console-second")
    operator = place.visitor("operator")
    place.shows("/releases", "Nothing was ever made live", first)

    done = operator.post("/releases/fraud/promote", version=first, expected="", why="the first")
    assert done.headers["Location"] == "/releases?task=fraud&done=promote"
    done = operator.post("/releases/fraud/promote", version=second, expected=first, why="newer", pin="1")
    assert done.status_code == 303
    live = live_pointers(settings)["fraud"]
    assert (live.version, live.previous, live.pinned) == (second, first, True)
    assert "Pinned" in operator.page("/releases?done=promote").text

    stale = operator.post("/releases/fraud/rollback", expected=first, why="stale")
    assert stale.status_code == 400
    assert f"fraud/{second} is live by now" in stale.text
    assert live_pointers(settings)["fraud"].version == second

    assert operator.post("/releases/fraud/unpin", expected=second, why="let go").status_code == 303
    assert operator.post("/releases/fraud/rollback", expected=second, why="it does worse").status_code == 303
    live = live_pointers(settings)["fraud"]
    assert (live.version, live.pinned) == (first, False)
    (said,) = announcements(settings)
    assert (said.version, said.state) == (second, "rolled back")
    place.shows("/releases", "rolled back", "By hand.")
    assert place.audited() == [
        "release.promote", "release.promote", "release.rollback", "release.rollback.refused", "release.unpin",
        "release.rollback",
    ]  # fmt: skip


def test_a_release_that_is_not_there_moves_nothing(settings: Settings, place: Place) -> None:
    operator = place.visitor("operator")
    assert operator.post("/releases/fraud/promote", version="nothing", expected="", why="x").status_code == 404
    done = operator.post("/releases/fraud/rollback", expected="x", why="x")
    assert done.status_code == 400
    assert "nothing is live of fraud" in done.text
    assert live_pointers(settings) == {}


def test_the_learner_is_paused_and_asked_and_its_word_is_shown(settings: Settings, place: Place) -> None:
    with closing(ConfluentRegistry(settings.registry())) as registry:
        detail = {"champion": "v1", "new": 12_345, "why_not": "too few"}
        Speaker(settings, registry).say(Status("fraud", "waiting", detail, time.time_ns() // 1_000_000))
    place.shows("/learn", "12,345", "too few")
    operator = place.visitor("operator")
    assert operator.post("/learn/fraud", do="pause").status_code == 303
    assert operator.post("/learn/fraud", do="now").status_code == 303
    asked = statuses(settings)[1]["fraud"]
    assert asked.paused
    assert asked.asked_at > 0
    assert asked.by not in ("", "operator")  # a pseudonym
    place.shows("/learn", "Pause asked for", "Fine-tune asked for")
    assert operator.post("/learn/fraud", do="resume").status_code == 303
    resumed = statuses(settings)[1]["fraud"]
    assert (resumed.paused, resumed.asked_at) == (False, asked.asked_at)
    assert place.audited() == ["learn.pause", "learn.now", "learn.resume"]


def letters(settings: Settings, count: int) -> None:
    broken = BadRecord("undecodable", "the first byte is 1", where="byte 0", expected="0")
    with closing(ConfluentRegistry(settings.registry())) as registry:
        encode = Encoder(registry, settings.topics.deadletters, "dead_letter")
    producer = Producer({**settings.librdkafka(), "enable.idempotence": True})
    for number in range(count):
        value = b"\x01garbage %d" % number
        raw = RawRecord(settings.topics.orders, 0, number, time.time_ns() // 1_000_000, b"user %d" % number, value, ())
        producer.produce(settings.topics.deadletters, encode(dead_letter(raw, broken, raw.timestamp)), raw.key, 0)
    assert producer.flush(20) == 0


def on(settings: Settings, topic: str) -> list[confluent_kafka.Message]:
    found = bounds(settings, places(settings, topic))
    ranges = [read_range(settings, *each, low, high) for each, (low, high) in found.items()]
    return [message for batches in ranges for messages in batches for message in messages]


def test_dead_letters_are_shown_with_their_bytes_and_brought_home_once(settings: Settings, place: Place) -> None:
    letters(settings, 3)
    page = place.shows("/letters", "Letters: 3, the newest first", "the first byte is 1")
    ids = sorted(box["value"] for box in page.all("input") if box.get("name") == "id")
    assert ids == ["0:0", "0:1", "0:2"]
    shown = place.visitor("analyst").page("/letters/at/0:1").text
    for words in ("01 67 61 72 62 61 67 65 20 31", "user 1", "the first byte is 1", "not the Confluent framing"):
        assert words in shown
    masked = place.visitor("viewer").page("/letters/at/0:1").text
    assert "01 67 61" not in masked
    assert "user 1" not in masked

    operator = place.visitor("operator")
    done = operator.post("/letters/replay", id=["0:0", "0:2"])
    assert done.headers["Location"] == "/letters?done=2&stay=0"
    place.shows("/letters", "Letters: 1, the newest first")
    assert sorted(message.value() for message in on(settings, settings.topics.orders)) == [
        b"\x01garbage 0",
        b"\x01garbage 2",
    ]
    again = operator.post("/letters/replay", id=["0:0", "0:2"])
    assert again.status_code == 400
    with closing(ConfluentRegistry(settings.registry())) as registry:
        left = list(DeadLetters(settings, registry).find(Selection()))
    assert [letter.id for letter in left] == ["0:1"]
    assert place.audited() == ["letters.replay"]


def test_a_policy_is_applied_shadowed_and_ended_and_each_is_on_the_topic(settings: Settings, place: Place) -> None:
    operator = place.visitor("operator")
    place.shows("/policies", "No policy was ever applied")
    for standing in ("shadow", "live"):
        checked = Page(operator.post("/policies/check", document=POLICY.replace("\n", "\r\n")).text)
        hidden = {field["name"]: field["value"] for field in checked.all("input") if field.get("type") == "hidden"}
        (document,) = checked.areas("document")
        done = operator.post("/policies/apply", **hidden, document=document, note="large orders", standing=standing)
        assert done.headers["Location"] == f"/policies?done={standing}"
    with closing(ConfluentRegistry(settings.registry())) as registry:
        found = read_policies(settings, registry)
        assert found["live"].document == found["shadow"].document == POLICY
        assert found["live"].note == "large orders"
        version = found["live"].version
        page = operator.page("/policies")
        assert version in page.text
        assert "live and shadow" in page.text
        assert operator.post("/policies/clear", standing="live").status_code == 303
        cleared = read_policies(settings, registry)
    assert cleared["live"].document == ""
    assert version in cleared
    assert "No policy decides" in operator.page("/policies").text
    assert place.audited() == ["policy.shadow", "policy.live", "policy.clear-live"]


def test_an_entry_is_put_on_a_list_and_taken_off(settings: Settings, place: Place) -> None:
    analyst = place.visitor("analyst")
    fields = {
        "list": "block",
        "type": "card",
        "token": "4f1c-secret",
        "reason": "chargeback",
        "until": "2030-01-01T00:00",
    }
    assert analyst.post("/lists/add", **fields).headers["Location"] == "/lists?list=block&done=added"
    assert "4f1c-secret" in analyst.page("/lists").text
    with closing(ConfluentRegistry(settings.registry())) as registry:
        (entry,) = read_entries(settings, registry)
        assert (entry.key, entry.reason, entry.until) == ("block/card:4f1c-secret", "chargeback", 1_893_456_000_000)
        assert analyst.post("/lists/remove", key=entry.key).status_code == 303
        assert read_entries(settings, registry) == []
        kept = "".join(f"{one!r}" for one in read_audit(settings, registry))
    assert "4f1c-secret" not in kept
    assert "4f1c-secret" not in analyst.page("/lists").text
    assert place.audited() == ["list.add", "list.remove"]


def test_the_audit_log_is_shown_filtered_and_verified(settings: Settings, place: Place) -> None:
    operator, admin = place.visitor("operator"), place.visitor("admin")
    operator.post("/learn/fraud", do="pause")
    operator.post("/learn/ctr", do="pause")
    admin.post("/lists/add", list="watch", type="user", token="u1", reason="odd")
    page = admin.page("/audit")
    for words in ("learn.pause", "list.add", "operator", "task ctr"):
        assert words in page.text
    assert "list.add" not in admin.page("/audit?action=learn").text
    assert "learn.pause" not in admin.page("/audit?who=admin").text
    assert "None of these" in admin.page("/audit?who=nobody").text
    verified = admin.post("/audit/verify")
    assert verified.status_code == 200
    assert "The chain holds: 3 entries." in verified.text


def test_a_chain_that_somebody_wrote_into_is_said_to_be_broken(settings: Settings, place: Place) -> None:
    place.visitor("operator").post("/learn/fraud", do="pause")
    shop.send(settings, settings.topics.audit, b"", b"no entry")
    admin = place.visitor("admin")
    verified = admin.post("/audit/verify")
    assert "The chain is broken: unreadable." in verified.text
    assert "1 entries before it hold." in verified.text
    assert "unreadable" in admin.page("/audit").text
