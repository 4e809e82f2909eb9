"""`headrace users` and `headrace audit`: passwords by a pipe, tokens shown once, every change in the log."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from typer.testing import CliRunner, Result

import streams.access.accounts
from streams.access.accounts import Accounts
from streams.access.passwords import Passwords
from streams.access.roles import Identity
from streams.access.sessions import Opened
from streams.cli import app
from streams.config import Settings
from streams.local import LocalRegistry
from tests.access_accounts import GOOD, OTHER, QUICK
from tests.conftest import FreshSettings
from tests.observer import until
from tests.test_audit_log import put

Headrace = Callable[..., Result]
NOBODY = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.access.accounts, "Passwords", lambda: QUICK)


@pytest.fixture
def headrace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logging_as_it_was: None) -> Headrace:
    """With no broker."""
    monkeypatch.chdir(tmp_path)
    env = {"HEADRACE_BROKERS": NOBODY, "HEADRACE_DATA_DIR": str(tmp_path)}
    return lambda line, stdin="": CliRunner().invoke(app, line.split(), input=stdin, env=env, prog_name="headrace")


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    return fresh_settings()


@pytest.fixture
def on_kafka(settings: Settings, headrace: Headrace, tmp_path: Path) -> Headrace:
    env = {
        "HEADRACE_BROKERS": settings.brokers,
        "HEADRACE_REGISTRY_URL": settings.registry_url,
        "HEADRACE_APP_ID": settings.app_id,
        "HEADRACE_TOPICS__AUDIT": settings.topics.audit,
        "HEADRACE_DATA_DIR": str(settings.data_dir),
    }
    return lambda line, stdin="": CliRunner().invoke(app, line.split(), input=stdin, env=env, prog_name="headrace")


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Accounts]:
    with Accounts(Settings(data_dir=tmp_path)) as found:
        yield found


def test_a_user_is_added_changed_and_shut_out(headrace: Headrace, accounts: Accounts) -> None:
    assert "no users yet" in headrace("users list").stdout
    assert headrace("users add root --role admin", GOOD + "\n").stdout == "root is admin\n"
    assert headrace("users add ann", GOOD).exit_code == 0
    assert isinstance(accounts.sign_in("ann", GOOD, "", 1), Opened)
    assert headrace("users role ann analyst").stdout == "ann is analyst\n"
    assert headrace("users password ann", OTHER).exit_code == 0
    assert isinstance(accounts.sign_in("ann", OTHER, "", 1), Opened)
    assert headrace("users disable ann").exit_code == 0
    assert not isinstance(accounts.sign_in("ann", OTHER, "", 1), Opened)
    assert re.search(r"ann +analyst +disabled", headrace("users list").stdout)
    assert headrace("users enable ann").exit_code == 0
    rows = {row["name"]: row for row in json.loads(headrace("users list --json").stdout)}
    assert (rows["ann"]["role"], rows["ann"]["disabled"], rows["ann"]["password"]) == ("analyst", False, True)
    assert "argon2" not in headrace("users list --json").stdout


def test_a_token_is_alone_on_stdout_once_and_works_until_it_is_revoked(headrace: Headrace, accounts: Accounts) -> None:
    headrace("users add checkout --role operator --no-password")
    made = headrace("users token checkout --only score --days 1")
    assert re.fullmatch(r"headrace_[\w-]{43}\n", made.stdout)
    assert accounts.by_token(made.stdout.strip(), 1) == Identity("checkout", "operator", only=("score",))
    [row] = json.loads(headrace("users tokens checkout --json").stdout)
    assert made.stdout.strip() not in headrace("users tokens --json").stdout
    assert row["id"] in headrace("users tokens").stdout
    assert headrace(f"users revoke {row['id']}").exit_code == 0
    assert accounts.by_token(made.stdout.strip(), 1) is None


BAD = [
    ("users add ann", "short\n", "12 to 256 characters"),
    ("users add ann", "", "12 to 256 characters"),
    ("users add a/b", GOOD, "cannot be a user's name"),
    ("users add ann --role king", GOOD, "viewer, analyst, operator, admin"),
    ("users add root", GOOD, "there is a user root already"),
    ("users role nobody admin", "", "there is no user 'nobody'"),
    ("users password nobody", GOOD, "there is no user 'nobody'"),
    ("users disable root", "", "the last admin"),
    ("users token nobody", "", "there is no user 'nobody'"),
    ("users token root --only fly", "", "there is no action 'fly'"),
    ("users token root --days 0", "", "1 to 3650"),
    ("users revoke 12345678", "", "there is no token '12345678'"),
    ("audit who 0000000000000000", "", "nobody known here"),
    ("audit verify --head what", "", "SEQUENCE:HASH"),
]


@pytest.mark.parametrize(("line", "stdin", "words"), BAD, ids=[case[0] for case in BAD])
def test_bad_input_is_one_line_and_changes_nothing(
    headrace: Headrace, accounts: Accounts, line: str, stdin: str, words: str
) -> None:
    headrace("users add root --role admin", GOOD)
    before = headrace("users list --json").stdout
    result = headrace(line, stdin)
    assert result.exit_code == 2
    assert result.stdout == ""
    [told] = result.stderr.splitlines()
    assert words in told
    assert headrace("users list --json").stdout == before


def test_a_password_can_be_typed_twice_at_a_terminal(
    headrace: Headrace, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed: list[str] = []
    monkeypatch.setattr("streams.cli.users._at_terminal", lambda: True)
    monkeypatch.setattr("typer.prompt", lambda *_, **__: typed.pop(0))
    typed += [GOOD, OTHER]
    assert "not the same" in headrace("users add ann").stderr
    assert accounts.users.all() == []
    typed += [GOOD, GOOD]
    assert headrace("users add ann").exit_code == 0
    assert isinstance(accounts.sign_in("ann", GOOD, "", 1), Opened)


def test_without_a_broker_a_change_is_made_and_said_to_wait_for_the_log(headrace: Headrace) -> None:
    result = headrace("users add root --role admin", GOOD)
    assert result.exit_code == 0
    assert "not yet in the audit log: no broker listens" in result.stderr
    assert "1 kept for" in result.stderr
    for line in ("audit verify", "audit tail"):
        assert "no broker listens" in headrace(line).stderr


def test_changes_are_in_the_log_which_names_who_made_them_and_verifies(on_kafka: Headrace, settings: Settings) -> None:
    with Accounts(settings, Passwords(PasswordHasher(1, 8, 1))) as accounts:  # while no broker answered
        accounts.users.add("root", "admin", GOOD, by="shell:root", now_ms=1_700_000_000_000)
    assert on_kafka("users add ann", GOOD).stderr == ""
    until(lambda: len(json.loads(on_kafka("audit tail --json").stdout)) == 2)
    first, second = json.loads(on_kafka("audit tail --json").stdout)
    assert (first["action"], first["at"], first["name"]) == ("users.add", 1_700_000_000_000, "shell:root")
    assert on_kafka(f"audit who {second['who']}").stdout.startswith("shell:")
    assert on_kafka(f"audit who {second['subject'].removeprefix('user ')}").stdout == "ann\n"
    assert "ann" not in json.dumps([second["subject"], second["detail"]])
    table = on_kafka("audit tail -n 1").stdout
    assert "user ann" in table
    assert "user root" not in table
    whole = on_kafka("audit verify")
    assert (whole.exit_code, whole.stdout) == (0, f"whole: 2 entries; head 2:{second['hash']}\n")
    put(settings, b"\0garbage")
    until(lambda: on_kafka("audit verify").exit_code == 1)
    broken = on_kafka("audit verify")
    assert "broken: unreadable: offset" in broken.stdout
    assert "2 entries before it hold" in broken.stdout
    verdict = json.loads(on_kafka("audit verify --json").stdout)
    assert (verdict["broken"]["kind"], verdict["head"]) == ("unreadable", f"2:{second['hash']}")


def test_a_log_that_lost_its_end_is_found_by_the_head_that_was_written_down(on_kafka: Headrace) -> None:
    on_kafka("users add root --role admin", GOOD)
    until(lambda: "1 entries" in on_kafka("audit verify").stdout)
    known = on_kafka("audit verify").stdout.split()[-1]
    assert on_kafka(f"audit verify --head {known}").exit_code == 0
    later = on_kafka(f"audit verify --head 2:{'a' * 64}")
    assert later.exit_code == 1
    assert "broken: missing end: entry 2 was there before; the log ends with 1" in later.stdout
