"""The learner's course without Kafka: after each cycle a fine-tune in its own process, planned as the learner does.
What passed the gate is the next champion; what did not is told, with the bounds that refused it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.learning_story import DAY_MS, Story
from engines.releases import Release, ReleaseStore
from finetune.example_files import write_catalog, write_examples
from streams.labels.joined import Record
from streams.learner.cycle import batch_of
from streams.learner.split import Arrivals, Split, split
from streams.learner.standing import Standing
from streams.learner.waits import Waits

NICENESS = 10
BUDGET_MS = 1000.0  # the engine's time is not what is asked here


@dataclass(frozen=True, slots=True)
class Course:
    """How the loop fine-tunes. recipe: fields of finetune.incremental.Recipe, plan: of finetune.plan.TunePlan, instead
    of those that the learner sets. labels, positives: of the gate's window, at least. window: its share of what is new.
    judged: whether the gate decides; else every candidate goes live.
    """

    recipe: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    labels: int = 1000
    positives: int = 100
    window: float = 0.25
    most: int = 100_000
    reservoir: int = 50_000
    delays: bool = True
    threads: int = 1
    judged: bool = True


class Loop:
    """One story's, from its first release. `folder` is its own; a reservoir in it is gone on with."""

    def __init__(self, story: Story, store: ReleaseStore, first: Release, folder: Path, course: Course) -> None:
        self.story, self._store, self.champion, self._folder, self._course = story, store, first, folder, course
        folder.mkdir(parents=True, exist_ok=True)
        self._catalog = folder / "catalog.npz"
        self._digest = write_catalog(self._catalog, story.catalog)
        self._standing = Standing.of(first.manifest.trained)
        since = story.scenario.moment(story.scenario.trained)
        self._time = story.examples.time
        self._coming = [each for each in story.arrived if self._time[each.example] >= since]
        self._arrivals, self._waits, self._came = Arrivals(), Waits(story.task.labels.name), 0
        self.told: list[dict[str, Any]] = []

    def fine_tune(self, day: int) -> Release:
        """With what has come by the beginning of the day; the champion afterwards."""
        self._hear(self.story.scenario.moment(day))
        course = self._course
        found = split(
            self._arrivals, self._standing, silence=True, most=course.most, window=course.window,
            gate_labels=course.labels,
        )  # fmt: skip
        began = time.monotonic()
        said = self._run(day, self._plan(day, found))
        checks = (said.get("gate") or {}).get("checks", [])
        passed = said.get("made") is not None and (said["verdict"] == "pass" or not course.judged)
        if passed:
            self.champion = self._store.open(self.story.scenario.task, said["made"])
            self._standing = found.standing
        refused = [each["said"] for each in checks if not each["passed"]]
        self.told.append({
            "day": day, "made": said.get("made"), "passed": passed, "training": found.training, "gate": found.gate,
            "positives": found.positives, "held": found.held, "seconds": time.monotonic() - began,
            "until": round((found.standing.until - self.story.scenario.moment(0)) / DAY_MS, 1),
            "fit": said.get("fit"), "examples": said.get("examples"),
            "refused": [said["refused"]] if "refused" in said else refused,
            "checks": {each["name"]: (each["value"], each["bound"]) for each in checks},
        })  # fmt: skip
        return self.champion

    def _hear(self, moment: int) -> None:
        name = self.story.task.labels.name
        while self._came < len(self._coming) and self._coming[self._came].matured_at < moment:
            each = self._coming[self._came]
            when = int(self._time[each.example])
            self._arrivals.add(0, self._came, when, positive=each.label > 0.5, silent=each.source == "")
            told = {"observed_at": each.observed_at, "matured_at": each.matured_at, "label": each.label}
            self._waits.add(told | {"name": name, "source": each.source, "event_time": when}, 0, self._came)
            self._came += 1
        self._arrivals.read_to(0, self._came)

    def _plan(self, day: int, found: Split) -> dict[str, Any]:
        course, folder = self._course, self._folder / str(day)
        folder.mkdir(parents=True, exist_ok=True)
        files = self._files(found)
        written = {
            name: {"path": str(folder / f"{name}.avro"), "sha256": write_examples(folder / f"{name}.avro", records)}
            for name, records in files.items()
        }
        recipe = {"mode": "lora", "seed": day, "batch": batch_of(len(files["training"]))} | course.recipe
        return {
            "task": self.story.scenario.task,
            "champion": self.champion.version,
            "store": str(self._store.root),
            "examples": [written["training"]],
            "holding": [written["holding"]],
            "period": "any",
            "window": [written["window"]],
            "gate": {"labels": course.labels, "positives": course.positives, "budget_ms": BUDGET_MS, "seed": day},
            "catalog": {"path": str(self._catalog), "sha256": self._digest},
            "out": str(folder / "out"),
            "reservoir": {"folder": str(self._folder / "reservoir"), "rows": course.reservoir},
            "recipe": recipe,
            "delays": self._waits.estimated() if course.delays else None,
            "threads": course.threads,
            "trained": {"standing": found.standing.as_dict(), "reason": "cycle", "number": day},
            **course.plan,
        }

    def _files(self, found: Split) -> dict[str, list[Record]]:
        files: dict[str, list[Record]] = {"training": [], "holding": [], "window": []}
        for low, high in found.ranges.values():
            when = np.array([self._time[each.example] for each in self._coming[low:high]], np.int64)
            offset = np.arange(low, high)
            known = self._standing.learned(np.zeros(len(when), np.int64), offset, when)
            for name, chosen in (
                ("training", when <= found.standing.until),
                ("holding", (when > found.standing.until) & (when <= found.held_until)),
                ("window", (when > found.gate_after) & (when <= found.mature)),
            ):
                files[name] += [self.story.record(self._coming[number]) for number in offset[chosen & ~known]]
        return files

    def _run(self, day: int, plan: dict[str, Any]) -> dict[str, Any]:
        path = self._folder / str(day) / "plan.json"
        path.write_text(json.dumps(plan))
        made = subprocess.run(
            ["nice", "-n", str(NICENESS), sys.executable, "-m", "finetune.run", str(path)],
            env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        lines = made.stdout.strip().splitlines()
        if made.returncode not in (0, 3) or not lines:
            sys.exit(f"the fine-tune ended with code {made.returncode}:\n{made.stderr[-3000:]}")
        said: dict[str, Any] = json.loads(lines[-1])
        return said


def sentence(told: Mapping[str, Any]) -> str:
    """What came of a fine-tune."""
    became = "live" if told["passed"] else "refused"
    return f"day {told['day']}: {became}, {told['training']:,} examples. {' '.join(told['refused'])}".rstrip()
