"""Guessing a password is slow, and tells nothing of who is there."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from streams.access.accounts import Accounts, Refused
from streams.access.attempts import ADDRESS, FORGOTTEN_MS, NAME, address_key, wait_ms
from streams.access.passwords import Passwords
from streams.access.sessions import Opened
from streams.config import Settings
from tests.access_accounts import BY, GOOD, NOW, OTHER, QUICK, open_accounts, signed_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def accounts(settings: Settings) -> Iterator[Accounts]:
    with open_accounts(settings) as found:
        yield found


# -- guessing -----------------------------------------------------------------------------------------------------


def guess(accounts: Accounts, name: str, address: str, now_ms: int, password: str = OTHER) -> int:
    """The wait after a wrong guess."""
    found = accounts.sign_in(name, password, address, now_ms)
    assert isinstance(found, Refused)
    return found.wait_ms


@pytest.mark.parametrize("name", ["ann", "nobody"])
def test_guesses_at_a_name_wait_longer_and_longer_whoever_it_is_and_wherever_they_come_from(
    accounts: Accounts, name: str
) -> None:
    now, waits = NOW, []
    for number in range(16):
        address = f"10.0.{number}.1"
        while wait := guess(accounts, name, address, now):
            waits.append(wait)
            now += wait
    assert waits == [min(1000 * 2**n, NAME.most_ms) for n in range(11)]


def test_the_right_password_waits_as_long_and_then_starts_the_count_anew(accounts: Accounts) -> None:
    for _ in range(NAME.free):
        assert guess(accounts, "ann", "10.0.0.1", NOW) == 0
    assert guess(accounts, "ann", "10.0.0.1", NOW, GOOD) == 1000
    assert signed_in(accounts, now_ms=NOW + 1000)
    assert guess(accounts, "ann", "10.0.0.1", NOW + 1000) == 0


def test_an_address_that_guesses_at_many_names_waits_and_a_success_of_its_own_does_not_help_it(
    accounts: Accounts,
) -> None:
    for number in range(ADDRESS.free):
        assert guess(accounts, f"user{number}", "10.0.0.9", NOW) == 0
        if number % 5 == 0:
            assert isinstance(accounts.sign_in("root", GOOD, "10.0.0.9", NOW), Opened)
    assert guess(accounts, "another", "10.0.0.9", NOW) == 1000
    assert isinstance(accounts.sign_in("root", GOOD, "10.0.0.8", NOW), Opened)


def test_what_is_refused_for_being_early_is_not_counted(accounts: Accounts) -> None:
    for _ in range(NAME.free):
        guess(accounts, "ann", "10.0.0.1", NOW)
    assert [guess(accounts, "ann", "10.0.0.1", NOW + 10 * n) for n in range(5)] == [1000, 990, 980, 970, 960]


def test_an_hour_without_a_guess_forgets_them_and_enabling_does_at_once(accounts: Accounts) -> None:
    for _ in range(NAME.free):
        guess(accounts, "ann", "10.0.0.1", NOW)
    accounts.users.enable("ann", **BY)
    assert guess(accounts, "ann", "10.0.0.2", NOW) == 0
    for _ in range(NAME.free):
        guess(accounts, "ann", "10.0.0.1", NOW)
    later = NOW + FORGOTTEN_MS
    assert [guess(accounts, "ann", "10.0.0.3", later) for _ in range(NAME.free + 1)] == [0] * NAME.free + [1000]


def test_a_clock_that_is_set_back_makes_no_wait_longer(accounts: Accounts) -> None:
    for _ in range(NAME.free):
        guess(accounts, "ann", "10.0.0.1", NOW)
    assert guess(accounts, "ann", "10.0.0.1", NOW - 10 * FORGOTTEN_MS) == 1000


def test_guesses_that_are_sent_at_once_are_all_counted(accounts: Accounts) -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(guess(accounts, "ann", "10.0.0.1", NOW))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0] * NAME.free + [1000] * 15


def test_a_restart_forgets_no_guess(accounts: Accounts, settings: Settings) -> None:
    for _ in range(NAME.free):
        guess(accounts, "ann", "10.0.0.1", NOW)
    with Accounts(settings, QUICK) as other:
        assert guess(other, "ann", "10.0.0.1", NOW) == 1000


@given(st.integers(0, 10_000))
def test_the_wait_only_grows_and_has_an_end(failures: int) -> None:
    for limit in (NAME, ADDRESS):
        assert 0 <= wait_ms(failures, limit) <= wait_ms(failures + 1, limit) <= limit.most_ms


SAME = [("2001:db8::1", "2001:db8::ffff:2"), ("::ffff:10.0.0.1", "10.0.0.1"), ("fe80::1%eth0", "fe80::2")]
DIFFERENT = [("2001:db8:0:1::1", "2001:db8:0:2::1"), ("10.0.0.1", "10.0.0.2"), ("", "10.0.0.1")]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_addresses_of_one_owner_count_as_one(one: str, other: str) -> None:
    assert address_key(one) == address_key(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_addresses_of_different_owners_count_apart(one: str, other: str) -> None:
    assert address_key(one) != address_key(other)


class Counting(PasswordHasher):
    """Counts the hashes that are compared."""

    work = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        self.work += 1
        return super().verify(hash, password)


@pytest.mark.parametrize("name", ["ann", "nobody", "robot", "disabled", "<no name>"])
def test_the_work_of_a_guess_does_not_tell_who_is_there(settings: Settings, name: str) -> None:
    hasher = Counting(time_cost=1, memory_cost=8, parallelism=1)
    with Accounts(settings, Passwords(hasher)) as accounts:
        for known, password in (("root", GOOD), ("ann", GOOD), ("disabled", GOOD), ("robot", None)):
            accounts.users.add(known, "analyst", password, **BY)
        accounts.users.disable("disabled", **BY)
        guess(accounts, name, "10.0.0.1", NOW)
        assert hasher.work == 1
