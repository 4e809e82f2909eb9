"""One fine-tune from its files to its result: written down before it begins, so that a killed learner goes on with it.
The process it runs in is another one; this one waits, and reads what it printed.
"""

import json
import logging
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finetune.example_files import whole, write_catalog, write_examples
from schemas.errors import StateError
from streams.catalog import Catalogue
from streams.config import Settings
from streams.events import Record
from streams.learner.child import COMPLAINT, SAID, Standby, end
from streams.learner.split import Split

log = logging.getLogger(__name__)

NOTE, PLAN, CURVES = "cycle.json", "plan.json", "curves"
CURVES_KEPT = 100  # fine-tunes whose curves stay: 20 KB each
STEPS, SMALLEST, LARGEST = 100, 16, 128  # of one pass; examples a step
SHOWN = 2_000  # characters of a complaint


@dataclass(frozen=True, slots=True)
class Cycle:
    """What is written down. reason: why it began; kind: the same in one word. begun_at, newest_at: UTC ms, of its start
    and of the broker when the newest example that trains arrived. examples: how many train.
    """

    task: str
    number: int
    reason: str
    champion: str
    begun_at: int
    newest_at: int
    examples: int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """made: the candidate's version, if there is one. passed: whether the gate let it through. said: all it printed."""

    made: str | None
    passed: bool
    reason: str
    said: dict[str, Any] = field(default_factory=dict)


class Bench:
    """The workbench of one task: a folder with the fine-tune that is under way, if any. One process at a time."""

    def __init__(self, settings: Settings, task: str, folder: Path, standby: Standby) -> None:
        self._settings, self.task, self.folder, self._standby = settings, task, folder, standby
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def begin(
        self,
        cycle: Cycle,
        split: Split,
        catalog: Catalogue,
        examples: Iterable[Record],
        *,
        seed: int,
        delays: dict[str, Any] | None = None,
    ) -> None:
        """Writes the files and the plan, then the note that it has begun. Raises OSError where the disk is full."""
        folder = self.folder / str(cycle.number)
        try:
            self._write(cycle, split, catalog, examples, folder, seed, delays)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)  # a full disk gets back what it gave
            raise
        for old in self.folder.iterdir():
            if old.is_dir() and old.name.isdecimal() and old != folder:
                shutil.rmtree(old, ignore_errors=True)
        for old in sorted((self.folder / CURVES).glob("*"))[:-CURVES_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _write(
        self, cycle: Cycle, split: Split, catalog: Catalogue, examples: Iterable[Record], folder: Path, seed: int,
        delays: dict[str, Any] | None,
    ) -> None:  # fmt: skip
        folder.mkdir(parents=True)
        files: dict[str, list[Record]] = {"training": [], "holding": [], "window": []}
        for record in examples:
            time = record["event_time"]
            if time <= split.standing.until:
                files["training"].append(record)
            elif time <= split.held_until:
                files["holding"].append(record)
            elif split.gate_after < time <= split.mature:
                files["window"].append(record)
        plan = self._plan(cycle, split, folder, files, write_catalog(folder / "catalog.npz", catalog))
        recipe = {"mode": self._settings.learning.mode, "seed": seed, "batch": batch_of(len(files["training"]))}
        plan |= {"delays": delays, "recipe": recipe}
        plan["gate"]["seed"] = seed
        with whole(folder / PLAN) as partial:
            partial.write_text(json.dumps(plan))
        with whole(self.folder / NOTE) as partial:
            partial.write_text(json.dumps(asdict(cycle)))

    def _plan(
        self, cycle: Cycle, split: Split, folder: Path, files: Mapping[str, list[Record]], catalog: str
    ) -> dict[str, Any]:
        settings, learning = self._settings, self._settings.learning
        written = {
            name: {"path": str(folder / f"{name}.avro"), "sha256": write_examples(folder / f"{name}.avro", records)}
            for name, records in files.items()
        }
        return {
            "task": self.task,
            "champion": cycle.champion,
            "store": settings.release_store,
            "cache": str(settings.data_dir / "release-cache"),
            "examples": [written["training"]],
            "holding": [written["holding"]],
            "period": "any",  # the split has left out what is younger than all silence
            "window": [written["window"]],
            "gate": {
                "labels": learning.gate_labels,
                "positives": learning.gate_positives,
                "budget_ms": settings.deadline_ms(self.task) / 4,  # the rest is Kafka's and the queue's
            },
            "catalog": {"path": str(folder / "catalog.npz"), "sha256": catalog},
            "out": str(folder / "out"),
            "curves": str(self.folder / CURVES / f"{cycle.number:06}") if learning.curves else None,
            "reservoir": {"folder": str(self.folder / "reservoir"), "rows": learning.reservoir},
            "int8": settings.engine.precision == "int8",
            "threads": learning.threads,
            "memory_mb": learning.memory_mb,
            "trained": {
                "standing": split.standing.as_dict(),
                "held_until": split.held_until,
                "reason": cycle.reason,
                "trigger": cycle.kind,
                "number": cycle.number,
            },
        }

    @property
    def cycle(self) -> Cycle | None:
        """The fine-tune that has begun and is not settled. Raises StateError for a note that cannot be read."""
        path = self.folder / NOTE
        try:
            return Cycle(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise StateError(
                f"the note of a fine-tune cannot be read: {error}",
                where=str(path),
                expected="a JSON object that this version wrote",
                todo="delete it: the fine-tune begins again, and nothing is lost",
            ) from error

    def start(self) -> None:
        """Runs the fine-tune of the note, from where it was."""
        cycle = self.cycle
        assert cycle is not None, "begin it first"
        folder = self.folder / str(cycle.number)
        (folder / SAID).unlink(missing_ok=True)
        self._process = self._standby.start(folder / PLAN)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def outcome(self) -> Outcome | None:
        """What came of it; None while it runs, or was not started."""
        process = self._process
        if process is None or process.poll() is None:
            return None
        cycle = self.cycle
        assert cycle is not None
        folder = self.folder / str(cycle.number)
        said = _last_object(folder / SAID)
        if process.returncode == 0 and said.get("made"):
            passed = said.get("verdict") == "pass"
            return Outcome(said["made"], passed, "" if passed else refusal(said), said)
        if process.returncode == 3:
            return Outcome(None, False, str(said.get("refused", "no reason was given")), said)
        complaint = "".join(_text(path) for path in (self._standby.complaint, folder / COMPLAINT)).strip()[-SHOWN:]
        return Outcome(None, False, f"the fine-tune ended with code {process.returncode}: {complaint}", said)

    def settle(self) -> None:
        """It is over, whatever came of it: the next one may begin."""
        self._process = None
        (self.folder / NOTE).unlink(missing_ok=True)

    def stop(self) -> None:
        """Ends the process, if one runs; the note stays, and the next `start` goes on."""
        process, self._process = self._process, None
        if process is not None:
            end(process)


def batch_of(examples: int) -> int:
    """So many that one pass over a few examples is some STEPS steps: of five steps nothing is learned."""
    return min(max(1 << (examples // STEPS).bit_length() >> 1, SMALLEST), LARGEST)


def refusal(said: dict[str, Any]) -> str:
    """The gate's reasons in its own sentences."""
    checks = (said.get("gate") or {}).get("checks", [])
    return " ".join(check["said"] for check in checks if not check["passed"]) or "the gate gave no verdict"


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _last_object(path: Path) -> dict[str, Any]:
    try:
        lines = path.read_text("utf-8").strip().splitlines()
        found = json.loads(lines[-1]) if lines else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
