"""How long positives have taken to come, of events whose every label has been heard: what a silence says.
Of older events only the slow labels would be heard, and the delays would look longer than they are.
"""

from array import array
from typing import Any

import numpy as np

from finetune.delays import Delays
from streams.events import Record

KEPT = 50_000


class Waits:
    """Of one task, used from one thread. Times are UTC ms."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._time, self._delay = array("q"), array("q")
        self._since: dict[int, int] = {}
        self._newest = 0

    def add(self, record: Record, partition: int) -> None:
        """A TrainingExample, in the order of its partition."""
        self._newest = max(self._newest, record["observed_at"])
        # Whatever happened after the first record that was heard of a partition has all of its labels behind it.
        since = self._since.setdefault(partition, record["matured_at"])
        if record["name"] != self._name or record["label"] <= 0 or not record["source"] or record["event_time"] < since:
            return
        self._time.append(record["event_time"])
        self._delay.append(max(0, record["observed_at"] - record["event_time"]))
        if len(self._time) > 2 * KEPT:
            self._time, self._delay = self._time[-KEPT:], self._delay[-KEPT:]

    def estimated(self) -> dict[str, Any] | None:
        """As a plan has it; None while too few positives are known."""
        time, delay = np.array(self._time, np.int64), np.array(self._delay, np.int64)
        found = Delays.estimated(delay, self._newest - time)
        return None if found is None else found.as_dict()
