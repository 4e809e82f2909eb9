"""How one becomes somebody, by session, token or code, and what ends that."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import SettingsError
from streams.access.accounts import Accounts, Refused
from streams.access.places import access_folder
from streams.access.roles import LEAST, Identity
from streams.access.sessions import Opened
from streams.config import Settings
from tests.access_accounts import BY, GOOD, HOUR, MINUTE, NOW, OTHER, open_accounts, signed_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def accounts(settings: Settings) -> Iterator[Accounts]:
    with open_accounts(settings) as found:
        yield found


# -- sessions -----------------------------------------------------------------------------------------------------


def test_a_session_is_its_user_and_each_login_makes_another(accounts: Accounts) -> None:
    one, other = signed_in(accounts), signed_in(accounts)
    assert one.cookie != other.cookie
    assert one.identity.csrf != other.identity.csrf
    assert accounts.by_session(one.cookie, NOW) == one.identity
    assert accounts.by_session(one.cookie + "x", NOW) is None
    accounts.sessions.end(one.cookie)
    assert accounts.by_session(one.cookie, NOW) is None
    assert accounts.by_session(other.cookie, NOW) == other.identity


def test_a_session_ends_when_it_is_not_used(accounts: Accounts) -> None:
    used, idle = signed_in(accounts), signed_in(accounts)
    for minutes in range(0, 120, 50):
        assert accounts.by_session(used.cookie, NOW + minutes * MINUTE)
    assert accounts.by_session(idle.cookie, NOW + HOUR) is None
    assert accounts.by_session(idle.cookie, NOW) is None  # it is gone, not only hidden


def test_a_page_that_asks_by_itself_keeps_no_session_alive(accounts: Accounts) -> None:
    opened = signed_in(accounts)
    for minutes in range(0, 60, 5):
        assert accounts.by_session(opened.cookie, NOW + minutes * MINUTE, used=False)
    assert accounts.by_session(opened.cookie, NOW + HOUR, used=False) is None


def test_every_session_ends_however_much_it_is_used(accounts: Accounts) -> None:
    opened = signed_in(accounts)
    alive = [bool(accounts.by_session(opened.cookie, NOW + minutes * MINUTE)) for minutes in range(0, 14 * 60, 30)]
    assert alive == [True] * 24 + [False] * 4


def test_sessions_that_are_over_do_not_pile_up(accounts: Accounts, settings: Settings) -> None:
    for day in range(5):
        signed_in(accounts, now_ms=NOW + day * 24 * HOUR)
    connection = sqlite3.connect(access_folder(settings) / "accounts.db")
    assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (1,)
    connection.close()


ENDINGS = {
    "another password": lambda accounts: accounts.users.set_password("ann", OTHER, **BY),
    "another role": lambda accounts: accounts.users.set_role("ann", "admin", **BY),
    "disabled": lambda accounts: accounts.users.disable("ann", **BY),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_change_of_rights_ends_the_users_sessions_and_codes_and_nobody_elses(accounts: Accounts, ending: str) -> None:
    hers, other = signed_in(accounts), signed_in(accounts, "root")
    code = accounts.codes.make("ann", minutes=5, **BY)
    ENDINGS[ending](accounts)
    assert accounts.by_session(hers.cookie, NOW) is None
    assert accounts.redeem(code, NOW) == Refused()
    assert accounts.by_session(other.cookie, NOW) == other.identity


def test_who_was_disabled_gets_in_by_nothing_until_enabled(accounts: Accounts) -> None:
    _, token = accounts.tokens.make("ann", "", days=1, **BY)
    accounts.users.disable("ann", **BY)
    assert accounts.sign_in("ann", GOOD, "10.0.0.1", NOW) == Refused()
    assert accounts.by_token(token, NOW) is None
    with pytest.raises(SettingsError, match="no user 'ann' who may log in"):
        accounts.codes.make("ann", minutes=5, **BY)
    accounts.users.enable("ann", **BY)
    assert signed_in(accounts)
    assert accounts.by_token(token, NOW) == Identity("ann", "analyst")


def test_a_login_that_a_change_of_rights_overtakes_makes_no_session(accounts: Accounts) -> None:
    user = accounts.users.find("ann")
    assert user is not None
    accounts.users.set_password("ann", OTHER, **BY)
    assert accounts.sessions.open(user, NOW) is None


# -- tokens and codes ---------------------------------------------------------------------------------------------


def test_a_token_is_its_user_until_its_time_is_over_or_it_is_revoked(accounts: Accounts) -> None:
    made, secret = accounts.tokens.make("ann", "viewer", days=2, **BY)
    assert accounts.by_token(secret, NOW) == Identity("ann", "viewer")
    assert accounts.by_token(secret, NOW + 48 * HOUR - 1)
    assert accounts.by_token(secret, NOW + 48 * HOUR) is None
    assert [accounts.by_token(guess, NOW) for guess in ("", "headrace_", secret[:-1], secret.lower())] == [None] * 4
    accounts.tokens.revoke(made.id, **BY)
    assert accounts.by_token(secret, NOW) is None


def test_a_token_may_no_more_than_its_user_may_now(accounts: Accounts) -> None:
    with pytest.raises(SettingsError, match="ann is analyst, and a token may not do more"):
        accounts.tokens.make("ann", "operator", days=1, **BY)
    _, secret = accounts.tokens.make("ann", "", days=1, **BY)
    accounts.users.set_role("ann", "viewer", **BY)
    assert accounts.by_token(secret, NOW) == Identity("ann", "viewer")
    accounts.users.set_role("ann", "admin", **BY)
    assert accounts.by_token(secret, NOW) == Identity("ann", "analyst")


def test_a_token_says_when_it_was_used_and_what_it_is_narrowed_to(accounts: Accounts) -> None:
    accounts.users.add("checkout", "operator", None, **BY)
    made, secret = accounts.tokens.make("checkout", "", days=1, only=["score"], **BY)
    assert accounts.tokens.all() == [made]
    found = accounts.by_token(secret, NOW + HOUR)
    assert found is not None
    assert [action for action in LEAST if found.can(action)] == ["score"]
    assert [token.used_at for token in accounts.tokens.all("checkout")] == [NOW + HOUR]
    assert accounts.tokens.all("ann") == []


@pytest.mark.parametrize(
    "wrong", [{"days": 0}, {"days": 10_000}, {"only": ["fly"]}, {"role": "king"}, {"user": "nobody"}], ids=str
)
def test_a_token_that_cannot_be_is_refused(accounts: Accounts, wrong: dict[str, object]) -> None:
    asked = {"user": "ann", "role": "", "days": 1, **BY, **wrong}
    with pytest.raises(SettingsError):
        accounts.tokens.make(**asked)
    assert accounts.tokens.all() == []


def test_a_login_code_works_once_and_within_its_time(accounts: Accounts) -> None:
    code = accounts.login_code("operator", minutes=10, **BY)
    opened = accounts.redeem(code, NOW + 10 * MINUTE - 1)
    assert isinstance(opened, Opened)
    assert (opened.identity.name, opened.identity.role) == ("demo.operator", "operator")
    assert accounts.redeem(code, NOW) == Refused()
    late = accounts.login_code("operator", minutes=10, **BY)
    assert accounts.redeem(late, NOW + 10 * MINUTE) == Refused()
    assert accounts.redeem("", NOW) == Refused()


def test_a_user_made_for_a_code_has_no_password_that_fits(accounts: Accounts) -> None:
    accounts.login_code("admin", **BY)
    for guess in ("", GOOD, "a password that nobody has"):
        assert accounts.sign_in("demo.admin", guess, "10.0.0.1", NOW) == Refused()
