"""How good the models are, in one command: `python -m bench.quality` runs all parts, `--parts world,bandit` some.
Each part is a module with `figures()` and TARGETS, upper bounds of figures by name, and runs in a process of its own:
what fails or takes too long is reported, and hides nothing else. `--smoke` is the world alone, with the first models.

The table goes to stderr, one line of JSON to stdout; it ends with 1 where a part failed, not where a target was missed.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.report import machine, report
from schemas.errors import HeadraceError

PARTS: dict[str, str] = {
    "world": "bench.quality_world",
    "conversions": "bench.quality_conversions",
    "cards": "bench.quality_cards",
    "tables": "bench.quality_tables",
    "bandit": "bench.quality_bandit",
    "baskets": "bench.quality_baskets",
    "movies": "bench.quality_movies",
}
"""By name, in this order. The world is the simulator: click-through, fraud and recommendations beside the truth."""
MOST_SECONDS = 1800
"""Of all parts together; what has not ended by then is stopped."""
DIGITS = 5


@dataclass(slots=True)
class Outcome:
    """Of one part. `failed`: why there are no figures, "" where there are."""

    part: str
    figures: dict[str, Any] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    failed: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="the first models on the simulator, and nothing else")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, with commas between: " + ", ".join(PARTS))
    parser.add_argument("--seconds", type=float, default=MOST_SECONDS, help="the most for all parts together")
    parser.add_argument("--alone", metavar="PART", choices=sorted(PARTS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        sys.exit(alone(given.alone))
    if given.smoke:
        smoke()
        return
    wanted = [name for name in given.parts.split(",") if name]
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"no part named {', '.join(unknown)}: there are {', '.join(PARTS)}")
    sys.exit(all_of(wanted, given.seconds))


def all_of(wanted: Sequence[str], seconds: float) -> int:
    """Runs the parts one after the other, prints, and says the exit status."""
    console, end = Console(stderr=True), time.monotonic() + seconds
    outcomes = []
    for part in wanted:
        console.print(f"{part}…")
        outcomes.append(outcome(part, command(part), end - time.monotonic()))
    show(console, "quality", outcomes)
    return int(any(each.failed for each in outcomes))


def command(part: str) -> list[str]:
    return [sys.executable, "-m", "bench.quality", "--alone", part]


def outcome(part: str, run: Sequence[str], seconds: float) -> Outcome:
    """What the process says on its last line of stdout; or why it says nothing. seconds: the most that it may take."""
    began = time.monotonic()
    made = Outcome(part)
    try:
        done = subprocess.run(run, stdout=subprocess.PIPE, text=True, timeout=max(seconds, 0.01), check=False)
        said = json.loads(done.stdout.strip().rpartition("\n")[2] or "{}")
        made.failed = said.get("failed", "") if said else f"it ended with {done.returncode}"
        made.figures, made.targets, made.missed = (
            said.get(k, d) for k, d in (("figures", {}), ("targets", {}), ("missed", []))
        )
    except subprocess.TimeoutExpired:
        made.failed = f"no figures within {seconds:.0f} s"
    except json.JSONDecodeError:
        made.failed = "its last line is no JSON"
    made.seconds = time.monotonic() - began
    return made


def alone(part: str) -> int:
    """Runs one part here; prints its figures, or why there are none, as one line of JSON."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        module = importlib.import_module(PARTS[part])
        targets: Mapping[str, float] = module.TARGETS
        said = report(part, module.figures(), targets, DIGITS)
    except ModuleNotFoundError as error:
        print(json.dumps({"failed": f"{error.name} is not there"}))
        return 1
    except HeadraceError as error:
        print(json.dumps({"failed": str(error)}))
        return 1
    except Exception as error:  # noqa: BLE001 — any other is a fault of the part: shown whole, and the rest goes on
        traceback.print_exc()
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"}))
        return 1
    figures = {name: value for name, value in said.items() if name not in ("bench", "targets", "missed")}
    print(json.dumps({"figures": figures, "targets": said["targets"], "missed": said["missed"]}))
    return 0


def show(console: Console, bench: str, outcomes: Sequence[Outcome]) -> None:
    """One table of all figures, one line of JSON; a name in it begins with its part's."""
    table = Table("part", "figure", "value", "at most")
    for each in outcomes:
        for name, value in each.figures.items():
            most = each.targets.get(name)
            bound = "" if most is None else f"{most:g}" + (" MISSED" if name in each.missed else "")
            table.add_row(each.part, name, worded(value), bound)
        table.add_row(each.part, "seconds", f"{each.seconds:,.0f}", each.failed and f"FAILED: {each.failed}")
    console.print(table)
    line: dict[str, Any] = {"bench": bench}
    for each in outcomes:
        line |= {f"{each.part}_{name}": value for name, value in each.figures.items()}
        line[f"{each.part}_seconds"] = round(each.seconds, 1)
    line |= machine()
    line["targets"] = {f"{each.part}_{name}": most for each in outcomes for name, most in each.targets.items()}
    line["missed"] = [f"{each.part}_{name}" for each in outcomes for name in each.missed]
    line["failed"] = {each.part: each.failed for each in outcomes if each.failed}
    print(json.dumps(line), flush=True)


def worded(value: Any) -> str:
    if isinstance(value, int | float):
        return f"{value:,.4f}" if abs(value) < 10 else f"{value:,.0f}"
    return str(value)


def smoke() -> None:
    """The world with the first models, in this process."""
    world = importlib.import_module(PARTS["world"])
    began, console = time.monotonic(), Console(stderr=True)
    try:
        said = report("world", world.smoke_figures(), world.SMOKE_TARGETS, DIGITS)
    except HeadraceError as error:
        sys.exit(str(error))
    figures = {name: value for name, value in said.items() if name not in ("bench", "targets", "missed")}
    made = Outcome("world", figures, said["targets"], said["missed"], time.monotonic() - began)
    show(console, "quality_smoke", [made])


if __name__ == "__main__":
    main()
