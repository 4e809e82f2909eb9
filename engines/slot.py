"""Slots: which release a task serves with now, which one shadows it, and which stay ready to go back to. A
swap is one assignment between two micro-batches; whoever still holds the old release finishes with it
undisturbed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from engines.ahead import compiled_ahead
from engines.base import Array, Engine, Given, Inference
from engines.certified import open_certified
from engines.openvino import OpenVinoEngine
from engines.releases import Release
from engines.signatures import NOT_A_CANDIDATE
from engines.tables import ItemTower, Tower, Vectors, VectorTable
from schemas.errors import ReleaseError

KEPT = 3  # the live release and the two before it


class Loaded:
    """A release made ready: its engine, its vector table, and what its task needs to decide.

    `infer` from one thread at a time; `refresh` between two micro-batches, never beside another `refresh`.
    """

    def __init__(self, source: Release, engine: Engine, tower: Tower) -> None:
        self.source, self.engine = source, engine
        self.release, self.engine_name = source.version, f"{engine.name} {engine.precision}, {engine.target}"
        self.calibration: Mapping[str, float] = source.manifest.calibration
        self.settings: Mapping[str, Any] = source.manifest.settings
        self.max_batch = engine.buckets[-1]
        self._table = VectorTable(tower, int(source.manifest.config["width"]))
        self._shared: dict[str, Array] = {}
        self._share(np.full(1, NOT_A_CANDIDATE, np.float32))

    @property
    def table(self) -> Vectors:
        """(N, D) vectors of the catalogue's rows as of the last `refresh`; row 0 is zero."""
        return self._table.vectors

    def refresh(
        self,
        text: Vectors,
        scalars: Vectors,
        kinds: NDArray[np.int32],
        bias: Vectors,
    ) -> None:
        """Takes over the catalogue: encodes new and changed rows; bias (N,) says what may be shown."""
        self._table.refresh(text, scalars, kinds)
        self._share(bias)

    def infer(self, inputs: Given) -> Inference:
        """Runs a batch of at most `max_batch` rows; the catalogue is added where the graph reads it."""
        return self.engine.infer({**inputs, **self._shared})

    def answer(self, rows: int, inputs: Callable[[], Given]) -> Inference:
        """As `infer`, of inputs for so many rows that are made only if the engine reads any."""
        return self.engine.answer(rows, lambda: {**inputs(), **self._shared})

    def warm(self) -> None:
        """Runs each bucket once with the catalogue as it is, so that the first batch after a flip is fast."""
        self.engine.warm(self._shared)

    def _share(self, bias: Vectors) -> None:
        if len(bias) != len(self.table):
            raise ReleaseError(f"{len(bias)} biases for a table of {len(self.table)} rows", where=self.source.task)
        self._shared = {"catalog": self.table, "catalog_bias": bias}


@dataclass(frozen=True, slots=True)
class Canary:
    """A release that serves a share of the users, always the same ones, beside the live one."""

    loaded: Loaded
    share: float

    def serves(self, user_id: str) -> bool:
        """Another draw for each release, so that it is not always the same users who try what is new."""
        seed = xxhash.xxh3_64_intdigest(self.loaded.release.encode())
        drawn: int = xxhash.xxh3_64_intdigest(user_id.encode(), seed)
        return drawn < self.share * 2**64


class Slot:
    """One task's releases, safe to read from any thread. Take `live` once a micro-batch."""

    def __init__(self, live: Loaded) -> None:
        self._lock = Lock()
        self._kept: tuple[Loaded, ...] = (live,)
        self._shadow: Loaded | None = None
        self.canary: Canary | None = None
        """Set between two micro-batches; who scores with it and sees it fail sets it to None."""

    @property
    def live(self) -> Loaded:
        return self._kept[0]

    @property
    def shadow(self) -> Loaded | None:
        """Runs on the same inputs after the outputs are sent; its scores are compared, never served."""
        return self._shadow

    @shadow.setter
    def shadow(self, loaded: Loaded | None) -> None:
        self._shadow = loaded

    @property
    def kept(self) -> tuple[Loaded, ...]:
        """The live release, then the ones before it that are still ready; the newest first."""
        return self._kept

    @property
    def ready(self) -> tuple[Loaded, ...]:
        """All that may be asked: those kept, and a shadow or canary that is not one of them."""
        canary = self.canary
        others = (self._shadow, canary.loaded if canary else None)
        return (*self._kept, *{other for other in others if other is not None and other not in self._kept})

    def flip(self, loaded: Loaded) -> Loaded:
        """Makes a warmed release live; returns the one before. What falls out is freed by its last user."""
        with self._lock:
            before = self.live
            others = tuple(other for other in self._kept if other is not loaded)
            self._kept = (loaded, *others)[:KEPT]
            if self._shadow is loaded:
                self._shadow = None
            self.canary = None
            return before

    def roll_back(self) -> Loaded:
        """Drops the live release and makes the one before it live. Raises ReleaseError if none is left."""
        with self._lock:
            if len(self._kept) == 1:
                raise ReleaseError("there is no release to go back to", where=self.live.source.task)
            self._kept = self._kept[1:]
            if self._shadow is self.live:
                self._shadow = None
            return self.live


def load(
    release: Release, *, backend: str, precision: str, buckets: Sequence[int], threads: int, ahead: bool = False
) -> Loaded:
    """A release, its engine built and warmed, its tower compiled; its table is empty until `refresh`.

    ahead: what OpenVINO runs is compiled by a process of its own, at the lowest priority, and only loaded here.
    """
    ready = release
    if ahead:
        builds = [ItemTower.build(release, threads=threads)]
        if backend == OpenVinoEngine.name:
            asked = OpenVinoEngine.builds(release, precision=precision, buckets=buckets, threads=threads)
            builds += [build for build in asked if build.file in release.manifest.files]  # it may have no int8 graph
        ready = compiled_ahead(release, builds)
    engine, _ = open_certified(backend, ready, precision=precision, buckets=buckets, threads=threads)
    return Loaded(release, engine, ItemTower(ready, threads=threads))
