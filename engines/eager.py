"""The oracle: the release's own weights, run by torch layer by layer.
The learner and the checks use it; a worker never does.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch

from engines.base import Array, Arrays, Engine
from engines.model import load_model
from engines.processor import processor
from engines.releases import Release
from schemas.errors import EngineError

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class EagerEngine(Engine):
    """torch on the CPU; bf16 is autocast. `threads` is torch's own setting, of the whole process."""

    name: ClassVar[str] = "eager"

    def __init__(self, release: Release, *, precision: str, buckets: Sequence[int], threads: int) -> None:
        super().__init__(release.manifest.signature, buckets)
        if precision not in DTYPES:
            raise EngineError(
                f"precision {precision!r}", where="engine.precision", expected=f"one of {', '.join(DTYPES)}"
            )
        torch.set_num_threads(threads)
        self.precision, self.target = precision, f"{processor()}, torch {torch.__version__}"
        self._model = load_model(release.folder)
        self._taken: dict[str, Array] = {}
        self._closed = False

    def _run(self, bucket: int, arrays: dict[str, Array]) -> Arrays:
        if self._closed:
            raise EngineError("the engine was closed", where=f"engine {self.name}", todo="take the slot's live engine")
        inputs = {name: torch.from_numpy(array) for name, array in (*arrays.items(), *self._taken.items())}
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = self._model(**inputs)
        return {spec.name: outputs[spec.name].to(getattr(torch, spec.dtype)).numpy() for spec in self.signature.outputs}

    def _take(self, name: str, array: Array) -> None:
        self._taken[name] = array

    def close(self) -> None:
        self._closed = True
        self._taken.clear()
