"""`headrace capacity`: what a load takes in workers, partitions, cores, memory and disk, by figures that were measured.
It asks no broker; docs/capacity.md has the formulas and the figures."""

from dataclasses import asdict

import typer

from streams.capacity.measured import SPREAD
from streams.capacity.model import MEANINGS, Load, Plan, largest, plan, total
from streams.cli.frame import JSON_OPTION, print_json, print_table

KNOWN = Load()


def _option(name: str) -> float:
    flag = "--" + name.replace("_", "-")
    made: float = typer.Option(getattr(KNOWN, name), flag, metavar="NUMBER", help=MEANINGS[name][0])
    return made


def register(app: typer.Typer) -> None:
    app.command("capacity")(capacity)


def capacity(
    events_per_s: float = _option("events_per_s"),
    users: float = _option("users"),
    items: float = _option("items"),
    orders: float = _option("orders"),
    impressions: float = _option("impressions"),
    peak: float = _option("peak"),
    headroom: float = _option("headroom"),
    growth: float = _option("growth"),
    active: float = _option("active"),
    slate: float = _option("slate"),
    ad_clicks: float = _option("ad_clicks"),
    answers: float = _option("answers"),
    replication: float = _option("replication"),
    retention_days: float = _option("retention_days"),
    scores_days: float = _option("scores_days"),
    served_days: float = _option("served_days"),
    labels_days: float = _option("labels_days"),
    examples_days: float = _option("examples_days"),
    json: bool = JSON_OPTION,
) -> None:
    """What a load takes: workers, partitions, cores, memory, disk by topic, and which part of each dominates.

    Example:

        headrace capacity --events-per-s 2000 --users 5e6 --retention-days 14
    """
    given = {name: value for name, value in locals().items() if name != "json"}
    made = plan(Load(**given))
    if json:
        print_json(asdict(made) | {"dominates": dominates(made)})
        return
    print_table(("what", "part", "takes"), rows(made))
    print(f"CPU varies by {SPREAD:g} times with machine and neighbours; brokers' own CPU and memory are not in it.")


def dominates(made: Plan) -> dict[str, str]:
    return {name: largest(getattr(made, name)) for name in ("cores", "memory_mb", "disk_gb")}


def rows(made: Plan) -> list[tuple[str, str, str]]:
    """The table's, each total before its parts; the part that dominates is marked."""
    found = [
        ("workers", "", f"{made.workers:,}"),
        ("partitions", "", f"{made.partitions:,}"),
        ("state.slots", "", f"{made.slots:,}"),
    ]
    for name, title, unit, scale in (
        ("cores", "cores at the peak", "", 1.0),
        ("memory_mb", "memory", " GB", 1e-3),
        ("disk_gb", "disk", " GB", 1.0),
    ):
        parts = getattr(made, name)
        most = largest(parts)
        found.append((title, "all", f"{total(parts) * scale:,.1f}{unit}"))
        for part, value in parts.items():
            found.append(("", part, f"{value * scale:,.1f}{unit}{' <- dominates' if part == most else ''}"))
    return found
