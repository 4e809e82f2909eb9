"""`headrace shrink`: a smaller release from one that has learned, which costs less to serve.
It needs the extra `train`, which brings torch; the worker never does."""

from typing import TYPE_CHECKING, Any

import typer

from streams.cli.frame import JSON_OPTION, load_settings, print_json, print_table
from streams.cli.releases import open_store, opened
from streams.cli.training import library, moment, progress
from streams.cli.tuning import recorded_examples

if TYPE_CHECKING:
    from engines.releases import Release

SIZES = ("width", "layers", "heads", "hidden")


def register(app: typer.Typer) -> None:
    app.command()(shrink)


def shrink(
    context: typer.Context,
    release: str = typer.Argument(metavar="TASK[/VERSION]", help="The teacher. Without a version: the newest one."),
    by: str = typer.Option("prune", "--by", metavar="HOW", help="prune or distill."),
    layers: int = typer.Option(0, "--layers", metavar="N", help="Distilled: so many layers, the read-out among them."),
    width: int = typer.Option(0, "--width", metavar="N", help="Distilled: the width of all vectors, of items too."),
    heads: int = typer.Option(0, "--heads", metavar="N", help="So many attention heads in each layer."),
    hidden: int = typer.Option(0, "--hidden", metavar="N", help="So many hidden units in each layer."),
    steps: int = typer.Option(0, "--steps", min=0, metavar="N", help="Of training; else as many as are usual."),
    since: str = typer.Option("", "--from", metavar="TIME", help="Events from then on, ISO 8601 with zone; else all."),
    until: str = typer.Option("", "--to", metavar="TIME", help="Events before then; else all."),
    json: bool = JSON_OPTION,
) -> None:
    """Make a smaller release from one that has learned, and publish it. Nothing is made live.

    Pruning cuts out the hidden units and heads that matter least, and trains what is left for a short time; distilling
    trains a model of fewer layers, or another width. Both learn from the events that the topics hold, as `headrace
    train` does, half from the labels and half from what the teacher says of them.

    The newest tenth of the examples is for the gate alone, which judges the smaller release beside its teacher. One
    that it refuses is kept, and `headrace releases show` says why.

    Examples:

        headrace shrink ctr --by prune --hidden 128 --heads 1
        headrace shrink fraud/20260131T120000-1f3a9c02 --by distill --layers 1 --to 2025-12-01T00:00Z
    """
    settings = load_settings(context)
    from schemas.errors import SettingsError

    if by not in ("prune", "distill"):
        raise SettingsError(f"{by!r} is no way to shrink", where="--by", expected="prune or distill")
    teacher = opened(open_store(settings), release)
    wish, gate = library("finetune.smaller"), library("finetune.plan").Gate
    sizes = {name: size for name, size in zip(SIZES, (width, layers, heads, hidden), strict=True) if size}
    smaller = wish.Smaller(by, sizes, steps)
    wish.checked(teacher, smaller)  # before events are read for minutes
    span = moment(since, "--from", 0), moment(until, "--to", 1 << 62)
    recording, catalog = recorded_examples(settings, (teacher.task,), span)
    learning = settings.learning
    rule = gate(
        labels=learning.gate_labels, positives=learning.gate_positives,
        budget_ms=settings.deadline_ms(teacher.task) / 4,
    )  # fmt: skip
    made = library("finetune.shrink").shrink(
        teacher, smaller, recording, catalog, open_store(settings), rule=rule, progress=progress(teacher.task),
        trained={"data": "the event topics", "from": since, "to": until}, int8=settings.engine.precision == "int8",
    )  # fmt: skip
    if json:
        print_json(_said(made, teacher))
    else:
        _tell(made, teacher)


def _said(made: "Release", teacher: "Release") -> dict[str, Any]:
    report = made.manifest.metrics["gate"]
    how = {name: said for name, said in made.manifest.trained["smaller"].items() if name != "teacher"}
    return {
        "release": f"{made.task}/{made.version}",
        "teacher": f"{teacher.task}/{teacher.version}",
        **how,
        "window": made.manifest.metrics["window"],
        "gate": report["verdict"],
        "reasons": _reasons(report),
    }


def _tell(made: "Release", teacher: "Release") -> None:
    report = made.manifest.metrics["gate"]
    said, window = made.manifest.trained["smaller"], made.manifest.metrics["window"]
    rows = [
        (f"{each.task}/{each.version}", f"{said[count]:,}", f"{_mb(each):.2f}", _figures(window[side]))
        for each, count, side in (
            (teacher, "teacher_parameters", "champion"),
            (made, "parameters", "candidate"),
        )
    ]
    print_table(("release", "parameters", "graph, MB", "on the newest examples"), rows)
    name = f"{made.task}/{made.version}"
    if report["verdict"] == "pass":
        print(f"the gate lets it through: `headrace releases promote {name}` makes it live")
    else:
        print(f"the gate refuses it: {' '.join(_reasons(report))} `headrace releases show {name}` has the report")


def _reasons(report: dict[str, Any]) -> list[str]:
    return [each["said"] for each in report["checks"] if not each["passed"]]


def _figures(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in found.items())


def _mb(release: "Release") -> float:
    from engines.openvino import GRAPH

    return release.manifest.files[GRAPH].size / 1e6
