"""Which new examples a fine-tune trains on, which it is stopped by, which the gate keeps, and which wait.
Pure: event times in, a plan of times and offsets out. What does not train is new for the next fine-tune.

Positives that came at once are younger than the silence that became negatives: until negatives of their time have
matured they wait, or "young" would be learned as "positive".
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.learner.standing import Ints, Standing

HOLDOUT, MOST_HELD = 0.2, 4096
"""The newest share of what is handed over, and the most of it, that a fine-tune is stopped and calibrated by."""


class Arrivals:
    """What has come on training.examples for one task, as columns; a few bytes an example."""

    def __init__(self) -> None:
        self._columns = {name: array("q") for name in ("partition", "offset", "time", "arrived")}
        self._positive, self._silent = array("b"), array("b")
        self.end: dict[int, int] = {}
        """By partition: the offset after the newest record that was read, of any task."""

    def __len__(self) -> int:
        return len(self._positive)

    def add(self, partition: int, offset: int, time: int, *, positive: bool, silent: bool, arrived: int = 0) -> None:
        """time: of the event; arrived: the broker's, both UTC ms. silent: a negative that nobody named."""
        for name, value in (("partition", partition), ("offset", offset), ("time", time), ("arrived", arrived)):
            self._columns[name].append(value)
        self._positive.append(positive)
        self._silent.append(silent)

    def read_to(self, partition: int, offset: int) -> None:
        """Records before `offset` of the partition have been seen."""
        self.end[partition] = max(self.end.get(partition, 0), offset)

    def forget(self, standing: Standing) -> None:
        """Drops what is learned for good; what a rolled-back release had learned is read from the topic again."""
        keep = ~standing.learned(self.partition, self.offset, self.time)
        columns = {name: array("q", self._column(name)[keep].tobytes()) for name in self._columns}
        positive, silent = self.positive[keep], self.silent[keep]
        self._columns = columns
        self._positive, self._silent = array("b", positive.tobytes()), array("b", silent.tobytes())

    def _column(self, name: str) -> Ints:
        return np.array(self._columns[name], np.int64)

    @property
    def partition(self) -> Ints:
        return self._column("partition")

    @property
    def offset(self) -> Ints:
        return self._column("offset")

    @property
    def time(self) -> Ints:
        return self._column("time")

    @property
    def arrived(self) -> Ints:
        return self._column("arrived")

    @property
    def positive(self) -> NDArray[np.bool_]:
        return np.array(self._positive, np.bool_)

    @property
    def silent(self) -> NDArray[np.bool_]:
        return np.array(self._silent, np.bool_)


@dataclass(frozen=True, slots=True)
class Split:
    """Train: new records with event time <= standing.until. Stop by: of (standing.until, held_until]. Gate: of
    (gate_after, mature]. Only the first are learned then.

    new, positives: usable now. training, gate, gate_positives: records of each. held: younger than all silence.
    ranges: offsets [from, to) to read, by partition. standing: of the release that learns it. newest_at: UTC ms of the
    broker when the newest record that trains arrived; 0 where none does.
    """

    standing: Standing
    held_until: int
    gate_after: int
    mature: int
    new: int
    positives: int
    training: int
    gate: int
    gate_positives: int
    held: int
    ranges: Mapping[int, tuple[int, int]]
    newest_at: int


def mature_until(arrivals: Arrivals, silence: bool) -> int:
    """UTC ms up to which both kinds of labels are known; where silence is no answer, all that has come is."""
    chosen = arrivals.time[arrivals.silent] if silence else arrivals.time
    return int(chosen.max(initial=-(2**62)))


def split(arrivals: Arrivals, learned: Standing, *, silence: bool, most: int, window: float, gate_labels: int) -> Split:
    """silence: the task learns from it. most: records handed over, the oldest first. window: share for the gate.

    The gate gets at least `gate_labels` records where that leaves it no more than half, and at most its share of what
    is looked at together, where `most` of them are handed over: what is between waits.
    """
    partition, offset, time = arrivals.partition, arrivals.offset, arrivals.time
    mature = mature_until(arrivals, silence)
    new = ~learned.learned(partition, offset, time)
    usable = new & (time <= mature)
    order = np.sort(time[usable])
    largest = max(round(most * window / (1 - window)), gate_labels)
    gate = min(max(round(len(order) * window), min(gate_labels, len(order) // 2)), largest)
    handed = min(len(order) - gate, most)
    training = handed - min(round(handed * HOLDOUT), MOST_HELD)
    until = max(int(order[training - 1]) if training > 0 else learned.until, learned.until)
    held_until = max(int(order[handed - 1]) if handed > 0 else until, until)
    gate_after = max(int(order[len(order) - gate - 1]) if len(order) > gate else held_until, held_until)
    trains = new & (time <= until)
    start = _starts(arrivals, learned, new & ~trains)
    standing = Standing(start, dict(arrivals.end), until)
    return Split(
        standing,
        held_until,
        gate_after,
        mature,
        new=int(usable.sum()),
        positives=int((usable & arrivals.positive).sum()),
        training=int(trains.sum()),
        gate=int((for_gate := usable & (time > gate_after)).sum()),
        gate_positives=int((for_gate & arrivals.positive).sum()),
        held=int((new & ~usable).sum()),
        ranges=_ranges(arrivals, new),
        newest_at=int(arrivals.arrived[trains].max(initial=0)),
    )


def _starts(arrivals: Arrivals, learned: Standing, left: NDArray[np.bool_]) -> dict[int, int]:
    """By partition, the first record that is still to be learned; its end if there is none."""
    start = {part: max(end, learned.start.get(part, 0)) for part, end in arrivals.end.items()}
    for part, (first, _) in _ranges(arrivals, left).items():
        start[part] = first
    return start


def _ranges(arrivals: Arrivals, chosen: NDArray[np.bool_]) -> dict[int, tuple[int, int]]:
    partition, offset = arrivals.partition[chosen], arrivals.offset[chosen]
    found = {}
    for part in np.unique(partition).tolist():
        there = offset[partition == part]
        found[int(part)] = int(there.min()), int(there.max()) + 1
    return found
