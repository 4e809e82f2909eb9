"""What the label join says: the example that a label, or silence, has made of something served; and its counts."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import xxhash

Record = Mapping[str, Any]


class Joined(NamedTuple):
    """A training example but for what the served record at (partition, offset) of served.<task> has.

    `source`, `label_hash` and `observed_at` are the label's; silence has "", 0 and the time when the window closed.
    `matured_at` is event time: when the window closed, or when the label was observed if that was later. The
    `weight` is 1 / propensity, over the share of the negatives that were kept.
    """

    example_id: str
    task: str
    target_id: str
    candidate_id: str | None
    name: str
    label: float
    weight: float
    matured_at: int
    revision: int
    event_time: int
    source: str
    label_hash: int
    observed_at: int
    partition: int
    offset: int

    def example(self, served: Record) -> dict[str, Any]:
        """The TrainingExample, with user, release, features and prediction of its served record."""
        known = self._asdict()
        del known["partition"], known["offset"]
        known |= {"prediction": predicted(served, self.candidate_id), "automation": []}
        return known | {name: served[name] for name in ("user_id", "release", "features_format", "features")}


@dataclass(slots=True)
class Counts:
    """What became of served records and labels since the counts were last taken."""

    served: int = 0
    repeated: int = 0  # served records of a target that has one
    matched: int = 0  # labels that met their served record
    late: int = 0  # of these, labels that came after the window had closed
    early: int = 0  # labels that came before their served record
    duplicates: int = 0  # label ids that were there
    stale: int = 0  # labels of a revision that is not newer, of the same source
    outranked: int = 0  # labels that are kept and decide nothing: a source that outranks theirs has spoken
    withdrawn: int = 0  # labels by which a source takes back what it said
    too_late: int = 0  # labels observed when the outcome did not count any more
    unknown: int = 0  # early labels of a candidate that was not served in the end
    orphans: int = 0  # targets of early labels that were given up
    revived: int = 0  # of these, targets whose served record came after all
    positives: int = 0  # examples, by label and kind
    negatives: int = 0
    revisions: int = 0
    discounted: int = 0  # examples that look automated


def example_id(task: str, target: str, candidate: str, name: str, revision: int) -> str:
    """128 bits of hash; the lengths stand between, so that no two lists of parts run together."""
    parts = (task, target, candidate, name, str(revision))
    said: str = xxhash.xxh3_128_hexdigest("".join(f"{len(part)}:{part}" for part in parts).encode())
    return said


def signed(number: int) -> int:
    """The 64 bits as Avro's long has them."""
    return number - (1 << 64) if number >> 63 else number


def predicted(served: Record, candidate: str | None) -> float | None:
    """What was predicted of the candidate; None where the record does not say."""
    known, prediction = served["candidates"] or [None], served["prediction"]
    place = known.index(candidate) if candidate in known else len(prediction)
    return float(prediction[place]) if place < len(prediction) else None


def added(counts: Counts, more: Counts) -> Counts:
    """The sum of two counts."""
    return Counts(*(getattr(counts, one.name) + getattr(more, one.name) for one in fields(Counts)))


def less(counts: Counts, before: Counts) -> Counts:
    """What has been counted since."""
    return Counts(*(getattr(counts, one.name) - getattr(before, one.name) for one in fields(Counts)))
