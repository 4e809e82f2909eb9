"""Makes a release a task with random weights: `python -m bench.random_releases STORE [width=64 ...]`.
A process of its own, for torch must stay out of the others; a line `task version` for each.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from engines.export import export
from engines.model import HeadraceConfig, HeadraceModel
from engines.releases import ReleaseStore
from streams.tasks.fraud import FIELDS


def main(store: str, *sizes: str) -> None:
    given: dict[str, Any] = {name: int(size) for name, size in (part.split("=") for part in sizes)}
    settings = {"mean": 0.1, "review": 0.5, "block": 0.9, "popular": ["item-000001"]}
    for task in ("fraud", "recommendations", "ctr"):
        torch.manual_seed(1)
        model = HeadraceModel(HeadraceConfig(task=task, fields=len(FIELDS), **given))
        with tempfile.TemporaryDirectory() as folder:
            description = export(model, Path(folder), settings=settings)
            print(task, ReleaseStore(store).publish(task, Path(folder), description).version, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
