"""The null engine: zeros of the right shapes.
With it everything but the model and its inputs is measured and tested.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from engines.base import Array, Arrays, Engine, Given, Inference
from engines.manifest import Manifest
from engines.releases import Release
from engines.signatures import SIZES, signature
from engines.tables import Tower, Vectors
from schemas.errors import EngineError


class NullEngine(Engine):
    """Checks and copies inputs that it is given, as any engine does, and answers zeros; it needs none."""

    name: ClassVar[str] = "null"
    precision = "none"
    target = "none"

    def __init__(self, release: Release, *, precision: str, buckets: Sequence[int], threads: int) -> None:
        super().__init__(release.manifest.signature, buckets)
        self._zeros = {spec.name: np.zeros(spec.shape(self.buckets[-1]), spec.dtype) for spec in self.signature.outputs}

    def answer(self, rows: int, inputs: Callable[[], Given]) -> Inference:
        """What `infer` says to any inputs of so many rows; they are not made."""
        bucket = next(bucket for bucket in self.buckets if bucket >= rows)
        return Inference({name: array[:rows].copy() for name, array in self._run(bucket, {}).items()}, bucket)

    def _run(self, bucket: int, arrays: dict[str, Array]) -> Arrays:
        if not self._zeros:
            raise EngineError("the engine was closed", where=f"engine {self.name}", todo="take the slot's live engine")
        return self._zeros

    def _take(self, name: str, array: Array) -> None:
        """Nothing: zeros need no catalogue."""

    def close(self) -> None:
        self._zeros.clear()


def null_release(task: str, **sizes: int) -> Release:
    """A release without files: enough for the null engine. sizes: what differs from SIZES."""
    config = {**SIZES, **sizes, "task": task}
    manifest = Manifest(
        signature=signature(config),
        config=config,
        task=task,
        version="null",
        created_at="1970-01-01T00:00:00.000+00:00",
        files={},
    )
    return Release(manifest, Path(), "")


def null_tower(width: int = SIZES["width"]) -> Tower:
    """An item tower that makes zero vectors."""

    def tower(text: Vectors, scalars: Vectors, kinds: NDArray[np.int32]) -> Vectors:
        return np.zeros((len(text), width), np.float32)

    return tower
