"""Makes one release a task with random weights; a process of its own, since torch must stay out of the others."""

import sys
import tempfile
from pathlib import Path

import torch

from engines.export import export
from engines.model import HeadraceConfig, HeadraceModel
from engines.releases import ReleaseStore
from streams.tasks.fraud import FIELDS

for task in ("fraud", "recommendations", "ctr"):
    torch.manual_seed(1)
    model = HeadraceModel(HeadraceConfig(task=task, width=16, hidden=32, fields=len(FIELDS)))
    with tempfile.TemporaryDirectory() as folder:
        settings = {"mean": 0.1, "review": 0.5, "block": 0.9, "popular": ["item-1"], "baseline": [0.5] * len(FIELDS)}
        description = export(model, Path(folder), settings=settings)
        print(task, ReleaseStore(sys.argv[1]).publish(task, Path(folder), description).version)
