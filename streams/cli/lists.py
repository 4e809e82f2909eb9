"""`headrace lists show|add|remove`: users, cards, devices, addresses, emails and ips that rules
of a policy know, and items that are not to be recommended.
Workers know of a change with their next micro-batch."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from streams.cli.audited import write_down
from streams.cli.frame import JSON_OPTION, open_registry, print_json, print_table
from streams.cli.tracing import instant, reachable

if TYPE_CHECKING:
    from streams.config import Settings

app = typer.Typer(no_args_is_help=True, help="Block, allow and watch lists, as policies and recommendations read them.")
LIST = typer.Argument(metavar="LIST", help="block, allow or watch.")
WHAT = typer.Argument(metavar="TYPE:TOKEN", help="user, card, device, address, email, ip or item, and its token.")


@app.command()
def show(context: typer.Context, json: bool = JSON_OPTION) -> None:
    """Show what is on the lists, the newest last.

    Example:

        headrace lists show
    """
    settings = reachable(context)
    from dataclasses import asdict

    from streams.policy_lists import read_entries

    with open_registry(settings) as registry:
        entries = read_entries(settings, registry)
    if json:
        print_json([asdict(entry) for entry in entries])
        return
    rows = [
        (each.list, f"{each.type}:{each.token}", each.reason, "" if each.until is None else _time(each.until), each.by)
        for each in entries
    ]
    print_table(("list", "what", "reason", "until (UTC)", "by"), rows)


@app.command()
def add(
    context: typer.Context,
    name: str = LIST,
    what: str = WHAT,
    reason: str = typer.Option(..., "--reason", metavar="TEXT"),
    until: str = typer.Option("", "--until", metavar="TIME", help="ISO 8601, in event time; else until it is removed."),
) -> None:
    """Put something on a list, or change its reason and end.

    Example:

        headrace lists add block card:4f1c --reason chargeback --until 2026-12-31T00:00Z
    """
    end = instant(until, "--until") if until else None
    settings = reachable(context)
    from streams.policy_lists import Entry, ListWriter, checked

    kind, _, token = what.partition(":")
    checked(name, kind, token)
    with open_registry(settings) as registry:
        detail = {"type": kind, "token": _mark(settings, token), "until": end}
        by = write_down(settings, registry, "list.add", f"list {name}", **detail)
        entry = Entry(name, kind, token, reason, end, by, time.time_ns() // 1_000_000)
        ListWriter(settings, registry).put(entry)
    print(f"{what} is on the {name} list")


@app.command()
def remove(context: typer.Context, name: str = LIST, what: str = WHAT) -> None:
    """Take something off a list. It is no error if it was not on it.

    Example:

        headrace lists remove block card:4f1c
    """
    settings = reachable(context)
    from streams.policy_lists import ListWriter, checked

    kind, _, token = what.partition(":")
    checked(name, kind, token)
    with open_registry(settings) as registry:
        write_down(settings, registry, "list.remove", f"list {name}", type=kind, token=_mark(settings, token))
        ListWriter(settings, registry).take_off(name, kind, token)
    print(f"{what} is not on the {name} list")


def _mark(settings: "Settings", token: str) -> str:
    from streams.access.places import access_folder
    from streams.audit.pseudonyms import Pseudonyms

    return Pseudonyms(access_folder(settings)).of_token(token)


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
