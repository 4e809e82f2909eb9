"""A release that scores what was served, outside the worker: same engine settings, features as they were served.
For questions about a span; a score that must be the same bit for bit is for `streams.tracing.reproduce`.
"""

from collections.abc import Sequence

import numpy as np

from engines.releases import ReleaseStore
from engines.slot import load
from streams.answering import answered
from streams.catalog import NOT_A_CANDIDATE, Catalogue
from streams.config import Settings
from streams.events import Record
from streams.exploring import exploring_task
from streams.features import unpack
from streams.live import prior_of
from streams.lookups import Lookups
from streams.output_columns import FEATURES_FORMAT
from streams.tasks.base import Result, Serving
from streams.tracing.reproduce import event_of


class Candidate:
    """Over the catalogue as it is now. `close` frees the engine."""

    def __init__(self, settings: Settings, store: ReleaseStore, catalog: Catalogue, task: str, version: str) -> None:
        """version: empty for the newest. Raises ReleaseError, EngineError."""
        release = store.open(task, version) if version else store.latest(task)
        engine = settings.engine
        self.task, self.name = exploring_task(settings, task), f"{task}/{release.version}"
        self._loaded = load(
            release, backend=engine.backend, precision=engine.precision, buckets=engine.buckets, threads=engine.threads
        )
        bias = catalog.candidate_bias() + prior_of(self._loaded, catalog.items, len(catalog))
        self._loaded.refresh(catalog.text, catalog.scalars, catalog.kind, np.maximum(bias, NOT_A_CANDIDATE))
        self._serving = Serving(catalog, self._loaded.calibration, self._loaded.settings)

    def score(self, served: Sequence[Record]) -> list[Result]:
        """Of `served` records that are `readable`, any number. Raises EngineError."""
        rows = unpack([record["features"] for record in served], self.task.features)
        table, step, out = Lookups(self._loaded.table), self._loaded.max_batch, []
        events = [event_of(self.task, record, row) for record, row in zip(served, rows, strict=True)]
        for start in range(0, len(served), step):
            part = slice(start, start + step)
            results, _ = answered(self.task, self._loaded, rows[part], events[part], self._serving, table)
            out += results
        return out

    def readable(self, served: Record) -> bool:
        """Whether its features are of a format and size that this version reads."""
        return served["features_format"] == FEATURES_FORMAT and len(served["features"]) == self.task.features.itemsize

    def close(self) -> None:
        self._loaded.engine.close()


def said(served: Record) -> Result:
    """What was served, as a result without its score record's fields."""
    return Result({}, list(served["candidates"]), list(served["prediction"]), served["decision"])
