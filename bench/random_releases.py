"""Makes a release a task with random weights: `python -m bench.random_releases STORE [seed=1 copies=1 width=64 ...]`.
A process of its own, for torch must stay out of the others; a line `task version` for each.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from engines.export import export
from engines.model import HeadraceConfig, HeadraceModel
from engines.probe import write_probe
from engines.releases import ReleaseStore
from engines.samples import sample
from streams.tasks.fraud import FIELDS

PROBE_ROWS, PROBE_CATALOG = 32, 256


def main(store: str, *sizes: str) -> None:
    """`seed` draws the weights; of more than one copy, each has the name `seed<seed>-<number>`."""
    given: dict[str, Any] = {name: int(size) for name, size in (part.split("=") for part in sizes)}
    seed, copies = given.pop("seed", 1), given.pop("copies", 1)
    settings = {"mean": 0.1, "review": 0.5, "block": 0.9, "popular": ["item-000001"], "baseline": [0.5] * len(FIELDS)}
    for task in ("fraud", "recommendations", "ctr"):
        torch.manual_seed(seed)
        model = HeadraceModel(HeadraceConfig(task=task, fields=len(FIELDS), **given))
        with tempfile.TemporaryDirectory() as folder:
            description = export(model, Path(folder), settings=settings)
            inputs = sample(description.signature, PROBE_ROWS, catalog=PROBE_CATALOG)
            model.eval()  # type: ignore[no-untyped-call]  # transformers wraps torch's without types
            with torch.inference_mode():
                found = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
            names = [spec.name for spec in description.signature.outputs]
            types = {spec.name: spec.dtype for spec in description.signature.outputs}
            write_probe(Path(folder), inputs, {name: found[name].numpy().astype(types[name]) for name in names})
            for copy in range(copies):
                version = f"seed{seed}-{copy}" if copies > 1 else ""
                made = ReleaseStore(store).publish(task, Path(folder), description, version=version)
                print(task, made.version, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
