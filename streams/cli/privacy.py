"""`headrace forget`: what we have of a person is deleted, with a receipt; what is the shop's to delete is said.
It works from anywhere that reaches the broker; workers, the learner and consoles do their part by themselves."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.frame import FAILED, JSON_OPTION, load_settings, open_registry, print_json, print_table

if TYPE_CHECKING:
    from streams.config import Settings


def register(app: typer.Typer) -> None:
    app.command()(forget)
    app.command()(pseudonym)


def forget(
    context: typer.Context,
    user: str = typer.Argument("", metavar="USER", help="The user_id, as the shop has it; or its pseudonym."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what there is of them; delete nothing."),
    wait: float = typer.Option(300.0, "--wait", min=0, metavar="SECONDS", help="For each of what has to answer."),
    verify: str = typer.Option("", "--verify", metavar="FILE", help="Look whether this is a receipt that was given."),
    search: bool = typer.Option(False, "--search", help="Read all topics and files here, and say which name them."),
    json: bool = JSON_OPTION,
) -> None:
    """Delete what we have of a person: state, scores' records, examples, alerts, dead letters. Ends with a receipt.

    The receipt says what was deleted where, what ends by itself and when, which of the shop's own topics name the
    person, and which releases have learned from them. Its digest is in the audit log. Where something has not answered
    yet, the exit code is 1, and the same call goes on from there. Who comes back later is a new person. Who has a
    pseudonym under each of several keys is forgotten under each that anything is known of: a receipt for each.

    Examples:

        headrace forget user-17 --dry-run
        headrace forget user-17 --json > receipt.json
        headrace forget --verify receipt.json
        headrace forget user-17 --search
    """
    settings = load_settings(context)
    from schemas.errors import SettingsError
    from streams.clients import require_broker

    if bool(user) == bool(verify):
        raise SettingsError("one of USER and --verify FILE", where="headrace forget", expected="whom to forget")
    require_broker(settings)
    if verify:
        _verify(settings, verify)
    elif search:
        _search(settings, user, json)
    else:
        _forget(settings, user, wait, dry_run=dry_run, json=json)


def pseudonym(
    context: typer.Context,
    field: str = typer.Argument(metavar="FIELD", help="A field of `privacy.pseudonymise`, such as email."),
    value: str = typer.Argument(metavar="VALUE", help="As events have it."),
) -> None:
    """Print what a value is called, under each key that is known; the one that is used comes first.

    Lists and rules see pseudonyms: this is how a card of the shop's is put on a list.

    Example:

        headrace pseudonym payment.instrument tok_4f1c
    """
    settings = load_settings(context)
    from schemas.errors import SettingsError
    from streams.privacy.pseudonyms import KINDS, pseudonyms

    known = pseudonyms(settings)
    if known is None or field not in settings.privacy.pseudonymise:
        chosen = ", ".join(settings.privacy.pseudonymise) or "none are set"
        raise SettingsError(f"{field} is kept as it is", where="privacy.pseudonymise", expected=f"one of: {chosen}")
    for token in known.tokens(KINDS[field], value):
        print(token)


def _forget(settings: "Settings", user: str, wait: float, *, dry_run: bool, json: bool) -> None:
    from streams.cli.releases import open_store
    from streams.privacy.forget import Forget
    from streams.privacy.names import forgotten_as

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"  {text}", file=sys.stderr)

    with open_registry(settings) as registry:
        store, receipts = open_store(settings), list[dict[str, Any]]()
        for name, known_as in forgotten_as(settings, registry, user):
            one = Forget(settings, registry, store, name, known_as=known_as, wait_s=wait, say=say)
            receipts.append(one.dry_run() if dry_run else one.run())
    if json:
        print_json(receipts[0] if len(receipts) == 1 else receipts)
    else:
        for said in receipts:
            _print(said)
    if any(said["open"] for said in receipts) and not dry_run:
        raise typer.Exit(FAILED)


def _verify(settings: "Settings", path: str) -> None:
    from schemas.errors import DataUnavailable
    from streams.privacy.receipt import read, verified

    try:
        text = Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise DataUnavailable(f"the receipt cannot be read: {error}", where=path) from error
    receipts = read(text, path)
    with open_registry(settings) as registry:
        wrong = [found for said in receipts if (found := verified(settings, registry, said))]
    if wrong:
        print(f"no: {wrong[0]}")
        raise typer.Exit(FAILED)
    for said in receipts:
        print(f"yes: receipt {said['receipt']} was given; `headrace audit verify` says whether the log still holds")


def _search(settings: "Settings", user: str, json: bool) -> None:
    from streams.privacy.pseudonyms import names_of
    from streams.privacy.search import search

    found = search(settings, *dict.fromkeys((user, *names_of(settings, user))))
    if json:
        print_json([hit._asdict() for hit in found])
    else:
        print_table(("where", "of", "records or files"), [(hit.where, hit.of, hit.number) for hit in found])
    if any(hit.of == "headrace" for hit in found):
        raise typer.Exit(FAILED)


def _print(said: dict[str, Any]) -> None:
    print(f"receipt {said['receipt']}, asked for {_time(said['asked_at'])}")
    print_table(("deleted from", "records"), list(said["deleted"].items()) or [("nothing", "")])
    if said["ends_by_itself"]:
        rows = [(topic, one["records"], _time(one["until"])) for topic, one in said["ends_by_itself"].items()]
        print_table(("ends by itself", "records", "gone after"), rows)
    if said["of_the_shop"]:
        print_table(("the shop's to delete", "records"), list(said["of_the_shop"].items()))
    if said["releases_that_learned"]:
        print(f"releases that have learned from them: {', '.join(said['releases_that_learned'])}")
    for line in said["open"]:
        print(f"open: {line}")
    print(f"digest {said['digest']}")


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
