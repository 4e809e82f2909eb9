"""Where a training stands, on the disk: weights, moments and the best weights as safetensors, the rest as JSON.
A checkpoint is there whole or not at all; one that is of another training, or damaged, is as if it were not there.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from engines.files import sync

INDEX = "checkpoint.json"
FORMAT = 1


@dataclass(slots=True)
class Progress:
    """step: done so far. best: the least loss on the examples to stop by, `best_step` when. stale: evaluations since.

    losses: of each evaluation, the first before any step.
    """

    step: int = 0
    best: float = float("inf")
    best_step: int = 0
    stale: int = 0
    losses: list[float] = field(default_factory=list)


def write(folder: Path, identity: str, progress: Progress, tensors: dict[str, Tensor]) -> None:
    """`identity`: names the data, the champion and the settings. Tensors first, then the index that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    path = folder / f"checkpoint-{progress.step}.safetensors"
    index = {
        "format": FORMAT,
        "identity": identity,
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "progress": asdict(progress),
    }
    for target, content in ((path, data), (folder / INDEX, json.dumps(index).encode())):
        partial = target.with_name(f".{target.name}.partial")
        partial.write_bytes(content)
        sync(partial)
        os.replace(partial, target)
        sync(folder)
    for old in folder.glob("checkpoint-*.safetensors"):
        if old != path:
            old.unlink(missing_ok=True)


def read(folder: Path, identity: str) -> tuple[Progress, dict[str, Tensor]] | None:
    """The checkpoint of this very training; None where there is none."""
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text("utf-8"))
        if (index["format"], index["identity"]) != (FORMAT, identity):
            return None
        data = (folder / Path(index["file"]).name).read_bytes()
        if hashlib.sha256(data).hexdigest() != index["sha256"]:
            return None
        return Progress(**index["progress"]), load(data)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
