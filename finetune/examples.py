"""Training examples as arrays: what was served, as its bytes say, with what became of each of its candidates.
Records come one a candidate and outcome; here one row is a target. Nothing of a feature is computed again.

An example that cannot be read is refused by name: a label or a feature that is guessed teaches the guess.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from schemas.errors import TrainingError
from streams.batch import KINDS, LIMIT
from streams.catalog import Catalogue
from streams.features import Rows, unpack
from streams.tasks.base import Task

Record = Mapping[str, Any]
Examples = NDArray[np.void]
"""Rows of `layout(task)`."""

FORMATS = frozenset({1, 2})
"""Values of `features_format` that this reads; a fraud row of format 1 has another size, and is refused by it."""
SLATE = "ad"
"""The feature that holds the catalogue rows of a slate: a task that has it has a label a place."""


def layout(task: Task) -> np.dtype[np.void]:
    """One target. C: places of a slate; outcomes of a task that ranks (its label is the item's row); else 1.

    key: 64 bits that name it. user: 64 bits that name its user, 0 where none is known. time, matured: UTC ms of the
    event and of the newest of its labels. label (C,): 0 to 1, or an item's catalogue row, which float32 holds exactly
    up to 2^24. weight (C,): 0 where there is no label. revision (C,): -1 where there is none. source, observed,
    label_id (C,): who said the label (`source_key`, 0 for silence), when (UTC ms) and by which label, 0 where the
    record does not say. features: the bytes that were served.
    """
    count = labels_of(task)
    return np.dtype(
        [
            ("key", "<u8"),
            ("user", "<u8"),
            ("time", "<i8"),
            ("matured", "<i8"),
            ("label", "<f4", (count,)),
            ("weight", "<f4", (count,)),
            ("revision", "<i4", (count,)),
            ("source", "<u4", (count,)),
            ("observed", "<i8", (count,)),
            ("label_id", "<i8", (count,)),
            ("features", task.features),
        ]
    )


def ranks(task: Task) -> bool:
    """Whether an example is "this item is wanted" and not "this came true"."""
    return task.loss == "softmax"


def outcomes(task: Task) -> tuple[str, ...]:
    """Names of the labels that are learned. Who ranks takes any interest for one; a chance is that of one thing."""
    rule = task.labels
    return (rule.name, *(name for name, _ in rule.also)) if ranks(task) else (rule.name,)


def labels_of(task: Task) -> int:
    if ranks(task):
        return len(outcomes(task))
    assert task.features.names is not None
    return int(task.features[SLATE].shape[0]) if SLATE in task.features.names else 1


@dataclass(slots=True)
class Counts:
    """What became of the records that were read."""

    read: int = 0
    repeated: int = 0  # of a target, candidate and name that were read, in this revision or a newer one
    contradicted: int = 0  # of the repeated, those with another label in the same revision
    superseded: int = 0  # took the place of an older revision
    other: int = 0  # outcomes that this task does not learn from
    unplaced: int = 0  # candidates that are not in the row they were served in, or not in the catalogue
    targets: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    """Records by who said them; "" is silence."""


def examples_of(task: Task, catalog: Catalogue, records: Iterable[Record]) -> tuple[Examples, Counts]:
    """TrainingExample records in physical or logical types, in any order, to rows in order of (time, key).

    Of several records of one target, candidate and name the newest revision counts; a revision that takes an
    interest back leaves a row of weight 0. Raises TrainingError that names the first example that cannot be used.
    """
    counts = Counts()
    newest: dict[tuple[str, str, str], Record] = {}
    for record in records:
        counts.read += 1
        check(task, record)
        source = record.get("source", "")
        counts.sources[source] = counts.sources.get(source, 0) + 1
        if record["name"] not in outcomes(task):
            counts.other += 1
            continue
        key = (record["target_id"], record["candidate_id"] or "", record["name"])
        known = newest.get(key)
        if known is not None and known["revision"] >= record["revision"]:
            counts.repeated += 1
            counts.contradicted += known["revision"] == record["revision"] and known["label"] != record["label"]
            continue
        counts.superseded += known is not None
        newest[key] = record
    examples = (_ranked if ranks(task) else _judged)(task, catalog, newest, counts)
    counts.targets = len(examples)
    return examples[np.lexsort((examples["key"], examples["time"]))], counts


def check(task: Task, record: Record) -> None:
    """Raises TrainingError that says what of the example cannot be used."""
    label, weight = record["label"], record["weight"]
    size = task.features.itemsize
    known = ", ".join(map(str, sorted(FORMATS)))
    for fine, what, expected in (
        (record["task"] == task.name, f"task {record['task']!r}", task.name),
        (record["features_format"] in FORMATS, f"features_format {record['features_format']}", f"one of {known}"),
        (len(record["features"]) == size, f"features of {len(record['features'])} bytes", f"{size} bytes"),
        (0 <= label <= 1, f"label {label}", "from 0 to 1"),  # a NaN is not
        (0 <= weight < np.inf, f"weight {weight}", "a finite number, 0 or more"),
        (0 <= record["revision"] < 2**31, f"revision {record['revision']}", "0 or more"),
        (0 < milliseconds(record["event_time"]) < LIMIT, f"event_time {record['event_time']}", "UTC epoch ms"),
    ):
        if not fine:
            raise _refused(what, record, expected)


def milliseconds(time: Any) -> int:
    """UTC epoch ms of a time in physical or logical type."""
    return time if isinstance(time, int) else round(time.timestamp() * 1000)


def target_key(*parts: str) -> int:
    """64 bits that name a target (of a task that ranks: with the item)."""
    return xxhash.xxh3_64_intdigest("\0".join(parts).encode())


def user_key(user_id: str) -> int:
    """64 bits that name a user; 0 where none is known."""
    return xxhash.xxh3_64_intdigest(user_id.encode()) if user_id else 0


def source_key(source: str) -> int:
    """32 bits that name who said a label; 0 for silence."""
    return xxhash.xxh32_intdigest(source.encode()) if source else 0


LABEL = ("label", "weight", "revision", "source", "observed", "label_id")
"""Fields of a row that have a value a place: what a newer revision replaces."""


def merged(old: Examples, new: Examples) -> Examples:
    """Both, one row a key: of each label the newest revision, the old row's features. In order of (time, key)."""
    both = np.concatenate([old, new])
    order = np.argsort(both["key"], kind="stable")
    both = both[order]
    first = np.flatnonzero(np.diff(both["key"], prepend=~both["key"][:1]))
    out = both[first]
    group = np.repeat(np.arange(len(first)), np.diff(first, append=len(both)))
    for number in np.flatnonzero(np.diff(group, prepend=-1) == 0).tolist():
        row, later = out[group[number]], both[number]
        newer = later["revision"] > row["revision"]
        for name in LABEL:
            row[name][newer] = later[name][newer]
        row["matured"] = max(row["matured"], later["matured"])
    return out[np.lexsort((out["key"], out["time"]))]


def is_positive(task: Task, examples: Examples) -> NDArray[np.bool_]:
    """(N,) whether any label of the row came true."""
    learned: NDArray[np.bool_] = examples["weight"] > 0
    if not ranks(task):
        learned &= examples["label"] > 0.5
    return np.asarray(learned.any(axis=1))


def same_period(task: Task, examples: Examples, known: Examples) -> NDArray[np.bool_]:
    """(N,) false for what is newer than the newest negative of `examples` and `known`, or older than the oldest.

    A fraud is known in days and an innocent order in weeks: with all that is known, "recent" would mean "fraud".
    """
    if ranks(task):
        return np.ones(len(examples), np.bool_)
    span = np.concatenate([each["time"][~is_positive(task, each)] for each in (examples, known)])
    if not len(span):
        return np.zeros(len(examples), np.bool_)
    time = examples["time"]
    inside: NDArray[np.bool_] = (time >= span.min()) & (time <= span.max())
    return inside


def _judged(task: Task, catalog: Catalogue, newest: Mapping[tuple[str, str, str], Record], counts: Counts) -> Examples:
    """A row a target, a label a place."""
    found: dict[str, list[Record]] = {}
    for (target, _, _), record in newest.items():
        found.setdefault(target, []).append(record)
    examples = _filled(task, catalog, [records[0] for records in found.values()])
    slate = SLATE in (task.features.names or ())
    for row, (target, records) in zip(examples, found.items(), strict=True):
        row["key"] = target_key(task.name, target)
        ads = row["features"][SLATE].tolist() if slate else []
        for record in records:
            place = 0
            if slate:
                ad = catalog.ads.get(record["candidate_id"] or "", 0)
                if ad == 0 or ad not in ads:
                    counts.unplaced += 1
                    continue
                place = ads.index(ad)
            _put(row, place, record["label"], record)
    return examples[(examples["revision"] >= 0).any(axis=1)]


def _ranked(task: Task, catalog: Catalogue, newest: Mapping[tuple[str, str, str], Record], counts: Counts) -> Examples:
    """A row a target and wanted item, a label an outcome."""
    found: dict[tuple[str, int], list[Record]] = {}
    for (target, candidate, _), record in newest.items():
        item = catalog.items.get(candidate, 0)
        if item:
            found.setdefault((target, item), []).append(record)
        else:
            counts.unplaced += 1
    examples = _filled(task, catalog, [records[0] for records in found.values()])
    for row, ((target, item), records) in zip(examples, found.items(), strict=True):
        row["key"] = target_key(task.name, target, str(item))
        for record in records:
            place = outcomes(task).index(record["name"])
            _put(row, place, item, record)
            if record["label"] <= 0:
                row["weight"][place] = 0  # taken back: not an example, but known, so that it stays so
    return examples


def _filled(task: Task, catalog: Catalogue, records: list[Record]) -> Examples:
    examples: Examples = np.zeros(len(records), layout(task))
    if records:
        rows = unpack([bytes(record["features"]) for record in records], task.features)
        _check_rows(rows, catalog, records)
        examples["features"] = rows
    examples["revision"] = -1
    examples["time"] = [milliseconds(record["event_time"]) for record in records]
    examples["user"] = [user_key(record.get("user_id", "")) for record in records]
    return examples


def _put(row: np.void, place: int, label: float, record: Record) -> None:
    row["label"][place], row["weight"][place] = label, record["weight"]
    row["revision"][place] = record["revision"]
    row["source"][place] = source_key(record.get("source", ""))
    row["observed"][place] = milliseconds(record.get("observed_at", 0))
    row["label_id"][place] = record.get("label_hash", 0)
    row["matured"] = max(int(row["matured"]), milliseconds(record["matured_at"]))


def _check_rows(rows: Rows, catalog: Catalogue, records: list[Record]) -> None:
    """What would read beyond an array, or turn the loss into no number."""
    names = rows.dtype.names or ()
    for name in (each for each in names if rows[each].dtype.kind == "i"):  # catalogue rows are all that is signed
        outside = (rows[name] < 0) | (rows[name] >= len(catalog))
        wrong = np.asarray(outside.reshape(len(rows), -1).any(axis=1))
        _refuse_first(wrong, records, f"a row of `{name}`", f"below {len(catalog)}, the catalogue's size")
    unknown = np.asarray((rows["kind"] >= len(KINDS)).any(axis=1) | (rows["now_kind"] >= len(KINDS)))
    _refuse_first(unknown, records, "a kind of event", f"below {len(KINDS)}")
    for name in (each for each in names if rows[each].dtype.kind == "f"):
        fine = np.isfinite(rows[name]) | ((name == "fields") & np.isnan(rows[name]))  # there NaN is "not known"
        wrong = np.asarray(~fine.reshape(len(rows), -1).all(axis=1))
        _refuse_first(wrong, records, f"a value of `{name}`", "finite numbers")


def _refuse_first(wrong: NDArray[np.bool_], records: list[Record], what: str, expected: str) -> None:
    if wrong.any():
        raise _refused(f"{what} is out of range", records[int(wrong.argmax())], expected)


def _refused(what: str, record: Record, expected: str) -> TrainingError:
    return TrainingError(
        what,
        where=f"example {record['example_id']} of {record['task']}/{record['target_id']}",
        expected=expected,
        todo="leave it out, or make the examples anew from `served`",
    )
