"""Distillation: a smaller model learns from the labels and from what a larger one, its teacher, says of the examples.
Hinton, Vinyals and Dean 2015, Distilling the knowledge in a neural network, at temperature 1: a chance stays a chance.
Of rankings the teacher's whole distribution is the target; Tang and Wang 2018, Ranking distillation, take its top.

The student begins with all of the teacher's weights that fit it: a model of fewer layers with those of the first ones
(Sanh et al. 2019, DistilBERT, section 3, begins with every other). What does not fit begins as in a first training.
"""

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from engines.model import HeadraceConfig, HeadraceModel
from finetune.fraud import Fraud
from finetune.losses import Teacher, next_item_loss
from finetune.problems import begin_with_texts
from finetune.recorded import Recorded
from finetune.trainer import Loss, TorchTable

DISTILLED = ("width", "layers", "heads", "hidden")


def student_of(teacher: HeadraceModel, sizes: Mapping[str, int], problem: Recorded, seed: int = 0) -> HeadraceModel:
    """A model of the teacher's sizes but for these, of DISTILLED. Of another width, it knows items by their texts."""
    torch.manual_seed(seed)
    config: dict[str, Any] = {name: getattr(teacher.config, name) for name in HeadraceConfig.__annotations__}
    if "width" in sizes or "heads" in sizes:
        config["head_width"] = 0
    student = HeadraceModel(HeadraceConfig(**config | dict(sizes)))
    if student.config.width != teacher.config.width:
        begin_with_texts(student, problem.catalog)
        if not isinstance(problem, Fraud):  # its columns are the teacher's
            problem.begin(student)
    own = student.state_dict()
    fits = {name: each for name, each in teacher.state_dict().items() if name in own and own[name].shape == each.shape}
    student.load_state_dict(fits, strict=False)
    return student


def taught(problem: Recorded, teacher: HeadraceModel, share: float, bias: NDArray[np.float32] | None) -> Loss:
    """The problem's loss, in which so much of each target is what the teacher says, and the rest the label.

    bias (rows,): what is added to the catalogue's scores, of who ranks. A cross-entropy is linear in its target, so the
    mean of both targets stands for the mean of both losses.
    """
    table = TorchTable(teacher, problem.catalog)
    table.freeze()
    first = slice(problem.learning)
    if bias is not None:
        rows, label = problem.examples.rows[first], problem.label[first]
        return next_item_loss(problem.task, rows, label, bias, Teacher(teacher, table, share))
    said = expit(problem.outputs(teacher, table, np.arange(problem.learning))["logit"])
    softer = copy(problem)
    softer.label = problem.label.copy()
    softer.label[first] = share * said + (1 - share) * problem.label[first]
    return softer.loss()
