"""How long the next guess of a password has to wait: by user name, and by the address that it comes from.
A guess is counted before it is judged, so guesses that are sent at once are counted, too."""

import ipaddress
import sqlite3
from dataclasses import dataclass

from streams.access.database import Database


@dataclass(frozen=True, slots=True)
class Limit:
    """`free` wrong guesses cost nothing; from then on the wait doubles with each, from a second to `most_ms`."""

    free: int
    most_ms: int


NAME = Limit(5, 5 * 60_000)
ADDRESS = Limit(20, 15 * 60_000)  # many people may share one
FORGOTTEN_MS = 60 * 60_000


def wait_ms(failures: int, limit: Limit) -> int:
    """After so many wrong guesses, until the next may be made."""
    if failures < limit.free:
        return 0
    return min(limit.most_ms, 1000 << min(failures - limit.free, 30))


def address_key(address: str) -> str:
    """Of IPv6 the network: its owner has all the addresses in it."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return f"address {address[:64]}"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return f"address {found.ipv4_mapped}"
        return f"address {ipaddress.ip_network((found, 64), strict=False)}"
    return f"address {found}"


def name_key(name: str) -> str:
    return f"name {name}"


class Attempts:
    """The counts, in the file: a restart forgets nothing, and all processes count together."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, name: str, address: str, now_ms: int) -> int:
        """0: judge it; it counts as wrong until `succeeded` says otherwise. Else how many ms it is too early."""
        keys = _keys(name, address)
        with self._database.change() as connection:
            connection.execute("DELETE FROM attempts WHERE last_at <= ?", (now_ms - FORGOTTEN_MS,))
            left = max(_left(connection, key, limit, now_ms) for key, limit in keys)
            if left:
                return left
            for key, _ in keys:
                connection.execute(
                    "INSERT INTO attempts VALUES (?, 1, ?) ON CONFLICT (key) "
                    "DO UPDATE SET failures = failures + 1, last_at = excluded.last_at",
                    (key, now_ms),
                )
        return 0

    def succeeded(self, name: str, address: str) -> None:
        """The name's guesses are forgotten; of the address, only this one: it may be guessing at others."""
        with self._database.change() as connection:
            forget_name(connection, name)
            key = address_key(address)
            connection.execute("UPDATE attempts SET failures = max(0, failures - 1) WHERE key = ?", (key,))


def forget_name(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM attempts WHERE key = ?", (name_key(name),))


def _keys(name: str, address: str) -> list[tuple[str, Limit]]:
    by_address = (address_key(address), ADDRESS)
    return [(name_key(name), NAME), by_address] if name else [by_address]


def _left(connection: sqlite3.Connection, key: str, limit: Limit, now_ms: int) -> int:
    row = connection.execute("SELECT failures, last_at FROM attempts WHERE key = ?", (key,)).fetchone()
    if row is None:
        return 0
    wait, last_at = wait_ms(row[0], limit), int(row[1])
    # A clock that was set back must not make it longer.
    return max(0, min(wait, last_at + wait - now_ms))
