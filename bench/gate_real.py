"""What the real gate does with real candidates: `python -m bench.gate_real` prints one line of JSON.
On a small simulated world, honest increments and poisoned ones are fine-tuned and judged as the learner does, each in
the learner's own process; `bench.gate_cases` draws its evidence instead, and asks the gate alone.
"""

import argparse
import copy
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.learning import first_release, say
from bench.learning_loop import Course, Loop
from bench.learning_story import Scenario, Story, tell
from bench.report import show
from engines.releases import ReleaseStore
from schemas.errors import HeadraceError
from streams.features import Rows, pack, unpack
from streams.labels.joined import Record
from streams.learner.split import Split
from streams.tasks.fraud import COLUMN

CYCLE, WAIT, TRAINED = 8, 28, 42
HONEST = 4
HOUR_MS = 3_600_000
DAYS = tuple(TRAINED + WAIT + CYCLE * number for number in range(1, HONEST + 1))


@dataclass(frozen=True, slots=True)
class Quiet(Scenario):
    """Nothing drifts in it, and it ends with the last increment."""

    @property
    def end(self) -> int:
        return DAYS[-1]


WORLD = Quiet(
    "fraud", 500.0, trained=TRAINED, drift=10_000, cycle=CYCLE, wait=WAIT,
    world={"fraud_rate": 0.12, "browse": 0.05, "guests": 0.0},
)  # fmt: skip
Made = dict[str, Any]
Records = list[Made]
Poison = Callable[[Records, np.random.Generator, "Fields"], Records]
"""From what trains and what it is stopped by, to what somebody has made of it. The gate's window stays true."""
LIKE = ("label", "source", "label_hash", "observed_at", "matured_at", "revision")
"""What a label brings with it."""


class Fields:
    """Feature rows of records, read and written."""

    def __init__(self, story: Story) -> None:
        self._dtype = story.task.features

    def of(self, records: Records) -> Rows:
        return unpack([record["features"] for record in records], self._dtype).copy()

    def put(self, records: Records, rows: Rows) -> Records:
        return [record | {"features": features} for record, features in zip(records, pack(rows), strict=True)]


def shuffled(records: Records, rng: np.random.Generator, fields: Fields) -> Records:
    """Each label goes to another order."""
    return [record | {name: records[other][name] for name in LIKE}
            for record, other in zip(records, rng.permutation(len(records)), strict=True)]  # fmt: skip


def inverted(records: Records, rng: np.random.Generator, fields: Fields) -> Records:
    """Of the cheaper half of the orders, fraud is called innocent and innocence fraud."""
    amount = fields.of(records)["fields"][:, COLUMN["amount"]]
    return [said(record, 1 - record["label"]) if cheap else record
            for record, cheap in zip(records, amount < np.median(amount), strict=True)]  # fmt: skip


def repeated(records: Records, rng: np.random.Generator, fields: Fields) -> Records:
    """A feed that sends one label's id with all frauds of a third of the time."""
    frauds = [number for number, record in enumerate(records) if record["label"] > 0.5]
    again = set(frauds[: len(frauds) // 3])
    same = records[frauds[0]]["label_hash"]
    return [record | {"label_hash": same} if number in again else record for number, record in enumerate(records)]


def burst(records: Records, rng: np.random.Generator, fields: Fields) -> Records:
    """The bank's feed calls one innocent order in eight a fraud, all within an hour."""
    chosen = rng.random(len(records)) < 1 / 8
    hour = max(record["observed_at"] for record in records) // HOUR_MS * HOUR_MS
    return [said(record, 1.0, observed_at=hour + number) if drawn and record["label"] < 0.5 else record
            for number, (record, drawn) in enumerate(zip(records, chosen, strict=True))]  # fmt: skip


def one_user(records: Records, rng: np.random.Generator, fields: Fields) -> Records:
    """Two hundred labels of one user."""
    innocent = np.array([number for number, record in enumerate(records) if record["label"] < 0.5])
    chosen = set(rng.choice(innocent, min(200, len(innocent)), replace=False).tolist())
    return [said(record, 1.0) | {"user_id": "mallory"} if number in chosen else record
            for number, record in enumerate(records)]  # fmt: skip


def shifted(records: Records, rng: np.random.Generator, fields: Fields) -> Records:
    """Amounts in cents that were in euros: the usual ones, too."""
    rows = fields.of(records)
    for name in ("amount", "usual_amount", "amount_24h"):
        rows["fields"][:, COLUMN[name]] += np.float32(np.log(100))
    return fields.put(records, rows)


POISONS: dict[str, Poison] = {
    "shuffled": shuffled, "inverted": inverted, "repeated": repeated, "burst": burst, "one_user": one_user,
    "shifted": shifted,
}  # fmt: skip


def said(record: Made, label: float, observed_at: int | None = None) -> Made:
    """The record with another label, as the bank would have said it."""
    told = observed_at if observed_at is not None else record["observed_at"] or record["matured_at"]
    source = "chargeback" if label > 0.5 else "analyst"
    return record | {"label": label, "source": source, "observed_at": told, "label_hash": hash_of(record, label)}


def hash_of(record: Made, label: float) -> int:
    return int.from_bytes(bytes.fromhex(record["example_id"][:14]), "big") ^ int(label > 0.5)


class Trial(Loop):
    """A loop of which branches can be taken that are given something else to learn."""

    poison: Poison | None = None
    seed = 0

    def branch(self, kind: str, folder: Path) -> "Trial":
        """One that goes its own way from here: its reservoir too."""
        made = copy.copy(self)
        made.poison, made.seed, made.told = POISONS[kind], list(POISONS).index(kind), []
        made._arrivals, made._waits = copy.deepcopy((self._arrivals, self._waits))
        made._folder = folder
        shutil.copytree(self._folder / "reservoir", folder / "reservoir")
        return made

    def _files(self, found: Split) -> dict[str, list[Record]]:
        files = super()._files(found)
        if self.poison is not None:
            whole = [dict(record) for record in files["training"] + files["holding"]]
            made = self.poison(whole, np.random.default_rng(self.seed), Fields(self.story))
            border = len(files["training"])
            files["training"], files["holding"] = [*made[:border]], [*made[border:]]
        return files


def measure(size: float, folder: Path, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Honest increments in a row; before the second, each poisoned one in its place, from the same champion."""
    story = tell(replace(WORLD, orders_a_day=WORLD.orders_a_day * size), 1)
    say(f"a world of {len(story.examples):,} orders; the first training")
    store = ReleaseStore(str(folder / "store"))
    first = first_release(story, store, folder / "ground")
    (folder / "loop").mkdir()
    (folder / "ground" / "fraud").rename(folder / "loop" / "reservoir")
    loop = Trial(story, store, first, folder / "loop", Course())
    passed: list[str] = []
    for number, day in enumerate(DAYS):
        if number == 1:
            for kind in kinds:
                branch = loop.branch(kind, folder / kind)
                branch.fine_tune(day)
                passed += [kind] * told(kind, branch)
        loop.fine_tune(day)
        told(f"honest, day {day}", loop)
    honest = [each["passed"] for each in loop.told]
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "poisoned": len(kinds), "poisoned_passed": len(passed), "passed_kinds": passed,
        "honest": len(honest), "honest_refused": honest.count(False),
        "labels": int(np.mean([each["training"] for each in loop.told])),
        "finetunes_cpu_s": children.ru_utime + children.ru_stime,
    }  # fmt: skip


def told(name: str, loop: Loop) -> bool:
    last = loop.told[-1]
    say(f"{name}: {'passed' if last['passed'] else 'refused'} ({last['training']:,}). {' '.join(last['refused'])}")
    return bool(last["passed"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gate_real", description=__doc__)
    parser.add_argument("--size", type=float, default=1.0, help="times 500 orders a day")
    parser.add_argument("--kinds", nargs="+", choices=sorted(POISONS), default=list(POISONS))
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="headrace-gate-") as folder:
        try:
            figures = measure(arguments.size, Path(folder), tuple(arguments.kinds))
        except HeadraceError as error:
            sys.exit(str(error))
    show("gate_real", figures, {"poisoned_passed": 0, "honest_refused": 1})


if __name__ == "__main__":
    main()
