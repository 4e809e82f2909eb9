"""`headrace console`: the pages where people work with alerts, and see and steer what the system does.
It listens on 127.0.0.1 unless the settings say otherwise, and lets nobody in whom it does not know."""

import asyncio
import time
from contextlib import closing
from typing import TYPE_CHECKING

import typer

from schemas.errors import SettingsError
from streams.cli.frame import load_settings, open_registry
from streams.signals import hear

if TYPE_CHECKING:
    from schemas.registry import Registry
    from streams.access.accounts import Accounts

MINUTES = 10


def register(app: typer.Typer) -> None:
    app.command()(console)


def console(
    context: typer.Context,
    one_time_login: str = typer.Option(
        "", metavar="ROLE", help="Print a link that logs in once, as viewer, analyst, operator or admin."
    ),
    only_link: bool = typer.Option(False, "--only-link", help="Print the link and end: the console runs already."),
) -> None:
    """Serve the console until stopped: alerts, cases and verdicts, rates, quality, releases, policies, audit.

    Add users with `headrace users add`, or log in once by a link. Alerts, labels and verdicts are read from their
    topics into `console` in `data_dir`, and read anew if that is deleted; notes are kept there alone.

    Examples:

        headrace console
        headrace console --one-time-login analyst
        headrace console --one-time-login admin --only-link
    """
    settings = load_settings(context, service=not only_link)
    from streams.access.accounts import Accounts
    from streams.console.service import Console, address, serve

    if only_link:
        if not (one_time_login and settings.console.port):
            raise SettingsError("no link to print", expected="--one-time-login ROLE, and a console.port that is not 0")
        with Accounts(settings) as accounts:
            print(_link(accounts, address(settings.console.host, settings.console.port), one_time_login))
        return

    async def run(registry: "Registry") -> None:
        stop = asyncio.Event()
        hear(asyncio.get_running_loop(), stop.set)  # first: what is begun from now on is ended in order
        with closing(Console(settings, registry)) as running:
            await serve(running, settings, lambda where: _said(running.accounts, where, one_time_login), stop)

    with open_registry(settings) as registry:
        asyncio.run(run(registry))


def _said(accounts: "Accounts", where: str, one_time_login: str) -> None:
    print(f"the console is at {where}", flush=True)
    if one_time_login:
        link = _link(accounts, where, one_time_login)
        print(f"this link logs in once, within {MINUTES} minutes: {link}", flush=True)
    elif not accounts.names():
        print("there are no users yet: `headrace users add NAME --role admin`, or --one-time-login ROLE", flush=True)


def _link(accounts: "Accounts", where: str, role: str) -> str:
    from streams.audit.pseudonyms import shell_user

    code = accounts.login_code(role, by=shell_user(), now_ms=time.time_ns() // 1_000_000, minutes=MINUTES)
    return f"{where}/login/once?code={code}"
