"""`headrace learn`: what the learner does and why, a fine-tune now, and a pause that outlasts it.
The commands speak to the learner over models.learning: they work from anywhere that reaches the broker."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.audited import write_down
from streams.cli.frame import JSON_OPTION, load_settings, open_registry, print_json

if TYPE_CHECKING:
    from streams.config import Settings

app = typer.Typer(no_args_is_help=True, help="See what the learner does; ask it for a fine-tune; pause it.")

TRIGGERS = {"asked": "as it was asked for", "examples": "for new examples", "drift": "for drift", "time": "for time"}
TASK_ARGUMENT = typer.Argument("", metavar="[TASK]", help="One task; else all of the settings.")


@app.command()
def status(context: typer.Context, json: bool = JSON_OPTION) -> None:
    """Say of each task what the learner does, what has come that it has not learned, and what came of its last try.

    Examples:

        headrace learn status
        headrace learn status --json
    """
    settings = load_settings(context)
    from streams.clients import require_broker
    from streams.learner.control import statuses

    require_broker(settings)
    said, asked = statuses(settings)
    if json:
        print_json([{**asdict(said[task]), "paused": asked[task].paused} for task in sorted(said)])
        return
    if not said:
        print("no learner has run yet: `headrace learner` starts one")
        return
    for task in sorted(said):
        detail, last = said[task].detail, said[task].detail.get("last") or {}
        state = f"{said[task].state}, a pause is asked for" if asked[task].paused else said[task].state
        print(f"{task}: {state}; live: {detail.get('champion') or 'none'}")
        held = f", {detail['held']:,} younger than all silence" if detail.get("held") else ""
        print(f"  new examples    {detail.get('new', 0):,} ({detail.get('positives', 0):,} positive){held}")
        print(f"  last fine-tune  {_last(last)}")
        print(f"  none now, as    {detail.get('why_not', '')}")
    print(f"said at {_time(max(one.said_at for one in said.values()))}")


@app.command()
def now(context: typer.Context, task: str = TASK_ARGUMENT) -> None:
    """Ask for a fine-tune now, whatever the learner would wait for. It still has to pass the gate.

    Example:

        headrace learn now fraud
    """
    settings = load_settings(context)
    for name in _tasks(settings, task):
        _ask(settings, "now", name, asked_at=_now_ms())
        print(f"{name}: asked for; `headrace learn status` says what comes of it")


@app.command()
def pause(context: typer.Context, task: str = TASK_ARGUMENT) -> None:
    """Begin no more fine-tunes, also after a restart. Labels are joined all the same, and what is worse is taken back.

    Example:

        headrace learn pause
    """
    settings = load_settings(context)
    for name in _tasks(settings, task):
        _ask(settings, "pause", name, paused=True)
        print(f"{name}: paused")


@app.command()
def resume(context: typer.Context, task: str = TASK_ARGUMENT) -> None:
    """End the pause: what has come meanwhile is learned.

    Example:

        headrace learn resume fraud
    """
    settings = load_settings(context)
    for name in _tasks(settings, task):
        _ask(settings, "resume", name, paused=False)
        print(f"{name}: goes on")


def _tasks(settings: "Settings", task: str) -> list[str]:
    from streams.clients import require_broker
    from streams.tasks import make_task

    require_broker(settings)
    return [make_task(task).name] if task else list(settings.tasks)


def _ask(settings: "Settings", word: str, task: str, **changed: Any) -> None:
    from streams.learner.control import command

    with open_registry(settings) as registry:
        by = write_down(settings, registry, f"learn.{word}", task)
    command(settings, task, _now_ms(), by=by, **changed)


def _last(last: dict[str, Any]) -> str:
    if not last:
        return "none"
    why = f": {last['why']}" if last.get("why") else ""
    began = f", begun {TRIGGERS.get(last['trigger'], last['trigger'])}" if last.get("trigger") else ""
    return f"{last.get('made') or ''} {last['result']}{began}{why}".strip()


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
