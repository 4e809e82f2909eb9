"""The plan of a fine-tune: all that a run depends on, as JSON, read strictly.
Two runs of one plan make one release: what names the plan leaves out only where it runs and what it may hold.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune.incremental import Recipe
from finetune.served import SERVED
from schemas.errors import SettingsError


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class File(Part):
    path: Path
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Kept(Part):
    """The reservoir. bytes: on the disk; a row is a kilobyte."""

    folder: Path
    rows: int = Field(50_000, gt=0)
    bytes: int = Field(64 << 20, gt=0)
    seed: int = Field(0, ge=0, lt=2**32)


class Gate(Part):
    """What the gate asks for: so many labels and positives of the window, a p99 within the budget."""

    labels: int = Field(gt=0)
    positives: int = Field(gt=0)
    budget_ms: float = Field(gt=0)
    seed: int = Field(0, ge=0, lt=2**32)


class TunePlan(Part):
    """champion: the version to start from. store: of releases; cache: for a store that is not a local disk.

    examples: Avro files of TrainingExample; holding: more of them, to stop and judge by in the place of the holdout:
    then all of `examples` trains. window: more of them, for the gate alone; gate: None makes a candidate that
    nobody has judged. catalog: an .npz of `example_files.write_catalog`. out: a folder for
    checkpoints and the result. replay: share of the training that comes from the reservoir. holdout: the newest
    share of the new examples, half to stop by and calibrate, half to judge by. period: `shared` leaves out what is
    newer or older than all negatives. negatives: the share that was kept, by default the task's; correction:
    `weights` lets each weigh its inverse, `offset` moves the logit instead. delays: how long positives take, as
    `finetune.delays.Delays` writes it; None takes silence for a negative. int8: quantise too. trained: what the
    manifest says besides. curves: a folder for TensorBoard's files.
    """

    task: str
    champion: str
    store: str
    cache: Path | None = None
    examples: tuple[File, ...] = Field(min_length=1)
    holding: tuple[File, ...] = ()
    window: tuple[File, ...] = ()
    gate: Gate | None = None
    catalog: File
    out: Path
    curves: Path | None = None
    reservoir: Kept | None = None
    replay: float = Field(0.5, ge=0, lt=1)
    holdout: float = Field(0.2, gt=0, lt=1)
    period: Literal["shared", "any"] = "shared"
    negatives: float | None = Field(None, gt=0, le=1)
    correction: Literal["weights", "offset"] = "weights"
    delays: dict[str, tuple[float, ...]] | None = None
    recipe: dict[str, Any] = {}
    int8: bool = False
    threads: int = Field(1, gt=0)
    memory_mb: float = Field(3000, gt=0)
    trained: dict[str, Any] = {}

    @property
    def identity(self) -> str:
        """Names what is made: equal for plans that differ only in folders and bounds."""
        where = {"store", "cache", "out", "curves", "memory_mb", "catalog", "examples", "holding", "window"}
        said = self.model_dump(mode="json", exclude=where)
        if self.reservoir is not None:
            del said["reservoir"]["folder"]
        said["files"] = [self.catalog.sha256, *(file.sha256 for file in self.examples)]
        said["holding"] = [file.sha256 for file in self.holding]
        said["window"] = [file.sha256 for file in self.window]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def made_recipe(self) -> Recipe:
        """Raises SettingsError for what is no recipe."""
        try:
            return Recipe(**self.recipe)
        except TypeError as error:
            raise SettingsError(
                f"{error}", where="recipe", expected="the fields of finetune.incremental.Recipe"
            ) from error


def read_plan(path: Path) -> TunePlan:
    """Raises SettingsError that names the first thing that is wrong."""
    try:
        plan = TunePlan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"the plan cannot be read: {error}", where=str(path), expected="a JSON file") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"{place}: {first['msg']}" if place else first["msg"], where=str(path), expected="a plan of finetune.plan"
        ) from error
    if plan.task not in SERVED:
        raise SettingsError(f"no task named {plan.task!r}", where=str(path), expected=f"one of {', '.join(SERVED)}")
    plan.made_recipe()
    return plan
