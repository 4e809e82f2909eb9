"""`headrace doctor` and `headrace rights`: what is wrong with an installation, and what each role must be allowed.
Both only ask, and change nothing."""

from dataclasses import asdict

import typer

from schemas.errors import SettingsError
from streams.cli.frame import FAILED, JSON_OPTION, load_settings, print_json, print_table

MARKS = {"well": "ok", "warning": "!", "problem": "X", "skipped": "-"}


def register(app: typer.Typer) -> None:
    app.command()(doctor)
    app.command()(rights)


def doctor(
    context: typer.Context,
    json: bool = JSON_OPTION,
    everything: bool = typer.Option(False, "--all", help="Also what is well."),
) -> None:
    """Find what is wrong, and say what to do: disk, ports, engine, releases, traces, broker, registry, clocks, topics,
    rights, the partitioner of what producers have sent, and their contracts.

    Exit codes: 0 nothing is wrong (there may be warnings), 1 something is, 2 the settings cannot be used.

    Examples:

        headrace doctor
        headrace doctor --all --json
    """
    settings = load_settings(context)
    from streams.doctor import examine

    found = list(examine(settings))
    shown = [each for each in found if everything or each.state in ("warning", "problem")]
    problems = sum(each.state == "problem" for each in found)
    if json:
        print_json([asdict(each) for each in shown])
    else:
        print_table(("", "check", "found", "what to do"), [(MARKS[e.state], e.check, e.says, e.todo) for e in shown])
        checks = len({each.check for each in found})
        warnings = sum(each.state == "warning" for each in found)
        print(f"{checks} checks: {problems} problems, {warnings} warnings")
    if problems:
        raise typer.Exit(FAILED)


def rights(
    context: typer.Context,
    role: str = typer.Argument(metavar="ROLE", help="worker, learner, publisher, consumer, webhooks or tenant."),
    principal: str = typer.Option("User:headrace", "--principal", help="As the broker knows who it is."),
    json: bool = JSON_OPTION,
) -> None:
    """Print the least that a role must be allowed, as commands for who administers the cluster.

    Examples:

        headrace rights worker --principal User:headrace-worker
        headrace rights publisher --principal User:shop --json
    """
    settings = load_settings(context)
    from streams.rights import ROLES, commands

    if role not in ROLES:
        raise SettingsError(f"no role {role!r}", where="ROLE", expected=f"one of {', '.join(ROLES)}")
    if json:
        print_json([asdict(right) for right in ROLES[role](settings)])
        return
    for line in commands(settings, role, principal):
        print(line)
