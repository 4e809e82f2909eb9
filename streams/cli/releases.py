"""`headrace releases`: the models in the release store, and the pointers that say which of them is live.
A release never changes once it is made; what these commands move is the pointer."""

import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from schemas.errors import ReleaseError, SettingsError
from streams.cli.frame import FAILED, JSON_OPTION, load_settings, open_registry, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.manifest import Manifest
    from engines.releases import Release, ReleaseStore
    from streams.config import Settings
    from streams.pointers import Pointer, Pointers

app = typer.Typer(no_args_is_help=True, help="Look at the models in the release store, and choose which is live.")


@app.command("list")
def list_(
    context: typer.Context,
    task: str = typer.Argument("", metavar="[TASK]", help="One task; else all of the settings."),
    json: bool = JSON_OPTION,
) -> None:
    """List releases, oldest first, with what they were measured at. A damaged one is said to be so.

    Examples:

        headrace releases list
        headrace releases list fraud --json
    """
    settings = load_settings(context)
    from streams.tasks import make_task

    tasks = [make_task(task).name] if task else list(settings.tasks)
    store = _store(settings)
    rows = [_row(store, name, version) for name in tasks for version in store.list(name)]
    if json:
        print_json(rows)
    elif rows:
        shown = [(row["release"], row["created_at"], _words(row["metrics"]), row["problem"]) for row in rows]
        print_table(("release", "made", "metrics", "problem"), shown)
    else:
        print(f"no releases of {', '.join(tasks)} in {settings.release_store}; `headrace demo` makes first ones")
    if any(row["problem"] for row in rows):
        raise typer.Exit(FAILED)


@app.command()
def show(
    context: typer.Context,
    release: str = typer.Argument(metavar="TASK[/VERSION]", help="Without a version: the newest one."),
    json: bool = JSON_OPTION,
) -> None:
    """Show one release: its files are verified against their digests first.

    Examples:

        headrace releases show fraud
        headrace releases show fraud/20260131T120000-1f3a9c02 --json
    """
    settings = load_settings(context)
    store = _store(settings)
    task, _, version = release.partition("/")
    found = store.open(task, version) if version else store.latest(task)
    about = {**found.manifest.model_dump(mode="json"), "digest": found.digest, "folder": str(found.folder)}
    if json:
        print_json(about)
    else:
        print_table(("", f"{found.task}/{found.version}"), [(key, _words(value)) for key, value in about.items()])


@app.command()
def diff(
    context: typer.Context,
    old: str = typer.Argument(metavar="TASK/VERSION"),
    new: str = typer.Argument(metavar="TASK[/VERSION]", help="Without a version: the newest one."),
    json: bool = JSON_OPTION,
) -> None:
    """Show in what two releases differ: sizes, calibration, settings, measures, what they were trained on.

    Example:

        headrace releases diff fraud/20260131T120000-1f3a9c02 fraud
    """
    store = _store(load_settings(context))
    pair = [_flat(_opened(store, name).manifest.model_dump(mode="json")) for name in (old, new)]
    names = sorted({*pair[0], *pair[1]})
    rows = [(name, *(found.get(name) for found in pair)) for name in names if pair[0].get(name) != pair[1].get(name)]
    if json:
        print_json([{"what": name, "old": before, "new": after} for name, before, after in rows])
    else:
        print_table(("", old, new), [(name, _shown(before), _shown(after)) for name, before, after in rows])


@app.command()
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


@app.command()
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
    found = _opened(_store(settings), release)
    with _pointers(settings) as pointers:
        _say(pointers.move(task, found.version, now_ms=_now_ms(), pinned=pin, by_hand=True))


@app.command()
def rollback(context: typer.Context, task: str = typer.Argument(metavar="TASK")) -> None:
    """Make the release before the live one live again. Once more, and the one you left is back.

    Example:

        headrace releases rollback fraud
    """
    settings = load_settings(context)
    _known(task, settings)
    with _pointers(settings) as pointers:
        before = pointers.get(task)
        if before is not None and before.previous is not None:
            _opened(_store(settings), f"{task}/{before.previous}")
        _say(pointers.roll_back(task, now_ms=_now_ms(), by_hand=True))


@app.command()
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
    with _pointers(settings) as pointers:
        if (before := pointers.get(task)) is None:
            raise ReleaseError(
                f"nothing is live of {task}",
                where=settings.topics.releases,
                expected="a pointer",
                todo="run `headrace releases promote TASK/VERSION --pin`",
            )
        _say(pointers.move(task, before.version, now_ms=_now_ms(), pinned=not off, by_hand=True))


@contextmanager
def _pointers(settings: "Settings") -> "Iterator[Pointers]":
    from streams.clients import require_broker
    from streams.pointers import Pointers

    require_broker(settings)
    with open_registry(settings) as registry:
        yield Pointers(settings, registry)


def _known(task: str, settings: "Settings") -> None:
    from streams.tasks import make_task

    make_task(task)
    if task not in settings.tasks:
        raise SettingsError(f"{task} is none of this shop's tasks", where="tasks", expected=", ".join(settings.tasks))


def _opened(store: "ReleaseStore", release: str) -> "Release":
    task, _, version = release.partition("/")
    return store.open(task, version) if version else store.latest(task)


def _say(pointer: "Pointer") -> None:
    pinned = ", pinned" if pointer.pinned else ""
    before = f"; before it: {pointer.previous}" if pointer.previous else ""
    print(f"{pointer.task}/{pointer.version} is live{pinned} (epoch {pointer.epoch}){before}")


def _pointer_row(pointer: "Pointer") -> tuple[object, ...]:
    since = datetime.fromtimestamp(pointer.announced_at / 1000, UTC).isoformat(sep=" ", timespec="seconds")
    pinned = "yes" if pointer.pinned else "no"
    return pointer.task, pointer.version, pointer.previous or "", pointer.epoch, pinned, since.removesuffix("+00:00")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _store(settings: "Settings") -> "ReleaseStore":
    from engines.releases import ReleaseStore

    return ReleaseStore(settings.release_store, cache=settings.data_dir / "release-cache")


def _row(store: "ReleaseStore", task: str, version: str) -> dict[str, Any]:
    row: dict[str, Any] = {"release": f"{task}/{version}", "created_at": "", "metrics": {}, "problem": ""}
    try:
        manifest: Manifest = store.open(task, version).manifest
    except ReleaseError as error:
        return {**row, "problem": str(error)}
    return {**row, "created_at": manifest.created_at, "metrics": manifest.metrics}


def _words(value: Any) -> str:
    """One line of nested values: `auc=0.9 sizes.width=64`."""
    if isinstance(value, dict):
        return " ".join(f"{key}={_words(part)}" for key, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested values by dotted path: {"config.width": 64}."""
    if not isinstance(value, dict):
        return {path: value}
    return {
        name: found
        for key, part in value.items()
        for name, found in _flat(part, f"{path}.{key}" if path else key).items()
    }


def _shown(value: Any) -> str:
    return "" if value is None else _words(value)
