"""`headrace tune`: a search for how to train a task on this shop's own events, for `headrace train --plans`.
It needs the extras `train` and `tune`."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.frame import JSON_OPTION, load_settings, open_registry, print_json, print_table
from streams.cli.training import GROUND, encoded_catalogue, library, moment

if TYPE_CHECKING:
    from streams.catalog import Catalogue
    from streams.config import Settings


def register(app: typer.Typer) -> None:
    app.command()(tune)


def tune(
    context: typer.Context,
    task: str = typer.Argument(..., metavar="TASK", help="fraud, ctr or recommendations."),
    trials: int = typer.Option(30, "--trials", min=2, metavar="N", help="That the study has in the end."),
    folds: int = typer.Option(3, "--folds", min=1, metavar="N", help="Spans that each trial is judged on."),
    test: float = typer.Option(0.15, "--test", min=0.01, max=0.49, help="Newest share, that no trial sees."),
    since: str = typer.Option("", "--from", metavar="TIME", help="Events from then on, ISO 8601 with zone; else all."),
    until: str = typer.Option("", "--to", metavar="TIME", help="Events before then; else all."),
    out: str = typer.Option("", "--out", metavar="FILE", help="The plans; else tuning/plans.toml below data_dir."),
    json: bool = JSON_OPTION,
) -> None:
    """Search for rates, sizes, dropout, weight decay and loss weights, and write the best plan to a file.

    Each trial trains on the past and is judged on the weeks after it, in several spans, and is ended early where others
    were better. The newest events are kept from the search; in the end they say whether the plan is better than the
    usual one, which is the first trial.

    The study is kept below data_dir: the same command goes on where it was stopped, and more --trials add to it. With
    other events, spans or a usual plan another study begins.

    Examples:

        headrace tune fraud --trials 40 --to 2025-12-01T00:00Z
        headrace train --plans .headrace/tuning/plans.toml
    """
    settings = load_settings(context)
    search, plans = library("finetune.search"), library("finetune.plans")
    span = moment(since, "--from", 0), moment(until, "--to", 1 << 62)
    recording, catalog = recorded_examples(settings, (GROUND, task), span)
    folder = settings.data_dir / "tuning"
    path = Path(out) if out else folder / "plans.toml"
    ground = (plans.read_plans(path) if path.exists() else plans.PLANS)[GROUND] if GROUND in settings.tasks else None
    found = search.Search(
        task, recording, catalog, folder / f"{task}.journal", ground=ground, folds=folds, test=test
    ).run(trials, _told)
    plans.write_plan(path, task, found.plan, "written by `headrace tune`, for `headrace train --plans`")
    if json:
        figures = {name: getattr(found, name) for name in ("measure", "value", "usual", "test", "usual_test", "trials")}
        print_json({"task": task, "plans": str(path), **figures})
        return
    rows = [("best", found.value, found.test), ("usual", found.usual, found.usual_test)]
    print_table(
        ("plan", f"{found.measure} of {folds} spans", "of the newest"),
        [(name, f"{value:.5f}", f"{newest:.5f}") for name, value, newest in rows],
    )
    print(f"{path}: `headrace train --plans {path}`")


def recorded_examples(settings: "Settings", names: tuple[str, ...], span: tuple[int, int]) -> "tuple[Any, Catalogue]":
    """All events of the span as examples of these tasks; the last one is what was asked for."""
    from schemas.errors import SettingsError
    from streams.clients import require_broker
    from streams.recorded import Recorded
    from streams.tasks import make_task

    if (task := names[-1]) not in settings.tasks:
        raise SettingsError(f"{task!r} is none of this shop's tasks", where="TASK", expected=", ".join(settings.tasks))
    require_broker(settings)
    history, first = library("finetune.history"), library("finetune.first")
    with open_registry(settings) as registry, TemporaryDirectory(prefix="headrace-tune-") as folder:
        recorded = Recorded(settings, registry, Path(folder), since=span[0], until=span[1])
        counted = recorded.read()
        _say(f"{sum(counted.found):,} records; {counted.bad:,} could not be used")
        catalog = encoded_catalogue(settings, registry)
        few = max(1.0, 20_000 / max(1, counted.found[0]))
        keep = {name: min(1.0, share * few) for name, share in first.KEEP.items()}
        tasks = [make_task(name) for name in dict.fromkeys(names)]
        return history.replay(recorded, tasks, catalog, keep), catalog


def _told(number: int, state: str, value: float | None) -> None:
    _say(f"trial {number}: {state}" + ("" if value is None else f", {value:.5f}"))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
