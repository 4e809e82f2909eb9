"""`headrace topics`: what the topics must be, and what the cluster has of them.
Nothing here changes a topic that exists."""

from dataclasses import asdict

import typer

from streams.cli.frame import FAILED, JSON_OPTION, load_settings, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Create and list the topics.")


@app.command()
def create(context: typer.Context, json: bool = JSON_OPTION) -> None:
    """Create the topics that are missing; safe to run again.

    Names, partitions and replication are settings (`topics.*`, `partitions`, `replication`). A topic that
    exists and differs in a way that matters is reported, left alone, and makes the exit code 1. Timestamps
    that are not the broker's are a warning only.

    Example:

        HEADRACE_PARTITIONS=12 HEADRACE_REPLICATION=3 headrace topics create
    """
    settings = load_settings(context)
    from streams.clients import require_broker
    from streams.topics import create_topics

    require_broker(settings)
    report = create_topics(settings)
    if json:
        print_json(asdict(report))
    else:
        print(f"{len(report.created)} created, {len(report.present)} were there, on {settings.brokers}")
        for problem in report.problems:
            print(f"problem: {problem}")
        for warning in report.warnings:
            print(f"warning: {warning}")
    if report.problems:
        raise typer.Exit(FAILED)


@app.command("list")
def list_(context: typer.Context, json: bool = JSON_OPTION) -> None:
    """List the topics as the cluster has them, with what is wrong with them.

    Example:

        headrace topics list --json
    """
    settings = load_settings(context)
    from streams.clients import require_broker
    from streams.topics import list_topics

    require_broker(settings)
    states = list_topics(settings)
    if json:
        print_json([asdict(state) for state in states])
        return
    rows = [(state.name, state.partitions, state.replication, state.problem or state.warning) for state in states]
    print_table(("topic", "partitions", "replication", "problem"), rows)
