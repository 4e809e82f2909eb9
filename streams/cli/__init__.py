"""The command `headrace`: one file per group of commands; each imports what it needs when it runs.
So `headrace version` does not wait for the libraries of `headrace worker`."""

import sys

import typer

from streams.cli import (
    audit,
    backfill,
    broker,
    capacity,
    catalog,
    config,
    console,
    data,
    deadletters,
    doctor,
    learn,
    lists,
    mapping,
    pointers,
    policy,
    privacy,
    releases,
    run,
    shrinking,
    sources,
    topics,
    tracing,
    traffic,
    training,
    tuning,
    users,
    webhooks,
)
from streams.cli.frame import Commands, Options

app = typer.Typer(
    cls=Commands,
    name="headrace",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.add_typer(broker.app, name="broker")
app.add_typer(topics.app, name="topics")
app.add_typer(deadletters.app, name="deadletters")
app.add_typer(catalog.app, name="catalog")
app.add_typer(data.app, name="data")
pointers.register(releases.app)
app.add_typer(releases.app, name="releases")
app.add_typer(learn.app, name="learn")
app.add_typer(policy.app, name="policy")
app.add_typer(lists.app, name="lists")
app.add_typer(mapping.app, name="mapping")
app.add_typer(users.app, name="users")
app.add_typer(audit.app, name="audit")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(config.app, name="config")
run.register(app)
capacity.register(app)
doctor.register(app)
console.register(app)
traffic.register(app)
tracing.register(app)
privacy.register(app)
sources.register(app)
backfill.register(app)
training.register(app)
tuning.register(app)
shrinking.register(app)


@app.callback()
def root(
    context: typer.Context,
    config_file: str = typer.Option(
        "", "--config", metavar="FILE", help="TOML file; else HEADRACE_CONFIG, else ./headrace.toml."
    ),
    debug: bool = typer.Option(False, "--debug", help="On an error, show the traceback too."),
    tenant: str = typer.Option("", "--tenant", metavar="NAME", help="The shop, where several share brokers."),
) -> None:
    """Scores a shop's orders, clicks and ad impressions from Kafka to Kafka.

    Settings come from a TOML file and from variables HEADRACE_*, for example `HEADRACE_BROKERS=kafka1:9092`;
    `headrace config show` lists them, with the source of each value.

    Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted.

    A first round on this machine, after `headrace demo` has trained the first models:

        headrace broker start
        headrace topics create
        headrace simulate --seconds 300 &
        headrace catalog encode &
        headrace worker &
        headrace tail scores.fraud --table
    """
    context.obj = Options(config_file=config_file or None, debug=debug, tenant=tenant)


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        print(f"headrace {installed('headrace')}")
    except PackageNotFoundError:
        print("headrace (from source)")


def main() -> None:
    """What streams.__main__ runs."""
    sys.exit(app())
