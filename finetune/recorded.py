"""What a first training is asked of a task: its examples and labels, how a model begins, learns and ends.
The problems themselves, a class a task, are in `finetune/problems.py` and `finetune/fraud.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from engines.model import HeadraceModel
from finetune.history import Examples, Recording
from finetune.losses import tensors
from finetune.trainer import Held, Loss, TorchTable
from schemas.errors import TrainingError
from streams.catalog import Catalogue
from streams.tasks.base import Task

VALIDATION = 0.15  # the newest share of the examples does not train: it calibrates and sets thresholds

LOOKED, LOOKED_AT = 256, 2048  # examples of one call of the model; newest held-out ones that curves are of

Outputs = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Finish:
    """What held-out examples say of a trained model: for the manifest."""

    calibration: dict[str, float]
    settings: dict[str, Any]
    metrics: dict[str, Any]


class Asked:
    """Examples of one task that an engine is asked about."""

    task: Task
    catalog: Catalogue
    examples: Examples

    def shared_inputs(self, vectors: NDArray[np.float32]) -> Outputs:
        """Engine inputs beyond the rows' own, given the vector table."""
        return {}


class Problem(Asked, ABC):
    """What a release is made of: examples of one task, and what they say of a trained model.

    The first `learning` of the examples train, the rest, the newest, are held out.
    """

    name: ClassVar[str]
    held_rows: ClassVar[int] = 4096
    """So many of the newest held-out examples calibrate."""
    learning: int

    @property
    def bias(self) -> NDArray[np.float32] | None:
        """(rows,) what is added to the catalogue's scores; None where nothing is ranked."""
        return None

    @abstractmethod
    def finish(self, outputs: Outputs, which: NDArray[np.intp]) -> Finish:
        """From the compiled engine's outputs for the examples of numbers `which`."""


class Recorded(Problem):
    """Of a first training: examples of a recording, with their labels. Raises TrainingError where they cannot teach.

    `examples` are those that have a label by now; those that are held out calibrate. `label` (N, ...): theirs.
    """

    label: NDArray[Any]
    loss_weights: Mapping[str, float] = {}
    """By name, as the task's loss knows them."""

    def __init__(self, task: Task, recording: Recording, catalog: Catalogue) -> None:
        self.task, self.recording, self.catalog = task, recording, catalog
        self.examples = self.labelled(recording.examples[self.name])
        if not len(self.examples):
            raise TrainingError(f"no examples of {self.name}", expected="events of its topic that have labels by now")
        self.learning = max(1, round(len(self.examples) * (1 - VALIDATION)))
        self.prepare()

    def labelled(self, examples: Examples) -> Examples:
        """Those whose label is known by now; all, unless a task says otherwise."""
        return examples

    @abstractmethod
    def prepare(self) -> None:
        """Makes the labels."""

    def sizes(self) -> dict[str, int]:
        """What the model's config is to say beyond the task."""
        return {}

    def remarks(self) -> dict[str, str]:
        """What the manifest is to say besides of what was learned from, and of what could not be."""
        return {}

    @abstractmethod
    def begin(self, model: HeadraceModel) -> None:
        """Sets what a model takes from its training rows without learning."""

    @abstractmethod
    def loss(self) -> Loss:
        """Over the first `learning` examples."""

    def end(self, model: HeadraceModel) -> None:
        """What is added to a model that has learned; nothing, unless a task says otherwise."""

    @property
    def held_out(self) -> NDArray[np.intp]:
        """Numbers of the newest examples, which do not train: as many as calibrate."""
        return np.arange(self.learning, len(self.examples))[-self.held_rows :]

    @torch.no_grad()
    def outputs(
        self, model: HeadraceModel, table: TorchTable, which: NDArray[np.intp], shared: Outputs | None = None
    ) -> Outputs:
        """What the model itself says of the examples of numbers `which`, as an engine would. shared: inputs beyond the
        rows' own, where they are another problem's.
        """
        if shared is None:
            shared = self.shared_inputs(table.look_up(np.arange(len(self.catalog), dtype=np.int32)).numpy())
        given = tensors(shared)
        parts = [model(**self.inputs(which[at : at + LOOKED], table), **given) for at in range(0, len(which), LOOKED)]
        return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}

    def inputs(self, which: NDArray[np.intp], table: TorchTable) -> dict[str, torch.Tensor]:
        """Engine inputs of these examples as tensors."""
        return tensors(self.task.inputs(self.examples.rows[which], table))

    def held(self) -> Held:
        """Figures of the newest LOOKED_AT held-out examples, calibrated on these very ones."""
        which = self.held_out[-LOOKED_AT:]
        return lambda model, table: self.finish(self.outputs(model, table, which), which).metrics
