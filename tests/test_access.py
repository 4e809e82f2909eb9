"""Accounts: who may what, and a file that keeps its secrets, its changes and its head when many use it."""

import itertools
import multiprocessing
import re
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SettingsError, StateError
from streams.access.accounts import Accounts, Refused
from streams.access.database import Database
from streams.access.passwords import LONGEST, Passwords
from streams.access.places import access_folder, private_file, write_private
from streams.access.roles import LEAST, ROLES, Identity, allows, checked_actions, lower
from streams.access.settings import Access
from streams.config import Settings
from tests.access_accounts import BY, GOOD, MINUTE, NOW, OTHER, QUICK, open_accounts, signed_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def accounts(settings: Settings) -> Iterator[Accounts]:
    with open_accounts(settings) as found:
        yield found


def noted(accounts: Accounts) -> list[tuple[str, str, str]]:
    """What the audit log is still to be told."""
    found = []
    while (change := accounts.changes.claim(NOW)) is not None:
        found.append((change.who, change.action, change.subject))
        accounts.changes.sent(change)
    return found


# -- roles --------------------------------------------------------------------------------------------------------


def test_each_role_may_all_that_those_before_it_may_and_something_more() -> None:
    rights = [{action for action in LEAST if allows(role, action)} for role in ROLES]
    assert rights[-1] == LEAST.keys()
    assert all(less < more for less, more in itertools.pairwise(rights))


def test_a_viewer_sees_and_no_more_and_an_analyst_sees_personal_values() -> None:
    assert [action for action in LEAST if allows("viewer", action)] == ["see"]
    assert allows("analyst", "reveal")


def test_the_document_has_the_table_as_it_is() -> None:
    page = (Path(__file__).parent.parent / "docs" / "security.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", page.partition("## Roles")[2].partition("\n## ")[0], re.MULTILINE)
    assert rows == list(LEAST.items())


def test_what_is_not_in_the_table_is_nobodys() -> None:
    assert not allows("admin", "fly")
    assert not allows("root", "see")
    assert not Identity("ann", "").can("see")


@given(st.sampled_from(ROLES), st.lists(st.sampled_from(sorted(LEAST))))
def test_a_token_that_is_narrowed_never_may_more_than_its_role(role: str, only: list[str]) -> None:
    narrowed, whole = Identity("a", role, only=checked_actions(only)), Identity("a", role)
    assert all(whole.can(action) and (action in only or not only) for action in LEAST if narrowed.can(action))


@given(st.sampled_from(ROLES), st.sampled_from(ROLES), st.sampled_from(sorted(LEAST)))
def test_the_lower_of_two_roles_may_what_both_may(one: str, other: str, action: str) -> None:
    assert allows(lower(one, other), action) == (allows(one, action) and allows(other, action))


# -- users --------------------------------------------------------------------------------------------------------


def test_the_file_and_its_folder_are_for_their_owner_alone(accounts: Accounts, settings: Settings) -> None:
    folder = access_folder(settings)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == dict.fromkeys(("accounts.db", "accounts.db-wal", "accounts.db-shm"), 0o600)


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.write_text("")
    path.chmod(0o644)
    assert stat.S_IMODE(private_file(path).stat().st_mode) == 0o600


def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(SettingsError, match="others may write"):
        access_folder(Settings(data_dir=tmp_path, access=Access(folder=tmp_path / "shared")))


def test_a_new_file_leaves_one_that_is_there_and_nothing_beside_it(tmp_path: Path) -> None:
    write_private(tmp_path / "key", "first", new=True)
    write_private(tmp_path / "key", "second", new=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["first"]
    write_private(tmp_path / "key", "third")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["third"]


def test_neither_password_nor_session_nor_token_nor_code_is_in_the_file(accounts: Accounts, settings: Settings) -> None:
    cookie = signed_in(accounts).cookie
    _, token = accounts.tokens.make("ann", "", days=1, **BY)
    code = accounts.codes.make("ann", minutes=5, **BY)
    kept = b"".join(path.read_bytes() for path in access_folder(settings).iterdir())
    assert b"analyst" in kept
    assert [secret for secret in (GOOD, cookie, token, token[9:], code) if secret.encode() in kept] == []


def test_names_are_the_same_however_they_are_typed(accounts: Accounts) -> None:
    assert signed_in(accounts, "  ANN ").identity.name == "ann"
    with pytest.raises(SettingsError, match="there is a user ann already"):
        accounts.users.add("Ann", "viewer", GOOD, **BY)


@pytest.mark.parametrize("name", ["", " ", "-x", "a b", "a/b", "a\nb", "é", "\ud800", "x" * 65, "<script>"])
def test_a_name_that_cannot_be_one_is_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be a user's name"):
        accounts.users.add(name, "viewer", GOOD, **BY)
    assert accounts.sign_in(name, GOOD, "10.0.0.1", NOW) == Refused()


@pytest.mark.parametrize("password", ["", "elevenchars", "x" * (LONGEST + 1), "\ud800" * 12])
def test_a_password_that_cannot_be_one_is_refused_and_not_shown(accounts: Accounts, password: str) -> None:
    with pytest.raises(SettingsError) as refused:
        accounts.users.set_password("ann", password, **BY)
    assert not password or password not in str(refused.value)
    assert accounts.sign_in("ann", password, "10.0.0.1", NOW) == Refused()


def test_a_password_typed_on_another_system_is_the_same() -> None:
    assert QUICK.fits(QUICK.hash("caf\u00e9 caf\u00e9 caf\u00e9"), "cafe\u0301 cafe\u0301 cafe\u0301")


def test_hashes_are_argon2id_with_64_mib() -> None:
    assert Passwords().hash(GOOD).startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_a_hash_of_other_parameters_is_renewed_by_a_login_and_the_session_stays(
    accounts: Accounts, settings: Settings
) -> None:
    stronger = Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    with Accounts(settings, stronger) as later:
        opened = signed_in(later)
        user = later.users.find("ann")
        assert user is not None
        assert "t=2" in user.hash
        assert later.by_session(opened.cookie, NOW) == opened.identity
        assert signed_in(later).identity.name == "ann"


def test_somebody_must_be_left_who_can_give_rights(accounts: Accounts) -> None:
    accounts.users.add("robot", "admin", None, **BY)
    for change in (
        lambda: accounts.users.set_role("root", "viewer", **BY),
        lambda: accounts.users.disable("root", **BY),
    ):
        with pytest.raises(SettingsError, match="root is the last admin"):
            change()
    accounts.users.set_role("ann", "admin", **BY)
    accounts.users.disable("root", **BY)


def test_every_change_is_kept_for_the_audit_log_and_what_changes_nothing_is_not(accounts: Accounts) -> None:
    noted(accounts)
    accounts.users.set_role("ann", "analyst", **BY)
    accounts.users.enable("ann", **BY)
    signed_in(accounts)
    assert noted(accounts) == []
    accounts.users.set_role("ann", "operator", **BY)
    accounts.users.set_password("ann", OTHER, **BY)
    accounts.users.disable("ann", **BY)
    accounts.users.disable("ann", **BY)
    accounts.users.enable("ann", **BY)
    token, _ = accounts.tokens.make("ann", "", days=1, **BY)
    accounts.tokens.revoke(token.id, **BY)
    accounts.login_code("viewer", **BY)
    with pytest.raises(SettingsError):
        accounts.users.add("ann", "viewer", GOOD, **BY)
    actions = ["role", "password", "disable", "enable", "token", "revoke"]
    expected = [("shell:root", f"users.{action}", "ann") for action in actions]
    assert noted(accounts) == [
        *expected,
        ("shell:root", "users.add", "demo.viewer"),
        ("shell:root", "users.code", "demo.viewer"),
    ]


def test_one_sender_at_a_time_has_the_oldest_change_and_one_that_died_leaves_it(accounts: Accounts) -> None:
    first = accounts.changes.claim(NOW)
    assert first is not None
    assert accounts.changes.claim(NOW + MINUTE) is None
    assert accounts.changes.claim(NOW + 3 * MINUTE) == first
    accounts.changes.release(first)
    assert accounts.changes.claim(NOW) == first
    assert accounts.changes.claim(NOW - 60 * MINUTE) == first  # a clock that was set back keeps nobody waiting
    accounts.changes.sent(first)
    second = accounts.changes.claim(NOW)
    assert second is not None
    assert second.subject == "ann"
    assert accounts.changes.waiting() == 1


# -- the file -----------------------------------------------------------------------------------------------------


def add_users(settings: Settings, first: int) -> None:
    with Accounts(settings, QUICK) as accounts:
        for number in range(first, first + 20):
            accounts.users.add(f"u{number}", "viewer", None, **BY)


def test_processes_that_start_and_write_at_once_lose_nothing(settings: Settings) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=add_users, args=(settings, 20 * number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with Accounts(settings, QUICK) as accounts:
        assert len(accounts.users.all()) == 60
        assert accounts.changes.waiting() == 60


def test_a_change_that_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")

    def half() -> None:
        with database.change() as connection:
            connection.execute("INSERT INTO attempts VALUES ('x', 1, 1)")
            connection.execute("INSERT INTO none VALUES (1)")

    with pytest.raises(StateError, match="no such table: none"):
        half()
    with database.look() as connection:
        assert connection.execute("SELECT count(*) FROM attempts").fetchone() == (0,)
    database.close()


def test_a_file_that_is_none_of_ours_says_what_to_do(settings: Settings) -> None:
    (access_folder(settings) / "accounts.db").write_bytes(b"no database at all " * 100)
    with pytest.raises(StateError, match=r"accounts\.db.*backup"):
        Accounts(settings)


def test_accounts_of_a_later_version_are_left_alone(settings: Settings) -> None:
    path = access_folder(settings) / "accounts.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(SettingsError, match="version 99"):
        Accounts(settings)


def test_a_folder_that_cannot_be_made_names_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="HEADRACE_ACCESS__FOLDER"):
        Accounts(Settings(data_dir=tmp_path / "file"))
