"""`headrace publish` and `headrace tail`: events in, scores out.
Both are clients like any other; the worker knows nothing of them."""

import json as json_text
import sys
from contextlib import nullcontext
from typing import Annotated

import typer

from streams.cli.frame import JSON_OPTION, Ticker, load_settings, open_registry, print_json


def register(app: typer.Typer) -> None:
    app.command()(publish)
    app.command()(tail)


def publish(
    context: typer.Context,
    topic: str = typer.Argument(metavar="TOPIC", help="events.clicks, events.orders, catalog.items, ..."),
    source: str = typer.Argument(metavar="FILE", help="NDJSON or Parquet; - for NDJSON on stdin."),
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Leave bad rows out, count them, and go on."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Validate only; needs no broker and no registry."),
    replayed: bool = typer.Option(False, "--replayed", help="Old events: none is late, however long it waits."),
    json: bool = JSON_OPTION,
) -> None:
    """Publish rows as Avro records, each validated against its contract first.

    A file is validated whole before anything is sent, so a bad row means that nothing was published. Rows on
    stdin are sent as they come: a bad one ends it, and the rows before it are published. Keys and partitions
    are as Java clients make them. An event that is published twice counts once, by its event_id.

    Times are ISO 8601 or epoch milliseconds, amounts are numbers or strings.

    Examples:

        headrace publish events.orders orders.parquet
        headrace publish events.clicks clicks.ndjson --skip-bad --json
        zcat clicks.ndjson.gz | headrace publish events.clicks -
    """
    settings = load_settings(context)
    from schemas.registry import MemoryRegistry
    from streams.publish import publish as publish_rows
    from streams.work import REPLAYED

    ticker = Ticker("rows")
    with nullcontext(MemoryRegistry()) if dry_run else open_registry(settings) as registry:
        summary = publish_rows(
            settings,
            registry,
            topic,
            source,
            skip_bad=skip_bad,
            dry_run=dry_run,
            headers=[(REPLAYED, b"1")] if replayed else [],
            advance=ticker.tick,
        )
    ticker.end()
    skipped = summary.bad.total()
    if json:
        print_json(
            {
                "topic": summary.topic,
                "rows": summary.rows,
                "published": summary.published,
                "skipped": skipped,
                "bad": dict(summary.bad),
                "examples": summary.examples,
            }
        )
        return
    for example in summary.examples:
        print(f"skipped: {example}", file=sys.stderr)
    codes = ", ".join(f"{count} {code}" for code, count in summary.bad.items())
    done = f"{summary.rows - skipped} are good" if dry_run else f"{summary.published} published"
    print(f"{summary.topic}: {summary.rows} rows, {done}" + (f", {skipped} skipped ({codes})" if skipped else ""))


def tail(
    context: typer.Context,
    topics: Annotated[list[str], typer.Argument(metavar="TOPIC...", help="Any topic: scores.fraud, served.ctr, ...")],
    table: bool = typer.Option(False, "--table", help="One line in words for each; else NDJSON."),
    from_beginning: bool = typer.Option(False, "--from-beginning", help="From the oldest record; else new ones only."),
    follow: bool = typer.Option(True, "--follow/--no-follow", help="--no-follow: stop where the topic ends now."),
    limit: int = typer.Option(0, min=0, metavar="N", help="Stop after N records; 0: never."),
    seconds: float = typer.Option(0, min=0, metavar="S", help="Stop after S seconds; 0: never."),
) -> None:
    """Show scores as they come, or the records of any other topic, as NDJSON or in words.

    Topics of ours are read by their contracts, any other by the schema that the registry has of each record.
    It commits nothing and joins no group: run it whenever you like. A record that cannot be decoded is shown
    with `error` and its bytes.

    Examples:

        headrace tail scores.fraud --table
        headrace tail scores.fraud scores.ctr --limit 10 | jq .value.probability
        headrace tail alerts.fraud --from-beginning --no-follow
    """
    settings = load_settings(context)
    from streams.tail import Reader, contracts_of, line
    from streams.tail import tail as follow_topics

    contracts = {found.name: found for found in contracts_of(settings, topics)}
    with open_registry(settings) as registry:
        reader = Reader(list(contracts.values()), registry)
        for message in follow_topics(
            settings,
            list(contracts),
            from_beginning=from_beginning,
            follow=follow,
            limit=limit or None,
            seconds=seconds or None,
        ):
            row, contract = reader(message), contracts[message.topic].contract
            print(line(row, contract) if table else json_text.dumps(row, ensure_ascii=False), flush=True)
