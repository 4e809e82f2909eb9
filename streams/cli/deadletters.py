"""`headrace deadletters`: what could not be used, why, and the way home once that is mended.
An event that is brought home counts once, however often it is replayed."""

import json as json_text
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import BadRecord, SettingsError
from streams.cli.audited import write_down
from streams.cli.frame import FAILED, JSON_OPTION, Ticker, load_settings, open_registry, print_json, print_table

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.deadletters import DeadLetters, Letter, Selection

app = typer.Typer(no_args_is_help=True, help="Look at bad input, and bring it home.")

REASONS = ", ".join(BadRecord.CODES)

Codes = Annotated[
    list[str] | None, typer.Option("--code", help=f"Only of this reason; may be given again. Reasons are {REASONS}.")
]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="Only of this topic; may be given again.")]
Since = Annotated[str, typer.Option(metavar="TIME", help="Only of this time or later, ISO 8601, UTC.")]
SHOWN_BYTES = 256


@app.command("list")
def list_(
    context: typer.Context,
    code: Codes = None,
    topic: Topics = None,
    since: Since = "",
    home: Annotated[bool, typer.Option("--home", help="Also those that were brought home.")] = False,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="The first N; 0: all.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with the bytes.")] = False,
) -> None:
    """List dead letters that are not home yet: id, when, from where, and why.

    Examples:

        headrace deadletters list --code unknown_schema
        headrace deadletters list --topic events.orders --since 2026-01-31 --json | jq .message
    """
    settings = load_settings(context)
    selection = _selection(settings, code, topic, since, home=home)
    rows = []
    with _letters(settings) as letters:
        for letter in islice(letters.find(selection), limit or None):
            if json:
                print(json_text.dumps(_row(letter), ensure_ascii=False))
            else:
                rows.append(_brief(letter))
    if not json:
        print_table(("id", "failed at", "from", "reason", "message"), rows)


@app.command()
def show(
    context: typer.Context,
    letter: str = typer.Argument(metavar="ID", help="partition:offset, as the list shows it."),
    raw: bool = typer.Option(False, "--raw", help="Only the original value, as it came, to stdout."),
    json: bool = JSON_OPTION,
) -> None:
    """Show one dead letter: what is wrong, what was expected, what to do, and its bytes.

    Examples:

        headrace deadletters show 0:17
        headrace deadletters show 0:17 --raw | xxd
    """
    settings = load_settings(context)
    with _letters(settings) as letters:
        found = letters.show(letter)
    if raw:
        sys.stdout.buffer.write(found.record["value"] or b"")
    elif json:
        print_json(_row(found))
    else:
        row = {**_row(found), "value": _dump(found.record["value"])}
        print_table(("", f"dead letter {found.id}"), list(row.items()))


@app.command()
def replay(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="These; else by the options.")] = None,
    code: Codes = None,
    topic: Topics = None,
    since: Since = "",
    everything: Annotated[bool, typer.Option("--all", help="All that are not home yet.")] = False,
    json: bool = JSON_OPTION,
) -> None:
    """Publish the original messages again, to the topics they came from, once what was wrong is mended.

    Each is sent home once; one that fails again is a new dead letter. Interrupted, it goes on where it was.

    Examples:

        headrace deadletters replay --code unknown_schema
        headrace deadletters replay 0:17 2:4
        headrace deadletters replay --all --json
    """
    if not (ids or code or topic or since or everything):
        raise typer.BadParameter("say which: ids, --code, --topic, --since, or --all")
    settings = load_settings(context)
    selection = _selection(settings, code, topic, since, ids=ids)
    ticker = Ticker("steps")
    with open_registry(settings) as registry:
        write_down(settings, registry, "letters.replay", settings.topics.deadletters, ids=ids or [], all=everything)
    with _letters(settings) as letters:
        done = letters.replay(selection, ticker.tick)
    ticker.end()
    if json:
        print_json({"sent": done.sent, "refusals": done.refusals, "refused": dict(done.refused)})
    else:
        print(f"{done.sent} brought home, {done.refusals} stay")
        for letter, why in done.refused:
            print(f"stays: {letter}: {why}", file=sys.stderr)
    if done.refusals:
        raise typer.Exit(FAILED)


@contextmanager
def _letters(settings: "Settings") -> Iterator["DeadLetters"]:
    from streams.clients import require_broker
    from streams.deadletters import DeadLetters

    require_broker(settings)
    with open_registry(settings) as registry:
        yield DeadLetters(settings, registry)


def _selection(
    settings: "Settings",
    codes: list[str] | None,
    topics: list[str] | None,
    since: str,
    *,
    ids: list[str] | None = None,
    home: bool = False,
) -> "Selection":
    from streams.contracts import topic_contract
    from streams.deadletters import Selection

    for code in codes or ():
        if code not in BadRecord.CODES:
            raise SettingsError(f"no reason {code!r}", expected=f"one of {REASONS}")
    names = frozenset(topic_contract(settings, topic).name for topic in topics or ())
    return Selection(
        codes=frozenset(codes or ()),
        topics=names,
        ids=frozenset(ids or ()),
        since=_milliseconds(since),
        home=home,
    )


def _milliseconds(moment: str) -> int:
    if not moment:
        return 0
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError as error:
        raise SettingsError(f"not a time: {moment!r}", expected="ISO 8601 such as 2026-01-31T12:00") from error
    return round(parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp() * 1000)


def _row(letter: "Letter") -> dict[str, Any]:
    from schemas.values import to_json

    return {"id": letter.id, "home": letter.home, **to_json("dead_letter", letter.record)}


def _brief(letter: "Letter") -> tuple[str, ...]:
    record = letter.record
    failed = datetime.fromtimestamp(record["failed_at"] / 1000, UTC).isoformat(" ", "seconds")[:19]
    place = f"{record['topic']}[{record['partition']}]@{record['offset']}"
    reason = record["code"] + (", home" if letter.home else "") + (", cut" if letter.cut else "")
    return letter.id, failed, place, reason, record["message"]


def _dump(value: bytes | None) -> str:
    """The first bytes in hexadecimal and as text."""
    if value is None:
        return "none"
    lines = []
    for at in range(0, min(len(value), SHOWN_BYTES), 16):
        part = value[at : at + 16]
        plain = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{at:04x}  {part.hex(' '):47}  {plain}")
    more = f"… {len(value)} bytes in all (--raw)" if len(value) > SHOWN_BYTES else f"{len(value)} bytes"
    return "\n".join([*lines, more])
