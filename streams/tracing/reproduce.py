"""Scores again, from what was served: the features' bytes, the same release, engine, bucket and row, bit for bit.
Many at once: grouped by release and engine, each of which is loaded once.

What is not recorded is how many catalogue rows a release's table had, and which items could be shown. The rows follow
from the broker's times of the vectors; a list is compared whole first, and else item by item among those served.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import BACKENDS
from engines.releases import ReleaseStore
from engines.slot import Loaded, load
from schemas.errors import BadRecord, EngineError, ReleaseError
from streams.catalog import NOT_A_CANDIDATE
from streams.config import Settings
from streams.events import Record
from streams.features import Rows, unpack
from streams.live import prior_of
from streams.lookups import Lookups
from streams.output_columns import FEATURES_FORMAT
from streams.tasks import make_task
from streams.tasks.base import Result, Serving, Task
from streams.tasks.selection import Selection
from streams.tracing.catalogue import DatedCatalogue

EQUAL, DIFFERS, CANNOT = "equal", "differs", "cannot"
WHOLE, SERVED_ONLY = "all", "scores of what was served"
NEAR_MS = 60_000  # a table takes a new row over a moment after it came, and clocks differ
MOST_TABLES = 8  # other sizes that are tried


@dataclass(frozen=True, slots=True)
class Reproduced:
    """One event's score again. `verdict`: equal, differs or cannot.

    checked: `all`, or `scores of what was served` where only these could be compared, not which items were chosen.
    difference: the largest, of what both have; None where nothing was computed. rows: of the catalogue's table.
    engine: what computed it here; notes: what a person should know of the comparison.
    """

    event_id: str
    target_id: str
    release: str
    verdict: str
    checked: str = ""
    served_engine: str = ""
    engine: str = ""
    bucket: int = 0
    row: int = 0
    rows: int = 0
    difference: float | None = None
    served: dict[str, Any] = field(default_factory=dict)
    again: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def reproduce(
    settings: Settings, store: ReleaseStore, catalogue: DatedCatalogue, served: Sequence[Record]
) -> list[Reproduced]:
    """Each `served` record's score again, in the given order; of any tasks and releases.

    A release that is gone, or an engine that is not here, makes `cannot`, with the reason, of its events.
    """
    out: dict[int, Reproduced] = {}
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, record in enumerate(served):
        if why := _hopeless(record):
            out[number] = _cannot(record, why)
        else:
            groups[record["release"], record["engine"]].append(number)
    for (release, engine), numbers in groups.items():
        records = [served[number] for number in numbers]
        try:
            again = _Again(settings, store, catalogue, release, engine, {r["bucket"] for r in records})
            with closing(again.loaded.engine):
                found = again.run(records)
        except (ReleaseError, EngineError) as error:
            found = [_cannot(record, str(error)) for record in records]
        out.update(zip(numbers, found, strict=True))
    return [out[number] for number in range(len(served))]


def event_of(task: Task, served: Record, row: Rows) -> Record:
    """As much of the scored event as `served` tells: what a task's results need of it to name what they score."""
    positions = row["position"].tolist() if "position" in (task.features.names or ()) else []
    ads = [{"ad_id": ad, "position": at} for ad, at in zip(served["candidates"], positions, strict=False)]
    known = {"request_id": "", "placement": "", "order_id": served["target_id"], "slate": ads}
    return {**known, **served}


def _hopeless(served: Record) -> str:
    """Why a score cannot be had again; empty if nothing speaks against it."""
    if served["fallback"]:
        return f"the fallback answered ({served['fallback']}), not the model"
    if served["bucket"] <= 0:
        return "it was said again after a crash, from its score: the bucket of the first time is not known"
    if served["features_format"] != FEATURES_FORMAT:
        return f"its features are of format {served['features_format']}, and this version reads {FEATURES_FORMAT}"
    try:
        Selection.parse(served["selection"])
    except BadRecord as error:
        return str(error)
    if len(served["features"]) != make_task(served["task"]).features.itemsize:
        return f"its features have {len(served['features'])} bytes, and the task's rows another size"
    return ""


def _cannot(served: Record, why: str) -> Reproduced:
    return Reproduced(
        served["event_id"], served["target_id"], served["release"], CANNOT,
        served_engine=served["engine"], bucket=served["bucket"], row=served["row"],
        served=_said(served["candidates"], served["prediction"], served["decision"]), notes=(why,),
    )  # fmt: skip


def _said(candidates: Sequence[str], prediction: Sequence[float], decision: str | None) -> dict[str, Any]:
    """Predictions as Avro's float holds them: what was served is the 32 bits."""
    values = np.asarray(prediction, np.float32).tolist()
    return {"candidates": list(candidates), "prediction": values, "decision": decision}


class _Again:
    """One release on one engine."""

    def __init__(
        self,
        settings: Settings,
        store: ReleaseStore,
        catalogue: DatedCatalogue,
        release: str,
        engine: str,
        buckets: set[int],
    ) -> None:
        """Raises ReleaseError, EngineError."""
        name, _, version = release.partition("/")
        backend, _, rest = engine.partition(" ")
        precision = rest.partition(",")[0]
        if backend not in BACKENDS:
            raise EngineError(f"engine {engine!r} is none of {', '.join(BACKENDS)}", where=release)
        self.task, self.catalogue = make_task(name), catalogue
        self.loaded: Loaded = load(
            store.open(name, version),
            backend=backend, precision=precision, buckets=sorted(buckets), threads=settings.engine.threads,
        )  # fmt: skip
        catalog = catalogue.catalog
        self.prior = prior_of(self.loaded, catalog.items, len(catalog))
        self.bias = np.maximum(catalog.candidate_bias() + self.prior, NOT_A_CANDIDATE)
        self.loaded.refresh(catalog.text, catalog.scalars, catalog.kind, self.bias)
        self.ranks = any(spec.name == "catalog" for spec in self.loaded.engine.signature.inputs)

    def run(self, served: Sequence[Record]) -> list[Reproduced]:
        """With the rows known then; what differs, on an equal engine, again with what else may explain it."""
        rows = unpack([record["features"] for record in served], self.task.features)
        sizes = [self.catalogue.rows_at(record["served_at"]) for record in served]
        results = self._results(rows, served, sizes, whole=True)
        found = [self._compared(*each, WHOLE) for each in zip(served, results, sizes, strict=True)]
        for number, record in enumerate(served):
            if found[number].verdict == DIFFERS and found[number].engine == record["engine"]:
                found[number] = self._otherwise(found[number], record, rows[number : number + 1])
        return found

    def _otherwise(self, first: Reproduced, served: Record, row: Rows) -> Reproduced:
        """Tries tables of other sizes, and for a list the scores of what was served; else says what is known."""
        for size in (first.rows, *self._near(served, first.rows)):
            for checked in (WHOLE, SERVED_ONLY) if self.ranks else (WHOLE,):
                (result,) = self._results(row, [served], [size], whole=checked == WHOLE)
                found = self._compared(served, result, size, checked)
                if found.verdict == EQUAL:
                    return found
        read = [row[name] for name in row.dtype.names or () if row.dtype[name].base == np.dtype("<i4")]
        changed = self.catalogue.changed(np.concatenate([each.ravel() for each in read]), served["served_at"])
        notes = list(first.notes)
        if changed:
            notes.append(f"text or price may have changed since of {', '.join(changed[:5])}: the catalogue's topics")
        return replace(first, notes=tuple(notes))

    def _near(self, served: Record, size: int) -> list[int]:
        """Other numbers of rows that the table may have had, the nearest first."""
        at, whole = served["served_at"], len(self.catalogue.catalog)
        low, high = self.catalogue.rows_at(at - NEAR_MS), self.catalogue.rows_at(at + NEAR_MS)
        sizes = sorted({*range(low, high + 1)} - {size}, key=lambda each: abs(each - size))[:MOST_TABLES]
        return [*sizes, *({low, high, whole} - {size, *sizes})]

    def _results(self, rows: Rows, served: Sequence[Record], sizes: Sequence[int], *, whole: bool) -> list[Result]:
        """Each event in its bucket and row; many of one bucket at once, where their tables are equal.

        whole: over all that may be shown now; else over what was served alone, an event at a time.
        """
        out: dict[int, Result] = {}
        groups: dict[tuple[int, int, int, str], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for number, (record, size) in enumerate(zip(served, sizes, strict=True)):
            alone = 0 if whole else number + 1
            groups[record["bucket"], size, alone, record["selection"]][record["row"]].append(number)
        for (bucket, size, alone, selection), by_row in groups.items():
            table = self.loaded.table[:size]
            bias = self.bias[:size] if not alone else self._only(served[alone - 1]["candidates"], size)
            for turn in range(max(map(len, by_row.values()))):
                numbers = [queue[turn] for queue in by_row.values() if turn < len(queue)]
                events = [served[number] for number in numbers]
                results = self._call(bucket, rows[numbers], events, table, bias, Selection.parse(selection))
                out.update(zip(numbers, results, strict=True))
        return [out[number] for number in range(len(served))]

    def _call(
        self,
        bucket: int,
        rows: Rows,
        served: Sequence[Record],
        table: NDArray[np.float32],
        bias: NDArray[np.float32],
        selection: Selection,
    ) -> list[Result]:
        """One call of the engine; rows that hold no event are zero, as padding is."""
        places = [record["row"] for record in served]
        batch = np.zeros(bucket, self.task.features)
        batch[places] = rows
        catalog, loaded = self.catalogue.catalog, self.loaded
        serving = Serving(catalog, loaded.calibration, loaded.settings, selection=selection)
        inputs = self.task.inputs_served(batch, Lookups(table), serving)
        inference = self.loaded.engine.infer({**inputs, "catalog": table, "catalog_bias": bias})
        outputs = {name: array[places] for name, array in inference.outputs.items()}
        events = [event_of(self.task, record, row) for record, row in zip(served, rows, strict=True)]
        return self.task.results(outputs, events, rows, serving)

    def _only(self, candidates: Sequence[str], size: int) -> NDArray[np.float32]:
        """The bias where these could be shown and nothing else; a score does not depend on the others."""
        bias = np.full(size, NOT_A_CANDIDATE, np.float32)
        items = self.catalogue.catalog.items
        rows = [row for name in candidates if 0 < (row := items.get(name, 0)) < size]
        bias[rows] = self.prior[rows]
        return bias

    def _compared(self, served: Record, result: Result, size: int, checked: str) -> Reproduced:
        before = _said(served["candidates"], served["prediction"], served["decision"])
        policy = served["policy_version"]
        drawn = served["otherwise"] is not None and result.decision in (served["decision"], served["otherwise"])
        kept = served["decision"] if policy or drawn else result.decision
        after = _said(result.candidates, result.prediction, kept)
        here, notes = self.loaded.engine_name, []
        if drawn:
            notes.append(f"the decision was drawn, with a chance of {served['propensity']:.3g}")
        if policy:
            notes.append(f"the decision is that of the policy {policy}, whose lists of then are not recorded")
        if here != served["engine"]:
            notes.append("this engine is another one: equal bits are not to be expected")
        if checked == SERVED_ONLY:
            notes.append("which items could be shown then is not recorded: scores and order of those served are equal")
        return Reproduced(
            served["event_id"], served["target_id"], served["release"], EQUAL if _same(before, after) else DIFFERS,
            checked=checked, served_engine=served["engine"], engine=here, bucket=served["bucket"], row=served["row"],
            rows=size, difference=_difference(before, after), served=before, again=after, notes=tuple(notes),
        )  # fmt: skip


def _same(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Bit for bit: candidates, decision, and the 32 bits of each prediction."""
    one, other = (np.asarray(each["prediction"], np.float32).tobytes() for each in (before, after))
    return one == other and before["candidates"] == after["candidates"] and before["decision"] == after["decision"]


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """The largest of what both have."""
    if not before["candidates"]:
        pairs = list(zip(before["prediction"], after["prediction"], strict=False))
    else:
        scores = dict(zip(after["candidates"], after["prediction"], strict=True))
        named = zip(before["candidates"], before["prediction"], strict=True)
        pairs = [(value, scores[name]) for name, value in named if name in scores]
    return max((abs(one - other) for one, other in pairs), default=None)
