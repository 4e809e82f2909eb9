"""`headrace train`: the first releases from history. After them, the learner makes the next ones by itself.
It needs the extra `train`, which brings torch; the worker never does."""

import os
import shutil
import sys
import time
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.frame import JSON_OPTION, load_settings, open_registry, print_json, print_table

if TYPE_CHECKING:
    from engines.releases import Release
    from schemas.registry import Registry
    from streams.catalog import Catalogue
    from streams.config import Settings

READ_S = 120.0
GROUND = "recommendations"  # trained first: what it learns of users and items, the others begin with


def register(app: typer.Typer) -> None:
    app.command()(train)


def train(
    context: typer.Context,
    since: str = typer.Option("", "--from", metavar="TIME", help="Events from then on, ISO 8601 with zone; else all."),
    until: str = typer.Option("", "--to", metavar="TIME", help="Events before then; else all."),
    tasks: str = typer.Option("", "--tasks", metavar="NAMES", help="With commas; else those of the settings."),
    plans: str = typer.Option("", "--plans", metavar="FILE", help="How to train, as `headrace tune` writes it."),
    curves: str = typer.Option("", "--curves", metavar="DIR", help="Scalars for TensorBoard go here."),
    json: bool = JSON_OPTION,
) -> None:
    """Train the first release of each task from what the event topics hold, and publish it.

    Events and labels are replayed in order of time through the same state and features as serving; `headrace backfill`
    brings them there. Labels of orders are on `events.labels` (fraud, by order_id): an order without one counts as
    good, so end --to where chargebacks have come in. Clicks that name their impression are the labels of ads.

    Under torchrun each process takes its share of every batch, and the first one publishes.

    The catalogue must be encoded before (`headrace catalog encode --once`). A task that nothing is live of yet has its
    release made live; else the command says how to promote it.

    Examples:

        headrace train --from 2025-01-01T00:00Z --to 2025-12-01T00:00Z
        headrace train --tasks fraud --curves curves && tensorboard --logdir curves
        headrace train --plans plans.toml
        torchrun --nproc-per-node 2 --no-python headrace train --to 2025-12-01T00:00Z
    """
    settings = load_settings(context)
    from schemas.errors import SettingsError
    from streams.clients import require_broker
    from streams.recorded import NAMES, Recorded

    names = _order(settings, tasks)
    span = moment(since, "--from", 0), moment(until, "--to", 1 << 62)
    if span[0] >= span[1]:
        raise SettingsError(f"{until} is not after {since}", where="--to", expected="a later time than --from")
    require_broker(settings)
    with open_registry(settings) as registry, TemporaryDirectory(prefix="headrace-train-") as folder:
        recorded = Recorded(settings, registry, Path(folder), since=span[0], until=span[1])
        counted = recorded.read()
        found = dict(zip(NAMES, counted.found, strict=True))
        _say(", ".join(f"{count:,} {name}" for name, count in found.items()) + f"; {counted.bad:,} could not be used")
        said = {"data": "the event topics", "from": since, "to": until, **found}
        releases = _trained(settings, registry, recorded, names, said, Path(folder), plans, curves)
        if not releases:  # torchrun's first process has them
            return
        live = {name: _made_live(settings, registry, name, release) for name, release in releases.items()}
    if json:
        print_json(
            {
                name: {"version": each.version, "live": live[name], "metrics": each.manifest.metrics}
                for name, each in releases.items()
            }
        )
        return
    _tell(releases, live)


def _tell(releases: "dict[str, Release]", live: dict[str, bool]) -> None:
    print_table(("release", "measured", "live"), [_row(each, live[name]) for name, each in releases.items()])
    for release in releases.values():
        if conversions := release.manifest.trained.get("conversions"):
            print(f"orders after clicks on ads: {conversions}")
    for name, release in releases.items():
        if not live[name]:
            print(f"another release of {name} is live: `headrace releases promote {name}/{release.version}`")


def _order(settings: "Settings", tasks: str) -> list[str]:
    """What lays the ground comes first."""
    from schemas.errors import SettingsError

    wanted = [name.strip() for name in tasks.split(",")] if tasks else list(settings.tasks)
    if strange := [name for name in wanted if name not in settings.tasks]:
        expected = ", ".join(settings.tasks)
        raise SettingsError(f"{strange[0]!r} is none of this shop's tasks", where="--tasks", expected=expected)
    return sorted(set(wanted), key=lambda name: (name != GROUND, wanted.index(name)))


def _trained(
    settings: "Settings", registry: "Registry", recorded: Any, names: list[str], said: dict[str, Any], folder: Path,
    plans: str, curves: str,
) -> "dict[str, Release]":  # fmt: skip
    from schemas.errors import SettingsError

    first = library("finetune.first")
    from dataclasses import replace

    from engines.releases import ReleaseStore

    usual = library("finetune.plans").read_plans(Path(plans)) if plans else first.PLANS
    if strange := [name for name in names if name not in usual]:
        raise SettingsError(
            f"there is no plan to train {strange[0]}", where="finetune.first", expected=", ".join(usual)
        )
    chosen = {name: usual[name] for name in names}
    if GROUND not in chosen:  # nothing is there that could stay as it is
        chosen = {name: replace(plan, frozen=()) for name, plan in chosen.items()}
    few = max(1.0, 20_000 / max(1, said["clicks"]))  # a small shop keeps all of its events
    keep = {name: min(1.0, share * few) for name, share in first.KEEP.items()}
    reservoir = folder / "reservoir"
    with library("finetune.spread").spread() as process:
        releases: dict[str, Release] = first.first_releases(
            recorded, encoded_catalogue(settings, registry), ReleaseStore(settings.release_store), plans=chosen,
            keep=keep, progress=progress, trained=said, reservoir=reservoir if process.first else None,
            curves=Path(curves) if curves else None, spread=process,
        )  # fmt: skip
    _inherit(settings, reservoir)
    return releases


def library(module: str) -> Any:
    """A module of ours that needs torch, or another library of an extra. Raises SettingsError where it is not there."""
    from importlib import import_module

    from schemas.errors import SettingsError

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow each other where cores are shared
    try:
        return import_module(module)
    except ImportError as error:
        raise SettingsError(
            f"training needs a library that is not there: {error.name}", where="train",
            todo="install the extra: `uv pip install 'headrace[train]'`, `[tune]` for a search, or `make env`",
        ) from error  # fmt: skip


def encoded_catalogue(settings: "Settings", registry: "Registry") -> "Catalogue":
    from schemas.errors import DataUnavailable
    from streams.catalog import Catalogue
    from streams.live import CatalogueFeed

    catalog = Catalogue()
    feed = CatalogueFeed(settings, registry, catalog)
    try:
        feed.wait_current(READ_S)
    finally:
        feed.stop()
    feed.drain()
    if not catalog.items:
        raise DataUnavailable(
            "the catalogue has no encoded item", where=settings.topics.vectors,
            todo="`headrace publish catalog.items FILE`, then `headrace catalog encode --once`",
        )  # fmt: skip
    return catalog


def _inherit(settings: "Settings", reservoir: Path) -> None:
    """The learner replays what the first training was taught. What it has by now, stays."""
    for kept in reservoir.iterdir() if reservoir.exists() else ():
        place = settings.data_dir / "learner" / settings.app_id / kept.name / "reservoir"
        if not place.exists():
            shutil.copytree(kept, place)


def _made_live(settings: "Settings", registry: "Registry", task: str, release: "Release") -> bool:
    """Only where nothing is: whoever runs a shop decides on the rest."""
    from schemas.errors import ReleaseError
    from streams.cli.audited import write_down
    from streams.pointers import live_pointers
    from streams.release_moves import ReleaseMoves

    if task in live_pointers(settings):
        return False
    write_down(settings, registry, "release.promote", f"{task}/{release.version}")
    try:
        ReleaseMoves(settings, registry, _now_ms).promote(task, release.version, pinned=False, expected="")
    except ReleaseError:
        return False
    return True


def progress(task: str) -> Any:
    began = [0.0]

    def step(done: int, total: int, loss: float) -> None:
        now = time.monotonic()
        began[0] = began[0] or now
        if done == total or (sys.stderr.isatty() and done % 10 == 0):
            left = (now - began[0]) / max(1, done - 1) * (total - done)
            _say(f"{task}: step {done} of {total}, loss {loss:.4f}" + (f", {left:.0f} s left" if left else ""))

    return step


def _row(release: "Release", live: bool) -> tuple[str, str, str]:
    metrics = {name: value for name, value in release.manifest.metrics.items() if isinstance(value, float)}
    shown = ", ".join(f"{name} {value:.3g}" for name, value in list(metrics.items())[:4])
    return f"{release.manifest.task}/{release.version}", shown, "yes" if live else "no"


def moment(text: str, option: str, missing: int) -> int:
    from schemas.errors import SettingsError

    if not text:
        return missing
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"{text!r} is no time", where=option, expected="such as 2026-01-01T00:00Z") from error
    if moment.utcoffset() is None:
        raise SettingsError(f"{text!r} has no zone", where=option, expected="such as 2026-01-01T00:00Z")
    return round(moment.timestamp() * 1000)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
