"""How long positives have taken to come, of events whose every label has been heard: what a silence says.
Of older events only the slow labels would be heard, and the delays would look longer than they are.

What is known follows from the records before an offset of each partition, in whatever order these are read: equal
offsets give equal plans. The file only saves reading the topic from its beginning again.
"""

import json
import logging
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from finetune.delays import Delays
from finetune.example_files import whole
from streams.events import Record

log = logging.getLogger(__name__)

KEPT = 50_000


class Waits:
    """Of one task, used from one thread. Times are UTC ms."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._time, self._delay = array("q"), array("q")
        self._since: dict[int, int] = {}
        self._newest = 0
        self.next: dict[int, int] = {}
        """By partition: all records before this offset are known."""

    def add(self, record: Record, partition: int, offset: int) -> None:
        """A TrainingExample, in the order of its partition; one that is known is passed over."""
        if offset < self.next.get(partition, 0):
            return
        self.next[partition] = offset + 1
        self._newest = max(self._newest, record["observed_at"])
        # Whatever happened after the first record that was heard of a partition has all of its labels behind it.
        since = self._since.setdefault(partition, record["matured_at"])
        if record["name"] != self._name or record["label"] <= 0 or not record["source"] or record["event_time"] < since:
            return
        self._time.append(record["event_time"])
        self._delay.append(max(0, record["observed_at"] - record["event_time"]))
        if len(self._time) > 2 * KEPT:
            self._keep()

    def read_to(self, ends: Mapping[int, int]) -> None:
        """All records before these offsets have been added, and what else was there is of other tasks."""
        for partition, offset in ends.items():
            self.next[partition] = max(self.next.get(partition, 0), offset)

    def estimated(self) -> dict[str, Any] | None:
        """As a plan has it, from the newest KEPT by event time; None while too few positives are known."""
        self._keep()
        time, delay = np.array(self._time, np.int64), np.array(self._delay, np.int64)
        found = Delays.estimated(delay, self._newest - time)
        return None if found is None else found.as_dict()

    def _keep(self) -> None:
        """The same ones in whatever order they came: what is let go of once has KEPT newer ones for good."""
        time, delay = np.array(self._time, np.int64), np.array(self._delay, np.int64)
        order = np.lexsort((delay, time))[-KEPT:]
        self._time, self._delay = (array("q", each[order].tobytes()) for each in (time, delay))

    # -- the file

    def save(self, path: Path) -> None:
        """Whole or not at all. Raises OSError."""
        said = {
            "name": self._name, "next": self.next, "since": self._since, "newest": self._newest,
            "time": list(self._time), "delay": list(self._delay),
        }  # fmt: skip
        with whole(path) as partial:
            partial.write_text(json.dumps(said))

    @classmethod
    def load(cls, name: str, path: Path) -> Self:
        """What was saved; what is not there, or cannot be read, is read from the topic."""
        made = cls(name)
        try:
            said = json.loads(path.read_text("utf-8"))
            if said["name"] != name:
                raise ValueError(f"it is of {said['name']!r}")
            known = [{int(part): int(at) for part, at in said[each].items()} for each in ("next", "since")]
            times = [array("q", map(int, said[each])) for each in ("time", "delay")]
            newest = int(said["newest"])
            if len(times[0]) != len(times[1]):
                raise ValueError("times and delays differ in number")
        except FileNotFoundError:
            return made
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s cannot be read, and is made anew from the topic: %s", path, error)
            return made
        (made.next, made._since), (made._time, made._delay), made._newest = known, times, newest
        return made
