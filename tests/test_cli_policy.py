"""`headrace policy` and `headrace lists`: a file is checked, compared and applied; lists change with a command."""

import json
import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import confluent_kafka
import pytest
from typer.testing import CliRunner, Result

from schemas.confluent import ConfluentRegistry
from schemas.wire import Encoder
from streams.cli import app
from streams.config import Settings
from streams.demo.stage import environment
from streams.local import LocalRegistry
from streams.policies import PolicyFeed
from streams.policy_topic import apply
from tests.conftest import FreshSettings
from tests.records import order
from tests.test_policy import FIELDS_OF_NOTHING

Headrace = Callable[..., Result]
POLICY = """name = "shop"
[[rules]]
id = "dear"
when = "order.amount > 500.0"
then = "block"
[[rules]]
id = "listed"
when = "card.blocked"
then = "block"
"""


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    return fresh_settings()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.toml").write_text(POLICY)
    return tmp_path


@pytest.fixture
def headrace(settings: Settings, folder: Path, logging_as_it_was: None) -> Headrace:
    env = environment(settings)
    return lambda *words: CliRunner().invoke(app, words, env=env, prog_name="headrace")


def test_a_good_file_is_told_its_version_and_a_bad_one_what_is_wrong(folder: Path, logging_as_it_was: None) -> None:
    said = CliRunner().invoke(app, ["policy", "check", "policy.toml"])
    assert said.exit_code == 0
    assert said.stdout.endswith("can be used: 2 rules, then thresholds\n")
    (folder / "policy.toml").write_text(POLICY.replace("order.amount", "order.amout"))
    said = CliRunner().invoke(app, ["policy", "check", "policy.toml"])
    assert said.exit_code == 2
    assert "rule dear: line 1, column 6: undeclared reference to 'order.amout'" in said.stderr
    assert CliRunner().invoke(app, ["policy", "check", "nowhere.toml"]).exit_code == 2


def test_the_facts_are_listed_with_their_types() -> None:
    said = CliRunner().invoke(app, ["policy", "facts"]).stdout
    assert "user.orders_1h" in said
    assert {"name", "type", "meaning"} == set(
        json.loads(CliRunner().invoke(app, ["policy", "facts", "--json"]).stdout)[0]
    )


def test_what_is_applied_is_listed_shown_and_compared(headrace: Headrace, folder: Path) -> None:
    assert "no policy decides" in headrace("policy", "list").stdout
    applied = headrace("policy", "apply", "policy.toml", "--note", "first")
    assert applied.exit_code == 0, applied.stderr
    assert "was never a shadow" in applied.stderr
    version = applied.stdout.split()[0]
    assert headrace("policy", "show").stdout == POLICY
    assert headrace("policy", "show", version[:10]).stdout == POLICY
    (folder / "policy.toml").write_text(POLICY.replace("500.0", "400.0"))
    changed = headrace("policy", "diff", "policy.toml").stdout
    assert '-when = "order.amount > 500.0"' in changed
    assert '+when = "order.amount > 400.0"' in changed
    assert headrace("policy", "apply", "policy.toml", "--shadow").stdout.endswith("is the shadow\n")
    live = headrace("policy", "apply", "policy.toml").stderr
    assert '+when = "order.amount > 400.0"' in live
    assert "was never a shadow" not in live
    headrace("policy", "apply", "policy.toml", "--shadow")
    (folder / "policy.toml").write_text(POLICY)
    headrace("policy", "apply", "policy.toml", "--note", "first")
    rows = json.loads(headrace("policy", "list", "--json").stdout)
    assert rows["live"]["version"] == version
    assert rows["live"]["note"] == "first"
    assert rows["shadow"]["version"] != version
    assert len(rows) == 4
    headrace("policy", "clear")
    assert "no policy decides" in headrace("policy", "list").stdout
    said = headrace("policy", "show", "live")
    assert (said.exit_code, "there is no policy 'live'" in said.stderr) == (2, True)


def test_workers_follow_what_is_applied_and_keep_the_one_before_where_it_cannot_be_used(
    settings: Settings, headrace: Headrace, folder: Path
) -> None:
    with closing(ConfluentRegistry(settings.registry())) as registry:
        feed = PolicyFeed(settings, registry)
        try:
            feed.wait_current(30)
            assert feed.standing.live is None
            headrace("policy", "apply", "policy.toml")
            headrace("lists", "add", "block", "card:card-1", "--reason", "chargeback")
            feed.wait_current(30)
            live = feed.standing.live
            assert live is not None
            assert live.decide(order(), 0.0, FIELDS_OF_NOTHING).rules == ("listed",)
            headrace("lists", "remove", "block", "card:card-1")
            feed.wait_current(30)
            assert live.decide(order(), 0.0, FIELDS_OF_NOTHING).rules == ()
            headrace("policy", "clear")
            feed.wait_current(30)
            assert feed.standing.live is None
        finally:
            feed.stop()


def spoil(settings: Settings, registry: ConfluentRegistry) -> None:
    """Makes a document live that no worker can use, as another tool might."""
    encode = Encoder(registry, settings.topics.policies, "policy")
    bad = {"task": "fraud", "standing": "live", "version": "next@1", "digest": "", "document": "name = 1",
           "applied_at": 5, "by": "", "note": ""}  # fmt: skip
    producer = confluent_kafka.Producer(settings.librdkafka())
    producer.produce(settings.topics.policies, encode(bad), b"fraud/live", 0)
    assert producer.flush(30) == 0


def test_a_policy_that_cannot_be_used_stops_nothing_and_the_one_before_goes_on_deciding(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(ConfluentRegistry(settings.registry())) as registry:
        good = apply(settings, registry, POLICY, by="ann")
        feed = PolicyFeed(settings, registry)
        try:
            feed.wait_current(30)
            before = feed.standing.live
            spoil(settings, registry)
            producer = confluent_kafka.Producer(settings.librdkafka())
            producer.produce(settings.topics.lists, b"no avro", b"block/card:1", 0)
            producer.produce(settings.topics.lists, None, b"nonsense", 0)
            assert producer.flush(30) == 0
            with caplog.at_level(logging.ERROR, "streams.policies"):
                feed.wait_current(30)
            assert feed.standing.live is before
            assert before is not None
            assert before.version == good.version
            assert f"fraud/live: next@1 cannot be used, {before.version} decides on" in caplog.text
            assert before.decide(order(), 0.0, FIELDS_OF_NOTHING).decision == "approve"
        finally:
            feed.stop()


def test_the_last_policy_that_was_live_decides_after_a_restart_too(settings: Settings) -> None:
    with closing(ConfluentRegistry(settings.registry())) as registry:
        apply(settings, registry, POLICY.replace("500.0", "300.0"), by="ann", now_ms=1)
        good = apply(settings, registry, POLICY, by="ann", now_ms=2)
        apply(settings, registry, POLICY.replace("500.0", "1.0"), shadow=True, by="ann", now_ms=3)  # never decided
        apply(settings, registry, POLICY, shadow=True, by="ann", now_ms=4)  # a shadow too, and still one that was live
        spoil(settings, registry)
        feed = PolicyFeed(settings, registry)
        try:
            feed.wait_current(30)
            assert feed.standing.live is not None
            assert feed.standing.live.version == good.version
            assert list(feed.standing.refused) == ["fraud/live"]
            assert feed.standing.refused["fraud/live"].startswith("next@1 cannot be used: ")
            apply(settings, registry, "", by="ann")
            feed.wait_current(30)
            assert not feed.standing.live
            assert not feed.standing.refused
            spoil(settings, registry)
            feed.wait_current(30)
            assert feed.standing.live is None  # nothing decided before, and nothing does now
        finally:
            feed.stop()


def test_lists_are_shown_with_reason_and_end(headrace: Headrace) -> None:
    put = ("lists", "add", "watch", "user:u 1:2", "--reason", "asked about refunds", "--until", "2030-01-31T00:00Z")
    assert headrace(*put).exit_code == 0
    assert headrace(*put).exit_code == 0
    said = headrace("lists", "show").stdout
    for part in ("watch", "user:u 1:2", "asked about refunds", "2030-01-31 00:00:00"):
        assert part in said
    assert len(json.loads(headrace("lists", "show", "--json").stdout)) == 1
    headrace("lists", "remove", "watch", "user:u 1:2")
    assert json.loads(headrace("lists", "show", "--json").stdout) == []
    audited = headrace("audit", "tail", "--json").stdout
    assert [entry["action"] for entry in json.loads(audited)] == ["list.add", "list.add", "list.remove"]
    assert "u 1:2" not in audited  # it is kept for ever: neither who it is about nor what was said of them
    assert "refunds" not in audited


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("deny", "card:1"), "'deny' is no list"),
        (("block", "iban:1"), "'iban' is no type"),
        (("block", "card:"), "a token of 0 characters"),
    ],
)
def test_what_is_no_list_or_type_is_refused(headrace: Headrace, words: tuple[str, str], said: str) -> None:
    refused = headrace("lists", "add", *words, "--reason", "x")
    assert refused.exit_code == 2
    assert said in refused.stderr
