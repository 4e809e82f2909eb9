"""Small real releases for the engine tests: random weights, exported once a run, one a task."""

import atexit
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from engines.export import export
from engines.model import HeadraceConfig, HeadraceModel
from engines.releases import Release, ReleaseStore

TASKS = ("fraud", "recommendations", "ctr")
SMALL: dict[str, Any] = {
    "width": 16,
    "heads": 2,
    "hidden": 32,
    "history": 8,
    "fields": 5,
    "text_width": 24,
    "top_k": 12,
    "conversions": 1,
    "affinities": 1,
}


@cache
def store() -> ReleaseStore:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return ReleaseStore(folder.name)


@cache
def model(task: str) -> HeadraceModel:
    torch.manual_seed(7)
    made = HeadraceModel(HeadraceConfig(task=task, **SMALL))
    made.eval()
    return made


@cache
def release(task: str) -> Release:
    with tempfile.TemporaryDirectory() as folder:
        description = export(model(task), Path(folder), calibration={"a": 0.9, "b": -0.1}, settings={"mean": 0.1})
        return store().publish(task, Path(folder), description)
