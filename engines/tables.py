"""Vector tables: one row of the release's width per catalogue row, made by its item tower outside the main
graph. The tower runs in f32 and in chunks of a fixed shape, so a row's vector never depends on what else was
encoded.
"""

from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.compiled import Build, built, shared
from engines.releases import Release
from schemas.errors import EngineError

GRAPH = "item_tower.onnx"
CHUNK = 256
HASHES = 3  # columns of an item's id behind its scalars, which a release without vectors by id does not read
Vectors = NDArray[np.float32]


class Tower(Protocol):
    """text (N, T) float32 of length 1, scalars (N, S or more) float32, kinds (N,) int32 to vectors (N, D) float32."""

    def __call__(self, text: Vectors, scalars: Vectors, kinds: NDArray[np.int32]) -> Vectors: ...


class ItemTower:
    """The release's item tower, compiled once. Call it from one thread at a time."""

    def __init__(self, release: Release, *, threads: int = 1) -> None:
        build = self.build(release, threads=threads)
        self._inputs: dict[str, NDArray[Any]] = {
            name: np.zeros(shape, np.int32 if name == "kinds" else np.float32) for name, shape in build.shapes.items()
        }
        self._request = built(release, [build])[0].create_infer_request()
        for name, array in self._inputs.items():
            self._request.set_tensor(name, shared(array))
        self.width = int(release.manifest.config["width"])

    @staticmethod
    def build(release: Release, *, threads: int = 1) -> Build:
        config = release.manifest.config
        hashes = HASHES if config.get("item_buckets") else 0
        shapes = {
            "text": (CHUNK, config["text_width"]),
            "scalars": (CHUNK, config["item_scalars"] + hashes),
            "kinds": (CHUNK,),
        }
        return Build(GRAPH, "f32", threads, shapes)

    def __call__(self, text: Vectors, scalars: Vectors, kinds: NDArray[np.int32]) -> Vectors:
        scalars = scalars[:, : self._inputs["scalars"].shape[1]]
        given: dict[str, NDArray[Any]] = {"text": text, "scalars": scalars, "kinds": kinds}
        self._check(given)
        vectors = np.empty((len(text), self.width), np.float32)
        for start in range(0, len(text), CHUNK):
            rows = min(CHUNK, len(text) - start)
            for name, array in given.items():
                self._inputs[name][:rows] = array[start : start + rows]
            self._request.infer()
            vectors[start : start + rows] = self._request.get_tensor("vectors").data[:rows]
        return vectors

    def _check(self, given: dict[str, NDArray[Any]]) -> None:
        for name, array in given.items():
            expected = (len(given["text"]), *self._inputs[name].shape[1:])
            if array.shape != expected or array.dtype != self._inputs[name].dtype:
                raise EngineError(
                    f"{name} is {array.dtype} {array.shape}",
                    where="item tower",
                    expected=f"{self._inputs[name].dtype} {expected}",
                )


class VectorTable:
    """Catalogue rows as vectors; row 0, the unknown item, is zero.

    `vectors` is replaced, never changed in place: who holds an older one may go on using it, and engines
    recognise a new one by identity.
    """

    def __init__(self, tower: Tower, width: int) -> None:
        self.tower = tower
        self.vectors: Vectors = np.zeros((1, width), np.float32)
        self._seen: NDArray[np.float64] = np.zeros((0, 0))

    def refresh(self, text: Vectors, scalars: Vectors, kinds: NDArray[np.int32]) -> None:
        """Encodes the rows that are new, or other than at the last time. Rows are never taken away."""
        facts = np.column_stack([text @ probe(text.shape[1]), scalars, kinds]).astype(np.float64)
        known = min(len(self._seen), len(facts))
        stale = np.ones(len(facts), np.bool_)
        stale[:known] = (facts[:known] != self._seen[:known]).any(axis=1) if known else False
        stale[:1] = False
        self._seen = facts
        rows = np.flatnonzero(stale)
        if not len(rows):
            return
        vectors = np.zeros((max(len(facts), len(self.vectors)), self.vectors.shape[1]), np.float32)
        vectors[: len(self.vectors)] = self.vectors
        vectors[rows] = self.tower(text[rows], scalars[rows], kinds[rows])
        self.vectors = vectors


@cache
def probe(width: int) -> Vectors:
    """A fixed random direction: texts of equal projection are taken as equal, which saves a copy."""
    return np.random.default_rng(0).standard_normal(width).astype(np.float32)
