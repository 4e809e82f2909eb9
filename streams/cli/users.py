"""`headrace users`: who may use the console, by password or by token, and what each may do.
A password comes from a prompt or from stdin, never from the command line, where others could read it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from schemas.errors import HeadraceError, SettingsError
from streams.cli.frame import JSON_OPTION, load_settings, one_line, open_registry, print_json, print_table

if TYPE_CHECKING:
    from streams.access.accounts import Accounts
    from streams.config import Settings

app = typer.Typer(no_args_is_help=True, help="Say who may use the console, and what each may do.")

NAME_ARGUMENT = typer.Argument(metavar="NAME")
ONLY_OPTION = typer.Option([], help="An action that it is narrowed to, such as score; several times.")
ROLE_ARGUMENT = typer.Argument(metavar="ROLE", help="viewer, analyst, operator or admin.")


@app.command()
def add(
    context: typer.Context,
    name: str = NAME_ARGUMENT,
    role: str = typer.Option("viewer", help="viewer, analyst, operator or admin."),
    no_password: bool = typer.Option(False, "--no-password", help="For a service, which has tokens."),
) -> None:
    """Add a user. The password is asked for; with a pipe it is the first line of stdin.

    Examples:

        headrace users add alice --role analyst
        headrace users add checkout --role operator --no-password
    """
    with _accounts(context) as (accounts, by):
        password = None if no_password else _password()
        user = accounts.users.add(name, role, password, by=by, now_ms=_now_ms())
        print(f"{user.name} is {user.role}")


@app.command("list")
def list_(context: typer.Context, json: bool = JSON_OPTION) -> None:
    """List the users, their roles, and when each logged in last.

    Example:

        headrace users list
    """
    with _accounts(context) as (accounts, _):
        users = accounts.users.all()
    if json:
        rows = [{"name": u.name, "role": u.role, "password": bool(u.hash), "disabled": u.disabled} for u in users]
        times = [{"made_at": user.made_at, "seen_at": user.seen_at} for user in users]
        print_json([row | more for row, more in zip(rows, times, strict=True)])
    elif users:
        shown = [(u.name, u.role, _state(u.disabled, u.hash), _time(u.made_at), _time(u.seen_at)) for u in users]
        print_table(("name", "role", "", "made (UTC)", "last login (UTC)"), shown)
    else:
        print("no users yet: `headrace users add NAME --role admin`")


@app.command()
def role(context: typer.Context, name: str = NAME_ARGUMENT, role: str = ROLE_ARGUMENT) -> None:
    """Change what a user may do. Their sessions end, and they log in again; their tokens may no more than they.

    Example:

        headrace users role alice operator
    """
    with _accounts(context) as (accounts, by):
        accounts.users.set_role(name, role, by=by, now_ms=_now_ms())
        print(f"{name} is {role}")


@app.command()
def password(context: typer.Context, name: str = NAME_ARGUMENT) -> None:
    """Give a user another password. Their sessions end; their tokens stay.

    Examples:

        headrace users password alice
        headrace users password alice < new-password.txt
    """
    with _accounts(context) as (accounts, by):
        accounts.users.set_password(name, _password(), by=by, now_ms=_now_ms())
        print(f"{name} has another password")


@app.command()
def disable(context: typer.Context, name: str = NAME_ARGUMENT) -> None:
    """Let a user in no more: sessions end now, and tokens are refused.

    Example:

        headrace users disable alice
    """
    with _accounts(context) as (accounts, by):
        accounts.users.disable(name, by=by, now_ms=_now_ms())
        print(f"{name} is disabled")


@app.command()
def enable(context: typer.Context, name: str = NAME_ARGUMENT) -> None:
    """Let a user in again. This also ends the wait after wrong passwords.

    Example:

        headrace users enable alice
    """
    with _accounts(context) as (accounts, by):
        accounts.users.enable(name, by=by, now_ms=_now_ms())
        print(f"{name} is enabled")


@app.command()
def token(
    context: typer.Context,
    name: str = NAME_ARGUMENT,
    role: str = typer.Option("", help="At most the user's, which is the default."),
    only: list[str] = ONLY_OPTION,
    days: int = typer.Option(90, help="Until it ends."),
) -> None:
    """Make an API token for a user. It is shown once, alone on stdout; all else goes to stderr.

    Example:

        headrace users token checkout --only score --days 365
    """
    with _accounts(context) as (accounts, by):
        made, secret = accounts.tokens.make(name, role, days=days, only=only, by=by, now_ms=_now_ms())
        may = f"only {', '.join(made.only)}" if made.only else f"all that {made.role} may"
        print(f"token {made.id} of {made.user}: {may}, until {_time(made.ends_at)} UTC", file=sys.stderr)
        print(secret)


@app.command()
def tokens(
    context: typer.Context,
    name: str = typer.Argument("", metavar="[NAME]", help="Of one user; else of all."),
    json: bool = JSON_OPTION,
) -> None:
    """List tokens: whose each is, what it may do, when it ends and when it was used last. Not the tokens themselves.

    Example:

        headrace users tokens
    """
    from dataclasses import asdict

    with _accounts(context) as (accounts, _):
        found = accounts.tokens.all(name)
    if json:
        print_json([asdict(each) for each in found])
        return
    rows = [(t.id, t.user, t.role, ", ".join(t.only), _ending(t.ends_at), _time(t.used_at)) for t in found]
    print_table(("id", "user", "role", "only", "until (UTC)", "last used (UTC)"), rows)


@app.command()
def revoke(context: typer.Context, token_id: str = typer.Argument(metavar="ID")) -> None:
    """End a token, now.

    Example:

        headrace users revoke 1f3a9c02
    """
    with _accounts(context) as (accounts, by):
        accounts.tokens.revoke(token_id, by=by, now_ms=_now_ms())
        print(f"token {token_id} is revoked")


@contextmanager
def _accounts(context: typer.Context) -> "Iterator[tuple[Accounts, str]]":
    """The accounts and who changes them; what was changed goes into the audit log afterwards."""
    settings = load_settings(context)
    from streams.access.accounts import Accounts
    from streams.audit.pseudonyms import shell_user

    with Accounts(settings) as accounts:
        yield accounts, shell_user()
        if accounts.changes.waiting():
            _send(settings, accounts)


def _send(settings: "Settings", accounts: "Accounts") -> None:
    """A right that was taken away is away, also where the log cannot be written: then the change waits for it."""
    sys.stdout.flush()
    try:
        from streams.audit.accounts import send_changes
        from streams.audit.log import Audit
        from streams.clients import require_broker

        require_broker(settings)
        with open_registry(settings) as registry:
            send_changes(accounts, Audit(settings, registry), _now_ms())
        why = "another process is sending"
    except HeadraceError as error:
        why = one_line(error)
    if left := accounts.changes.waiting():
        print(f"done, and not yet in the audit log: {why}", file=sys.stderr)
        print(f"{left} kept for the next `headrace users` or console that reaches a broker", file=sys.stderr)


def _password() -> str:
    """Twice from a terminal, once from a pipe."""
    from streams.access.passwords import checked_password

    if _at_terminal():
        checked: Callable[[str], str] = checked_password
        found = checked(typer.prompt("password", hide_input=True, err=True))
        if typer.prompt("once more", hide_input=True, err=True) != found:
            raise SettingsError("the two are not the same", where="password")
        return found
    return checked_password(sys.stdin.readline().rstrip("\r\n"))


def _at_terminal() -> bool:
    return sys.stdin.isatty()


def _state(disabled: bool, hashed: str) -> str:
    return "disabled" if disabled else "" if hashed else "no password"


def _ending(ends_at: int) -> str:
    return _time(ends_at) if ends_at > _now_ms() else f"{_time(ends_at)}, over"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M") if ms else ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
