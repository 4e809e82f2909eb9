"""`headrace releases live|promote|rollback|pin|history`: which model is live, how it came to be, and another choice.
What these commands move is the pointer on models.releases; a release itself never changes."""

import json
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from schemas.errors import SettingsError
from streams.cli.audited import write_down
from streams.cli.frame import JSON_OPTION, load_settings, open_registry, print_json, print_table
from streams.cli.releases import open_store, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.config import Settings
    from streams.pointers import Announcement, Pointer
    from streams.release_moves import ReleaseMoves


def register(app: typer.Typer) -> None:
    """Adds the commands to `headrace releases`."""
    for command in (live, promote, rollback, pin, history):
        app.command()(command)


def live(context: typer.Context, json: bool = JSON_OPTION) -> None:
    """Show what is live of each task, since when, and what it goes back to.

    Where nothing was ever made live, a worker takes the newest release of the store, and says so.

    Example:

        headrace releases live
    """
    settings = load_settings(context)
    from dataclasses import asdict

    from streams.clients import require_broker
    from streams.pointers import live_pointers

    require_broker(settings)
    found = live_pointers(settings)
    if json:
        print_json([asdict(pointer) for pointer in found.values()])
    else:
        rows = [_pointer_row(found[task]) for task in sorted(found)]
        print_table(("task", "live", "before", "epoch", "pinned", "since (UTC)"), rows)


def promote(
    context: typer.Context,
    release: str = typer.Argument(metavar="TASK/VERSION"),
    pin: bool = typer.Option(False, help="Pin it: then only a person moves the pointer, not the learner."),
) -> None:
    """Make a release live, by hand and past the gate. Its files are verified first; workers swap without a pause.

    A worker that cannot load it keeps what it has, and says so in its log.

    Example:

        headrace releases promote fraud/20260131T120000-1f3a9c02
    """
    settings = load_settings(context)
    task = release.partition("/")[0]
    _known(task, settings)
    found = opened(open_store(settings), release)
    with _moves(settings, "release.promote", f"{task}/{found.version}", pinned=pin) as moves:
        _say(moves.promote(task, found.version, pinned=pin))


def rollback(context: typer.Context, task: str = typer.Argument(metavar="TASK")) -> None:
    """Make the release before the live one live again. Once more, and the one you left is back.

    Example:

        headrace releases rollback fraud
    """
    settings = load_settings(context)
    _known(task, settings)
    with _moves(settings, "release.rollback", task) as moves:
        _say(moves.roll_back(task))


def pin(
    context: typer.Context,
    task: str = typer.Argument(metavar="TASK"),
    off: bool = typer.Option(False, "--off", help="Let the learner move it again."),
) -> None:
    """Pin what is live of a task: the learner neither replaces it nor rolls it back.

    Examples:

        headrace releases pin fraud
        headrace releases pin fraud --off
    """
    settings = load_settings(context)
    _known(task, settings)
    with _moves(settings, "release.unpin" if off else "release.pin", task) as moves:
        _say(moves.pin(task, pinned=not off))


def history(
    context: typer.Context,
    task: str = typer.Argument("", metavar="[TASK]", help="One task; else all."),
    json: bool = JSON_OPTION,
) -> None:
    """Show what became of each release that the learner made, oldest first: live, refused, rolled back; and why.

    Examples:

        headrace releases history fraud
        headrace releases history --json
    """
    settings = load_settings(context)
    from streams.clients import require_broker
    from streams.pointers import announcements

    require_broker(settings)
    found = [said for said in announcements(settings) if task in ("", said.task)]
    if json:
        print_json([_history_row(said) for said in found])
    elif found:
        rows = [(row["release"], row["state"], row["at"], " ".join(row["why"])) for row in map(_history_row, found)]
        print_table(("release", "state", "since (UTC)", "why"), rows)
    else:
        print("the learner has announced no release yet")


@contextmanager
def _moves(settings: "Settings", action: str, subject: str, **detail: Any) -> "Iterator[ReleaseMoves]":
    """What is about to be done is written down first."""
    from streams.clients import require_broker
    from streams.release_moves import ReleaseMoves

    require_broker(settings)
    with open_registry(settings) as registry:
        write_down(settings, registry, action, subject, **detail)
        yield ReleaseMoves(settings, registry, _now_ms)


def _known(task: str, settings: "Settings") -> None:
    from streams.tasks import make_task

    make_task(task)
    if task not in settings.tasks:
        raise SettingsError(f"{task} is none of this shop's tasks", where="tasks", expected=", ".join(settings.tasks))


def _say(pointer: "Pointer") -> None:
    pinned = ", pinned" if pointer.pinned else ""
    before = f"; before it: {pointer.previous}" if pointer.previous else ""
    print(f"{pointer.task}/{pointer.version} is live{pinned} (epoch {pointer.epoch}){before}")


def _pointer_row(pointer: "Pointer") -> tuple[object, ...]:
    pinned = "yes" if pointer.pinned else "no"
    return pointer.task, pointer.version, pointer.previous or "", pointer.epoch, pinned, _time(pointer.announced_at)


def _history_row(said: "Announcement") -> dict[str, Any]:
    report = json.loads(said.gate or "{}") or {}
    failed = [check["said"] for check in report.get("checks", []) if not check["passed"]]
    return {
        "release": f"{said.task}/{said.version}",
        "state": said.state,
        "at": _time(said.announced_at),
        "why": failed or list(report.get("reasons", [])),
    }


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
