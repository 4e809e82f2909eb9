"""`headrace releases`: the models in the release store, and the pointers that say which of them is live.
A release never changes once it is made; what these commands move is the pointer."""

from typing import TYPE_CHECKING, Any

import typer

from schemas.errors import ReleaseError
from streams.cli.frame import FAILED, JSON_OPTION, load_settings, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.manifest import Manifest
    from engines.releases import Release, ReleaseStore
    from streams.config import Settings

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
    store = open_store(settings)
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
    store = open_store(settings)
    task, _, version = release.partition("/")
    found = store.open(task, version) if version else store.latest(task)
    about = {**found.manifest.model_dump(mode="json"), "digest": found.digest, "folder": str(found.folder)}
    if json:
        print_json(about)
    else:
        report = about["metrics"].pop("gate", None)
        print_table(("", f"{found.task}/{found.version}"), [(key, _words(value)) for key, value in about.items()])
        if isinstance(report, dict):
            print()
            print_table(("gate", report.get("verdict", ""), "value", "bound", "in words"), list(_judged(report)))


@app.command()
def card(
    context: typer.Context,
    release: str = typer.Argument(metavar="TASK[/VERSION]", help="Without a version: the newest one."),
) -> None:
    """Print a release's model card, in markdown: data, figures, slices, groups, and how steady its scores are.

    Examples:

        headrace releases card ctr
        headrace releases card fraud/20260131T120000-1f3a9c02 > card.md
    """
    store = open_store(load_settings(context))
    from finetune.cards import card as written

    print(written(opened(store, release)), end="")


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
    store = open_store(load_settings(context))
    pair = [_flat(opened(store, name).manifest.model_dump(mode="json")) for name in (old, new)]
    names = sorted({*pair[0], *pair[1]})
    rows = [(name, *(found.get(name) for found in pair)) for name in names if pair[0].get(name) != pair[1].get(name)]
    if json:
        print_json([{"what": name, "old": before, "new": after} for name, before, after in rows])
    else:
        print_table(("", old, new), [(name, _shown(before), _shown(after)) for name, before, after in rows])


def opened(store: "ReleaseStore", release: str) -> "Release":
    task, _, version = release.partition("/")
    return store.open(task, version) if version else store.latest(task)


def open_store(settings: "Settings") -> "ReleaseStore":
    from engines.releases import ReleaseStore

    return ReleaseStore(settings.release_store, cache=settings.data_dir / "release-cache")


def _row(store: "ReleaseStore", task: str, version: str) -> dict[str, Any]:
    row: dict[str, Any] = {"release": f"{task}/{version}", "created_at": "", "metrics": {}, "problem": ""}
    try:
        manifest: Manifest = store.open(task, version).manifest
    except ReleaseError as error:
        return {**row, "problem": str(error)}
    return {**row, "created_at": manifest.created_at, "metrics": manifest.metrics}


def _judged(report: dict[str, Any]) -> "Iterator[tuple[str, str, str, str, str]]":
    """A row for each check of a gate's report, what failed first, and for each that was not run."""
    checks = report.get("checks", [])
    for each in sorted(checks, key=lambda each: bool(each["passed"])):
        outcome = "passed" if each["passed"] else "refused"
        yield each["name"], outcome, _shown(each["value"]), _shown(each["bound"]), each["said"]
    for name, why in report.get("not_judged", {}).items():
        yield name, "not judged", "", "", why


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
