"""Accounts of a test: quick hashes, two users, and a time that stands still."""

from typing import Any

from argon2 import PasswordHasher

from streams.access.accounts import Accounts
from streams.access.passwords import Passwords
from streams.access.sessions import Opened
from streams.config import Settings

QUICK = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
GOOD, OTHER = "correct horse battery", "staple staple staple"
NOW = 1_800_000_000_000
MINUTE, HOUR = 60_000, 3_600_000
BY: Any = {"by": "shell:root", "now_ms": NOW}


def open_accounts(settings: Settings) -> Accounts:
    """With an admin, root, and an analyst, ann; each of the password GOOD."""
    accounts = Accounts(settings, QUICK)
    for name, role in (("root", "admin"), ("ann", "analyst")):
        accounts.users.add(name, role, GOOD, **BY)
    return accounts


def signed_in(accounts: Accounts, name: str = "ann", password: str = GOOD, now_ms: int = NOW) -> Opened:
    opened = accounts.sign_in(name, password, "10.0.0.1", now_ms)
    assert isinstance(opened, Opened)
    return opened
