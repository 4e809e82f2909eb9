"""Does the loop learn what is new and keep what is old? `python -m bench.learning` prints one line of JSON.
A new kind of fraud, and tastes that change: the loop's releases beside the first one, on the period after each
fine-tune, by the simulator's truth. It needs no Kafka: labels come with their delays, fine-tunes are the learner's.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.learning_figures import Figures, Period, regained
from bench.learning_loop import Course, Loop, sentence
from bench.learning_story import SCENARIOS, Scenario, Story, tell
from bench.report import show
from engines.releases import Release, ReleaseStore
from finetune.first import PLANS, train
from schemas.errors import HeadraceError

SEEDS = (1, 2, 3)
GROUND = "recommendations"  # what the first training of every task begins with
LEFT, FORGOTTEN = 0.10, 0.02  # of what was lost, still lost; of the old patterns, lost


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures of one story. before: the first release before the drift; then by the day of each fine-tune: the first
    release, the loop's, and who knows each chance, on the period that follows it.
    """

    before: Figures
    best_before: Figures
    off: dict[int, Figures]
    on: dict[int, Figures]
    best: dict[int, Figures]
    told: list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.learning", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--tasks", nargs="+", choices=sorted(SCENARIOS), default=sorted(SCENARIOS))
    parser.add_argument("--size", type=float, default=1.0, help="times the orders of a day")
    parser.add_argument("--mode", choices=("full", "lora", "head"), default="lora")
    parser.add_argument("--empty", action="store_true", help="do not fill the reservoir from the first training")
    parser.add_argument("--ungated", action="store_true", help="let every candidate go live")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one seed")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch.set_num_threads(arguments.threads)
    course = Course({"mode": arguments.mode}, judged=not arguments.ungated, threads=arguments.threads)
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    began = time.monotonic()
    figures: dict[str, Any] = {"seeds": list(seeds), "mode": arguments.mode}
    targets: dict[str, float] = {}
    try:
        for task in arguments.tasks:
            scenario = SCENARIOS[task]
            scenario = replace(scenario, orders_a_day=scenario.orders_a_day * arguments.size)
            found = [run(scenario, seed, course, filled=not arguments.empty) for seed in seeds]
            said, asked = summed_up(scenario, found)
            figures |= said
            targets |= asked
    except HeadraceError as error:
        sys.exit(str(error))
    show("learning", figures | {"seconds": time.monotonic() - began}, targets)


def run(scenario: Scenario, seed: int, course: Course, *, filled: bool) -> Outcome:
    """One world, from its first training to the last period."""
    say(f"{scenario.task}, seed {seed}: telling {scenario.end} days")
    story = tell(scenario, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say(f"{scenario.task}, seed {seed}: the first training")
        store = ReleaseStore(str(folder / "store"))
        first = first_release(story, store, folder / "ground" if filled else None)
        if filled:
            (folder / "loop").mkdir()
            (folder / "ground" / scenario.task).rename(folder / "loop" / "reservoir")
        loop = Loop(story, store, first, folder / "loop", course)
        return compared(story, loop, first)


def first_release(story: Story, store: ReleaseStore, reservoir: Path | None) -> Release:
    """Of what was known on the day on which serving begins."""
    scenario = story.scenario
    moment = scenario.moment(scenario.trained)
    known = story.recording.before(moment)
    plans = {name: PLANS[name] for name in (GROUND, scenario.task)}
    trained = {"data": str(story.world), "until": moment}
    return train(known, story.catalog, store, plans=plans, trained=trained, reservoir=reservoir)[scenario.task]


def compared(story: Story, loop: Loop, first: Release) -> Outcome:
    scenario = story.scenario
    steady = Period(story, scenario.trained, scenario.drift)
    before = steady.figures(first)
    say(f"{scenario.task}: before the drift {shown(before)}")
    found = Outcome(before, steady.of_truth(), {}, {}, {}, loop.told)
    for day in scenario.days:
        release = loop.fine_tune(day) if day in scenario.fine_tunes else first
        period = Period(story, day, day + scenario.cycle)
        found.off[day], found.best[day] = period.figures(first), period.of_truth()
        found.on[day] = period.figures(release) if release is not first else found.off[day]
        if day in scenario.fine_tunes:
            say(f"{scenario.task}: {sentence(loop.told[-1])}")
        say(f"{scenario.task}, day {day}: on {shown(found.on[day])}, off {shown(found.off[day])}")
    return found


def summed_up(scenario: Scenario, found: Sequence[Outcome]) -> tuple[dict[str, Any], dict[str, float]]:
    """Figures under the task's name, means over the seeds, and their targets."""
    task, last = scenario.task, scenario.fine_tunes[-1]
    each: list[Figures] = []
    for one in found:
        level, off, on = one.before["all"], one.off[last]["all"], one.on[last]["all"]
        first_off, best = one.off[scenario.drift]["all"], one.best[last]["all"]
        figures = {"before": level, "off": off, "on": on, "best": best, "best_before": one.best_before["all"]}
        if task == "ctr":  # new tastes are less predictable: a quarter of the entropy's rise is a perfect model's, too
            figures["left_of_entropy"] = 1 - regained(on, off, level)
            first_off -= one.best[scenario.drift]["all"]
            level, off, on = level - one.best_before["all"], off - best, on - best
        figures |= {"left": 1 - regained(on, off, level), "regained_off": regained(off, first_off, level)}
        if "old" in one.on[last]:
            figures |= {f"{name}_{side}": getattr(one, side)[last][name] for name in ("new", "old") for side in SIDES}
            figures["forgotten"] = 1 - one.on[last]["old"] / one.off[last]["old"]
        each.append(figures)
    said: dict[str, Any] = {f"{task}_{name}": float(np.mean([one[name] for one in each])) for name in each[0]}
    said[f"{task}_left_by_seed"] = [round(one["left"], 3) for one in each]
    said[f"{task}_refused"] = sum(not told["passed"] for one in found for told in one.told)
    targets = {f"{task}_left": LEFT, f"{task}_regained_off": 1 - LEFT}
    return said, targets | ({f"{task}_forgotten": FORGOTTEN} if "forgotten" in each[0] else {})


SIDES = ("on", "off")


def shown(figures: Figures) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
