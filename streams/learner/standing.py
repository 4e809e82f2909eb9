"""Which records of training.examples a release has learned from, its ancestors included: exactly, in a few numbers.
It is part of the release's manifest, so that no example trains twice or never, whatever crashes in between.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ReleaseError

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Standing:
    """A record is learned if its offset is before `start` of its partition, or before `end` and its event time at most
    `until` (UTC ms). What lies between and is younger has not trained: it was for the gate, or to stop by, or no
    negatives of its time had matured.
    """

    start: Mapping[int, int]
    end: Mapping[int, int]
    until: int

    @classmethod
    def of(cls, trained: Mapping[str, Any]) -> Self:
        """From a manifest's `trained`; of a first release, which knows of no offsets, nothing is learned.

        Raises ReleaseError for one that cannot be read.
        """
        said = trained.get("standing")
        if said is None:
            return cls({}, {}, -(2**62))
        try:
            start, end = ({int(part): int(at) for part, at in said[name].items()} for name in ("start", "end"))
            return cls(start, end, int(said["until"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ReleaseError(
                f"the standing cannot be read: {said!r}", expected="start and end by partition, until"
            ) from error

    def as_dict(self) -> dict[str, Any]:
        """For a manifest."""
        start, end = ({str(part): at for part, at in sorted(each.items())} for each in (self.start, self.end))
        return {"start": start, "end": end, "until": self.until}

    def covers(self, partition: int, offset: int, time: int) -> bool:
        """`learned` of one record."""
        before = offset < self.start.get(partition, 0)
        return before or (offset < self.end.get(partition, 0) and time <= self.until)

    def learned(self, partition: Ints, offset: Ints, time: Ints) -> NDArray[np.bool_]:
        """(N,) of records at these places, with event times in UTC ms."""
        start, end = (_looked_up(each, partition) for each in (self.start, self.end))
        found: NDArray[np.bool_] = (offset < start) | ((offset < end) & (time <= self.until))
        return found


def _looked_up(places: Mapping[int, int], partition: Ints) -> Ints:
    table = np.zeros(int(partition.max(initial=-1)) + 1, np.int64)
    for number, at in places.items():
        if number < len(table):
            table[number] = at
    return table[partition]
