"""`headrace audit`: who changed what, and whether the log of it is whole.
The log knows people by pseudonym; where the key and the accounts are, names are shown."""

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from schemas.errors import SettingsError
from streams.cli.frame import FAILED, JSON_OPTION, load_settings, open_registry, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.registry import Registry
    from streams.audit.chain import Entry, Head, Unreadable
    from streams.config import Settings

app = typer.Typer(no_args_is_help=True, help="See who changed what, and verify the log of it.")


@app.command()
def verify(
    context: typer.Context,
    head: str = typer.Option("", metavar="SEQUENCE:HASH", help="As an earlier run printed it, kept elsewhere."),
    json: bool = JSON_OPTION,
) -> None:
    """Read the whole log and check each entry's hash, its link to the one before, and that none is missing.

    An end that was cut off shows only to who knows what was there: this machine remembers the newest entry that it
    wrote or verified; --head is for one that you wrote down yourself.

    Examples:

        headrace audit verify
        headrace audit verify --json
    """
    settings = load_settings(context)
    from dataclasses import asdict

    from streams.audit.chain import verify as verified
    from streams.audit.log import read, remember_head, remembered_head

    known = _head(head) if head else remembered_head(settings)
    with _registry(settings) as registry:
        verdict = verified(read(settings, registry), known)
    broken = verdict.broken
    if json:
        print_json({**asdict(verdict), "head": str(verdict.head) if verdict.head else None})
    elif broken:
        print(f"broken: {broken.kind}: {broken.what}")
        print(f"{verdict.entries} entries before it hold")
    else:
        print(f"whole: {verdict.entries} entries" + (f"; head {verdict.head}" if verdict.head else ""))
    if broken:
        raise typer.Exit(FAILED)
    if verdict.head:
        remember_head(settings, verdict.head)


@app.command()
def tail(
    context: typer.Context,
    count: int = typer.Option(20, "-n", "--count", min=1, max=100_000, help="How many of the newest entries."),
    json: bool = JSON_OPTION,
) -> None:
    """Show the newest entries, oldest first.

    Examples:

        headrace audit tail
        headrace audit tail -n 100 --json
    """
    settings = load_settings(context)
    from streams.audit.log import newest

    with _registry(settings) as registry:
        found = newest(settings, registry, count)
    names = _names(settings)
    if json:
        print_json([_record(one, names) for one in found])
    else:
        columns = ("entry", "at (UTC)", "who", "action", "subject", "detail")
        print_table(columns, [_row(one, names) for one in found])


@app.command()
def who(context: typer.Context, pseudonym: str = typer.Argument(metavar="PSEUDONYM")) -> None:
    """Say whom a pseudonym of the log stands for: a user of the accounts here, or of this machine's shell.

    Example:

        headrace audit who 8c1f0d2e4b6a7795
    """
    settings = load_settings(context)
    found = _names(settings).get(pseudonym.strip().lower())
    if found is None:
        raise SettingsError(
            f"{pseudonym!r} is nobody known here",
            expected="a pseudonym of a user in `headrace users list`, or of one of this machine",
            todo="ask where the console runs: each folder of accounts has its own key",
        )
    print(found)


@contextmanager
def _registry(settings: "Settings") -> "Iterator[Registry]":
    from streams.clients import require_broker

    require_broker(settings)
    with open_registry(settings) as registry:
        yield registry


def _head(text: str) -> "Head":
    from streams.audit.chain import Head

    if (head := Head.parse(text)) is None:
        raise SettingsError(f"{text!r} is no head", where="--head", expected="SEQUENCE:HASH, as `verify` prints it")
    return head


def _names(settings: "Settings") -> dict[str, str]:
    from streams.access.accounts import Accounts
    from streams.access.places import access_folder
    from streams.audit.pseudonyms import Pseudonyms, shell_users

    with Accounts(settings) as accounts:
        return Pseudonyms(access_folder(settings)).names([*accounts.names(), *shell_users()])


def _row(one: "Entry | Unreadable", names: dict[str, str]) -> tuple[object, ...]:
    from streams.audit.chain import Unreadable

    if isinstance(one, Unreadable):
        return "", "", "", "unreadable", f"offset {one.offset}", one.why
    return one.sequence, _time(one.at), names.get(one.who, one.who), one.action, _named(one.subject, names), one.detail


def _record(one: "Entry | Unreadable", names: dict[str, str]) -> dict[str, Any]:
    from streams.audit.chain import Unreadable

    if isinstance(one, Unreadable):
        return {"offset": one.offset, "unreadable": one.why}
    return {"offset": one.offset, **one.record(), "name": names.get(one.who)}


def _named(subject: str, names: dict[str, str]) -> str:
    """A user who is the subject of a change is there by pseudonym, too."""
    kind, _, found = subject.partition(" ")
    return f"{kind} {names[found]}" if found in names else subject


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
