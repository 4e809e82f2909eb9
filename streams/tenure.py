"""Which partitions the group has given this process, and for how long that holds: asked by whoever works for them.
To acquire a partition's changelog shuts out who has it now, so a restore asks before each, and between its reads.
"""

import time
from collections.abc import Callable, Set

from faust.types import TP

from schemas.errors import Fenced
from streams.lease import Lease

CONFIRM_S = 0.05


class Moved(Exception):
    """The partitions go to others, or the process ends: no failure. `done`: those that were brought up before."""

    def __init__(self, done: Set[TP] = frozenset()) -> None:
        super().__init__("the assignment has ended")
        self.done = done


class Tenure:
    """One assignment, from when the group gave it until it is taken back, lost, or the process stops.

    Asked from any thread; ended from the event loop.
    """

    def __init__(self, lease: Lease, stopping: Callable[[], bool]) -> None:
        self._lease, self._stopping = lease, stopping
        self._epoch, self._ended = lease.epoch, False

    def end(self) -> None:
        self._ended = True

    @property
    def over(self) -> bool:
        return self._ended or self._lease.epoch != self._epoch or self._stopping()

    def check(self) -> None:
        """Raises Moved where it is over."""
        if self.over:
            raise Moved

    def confirm(self, wait: Callable[[float], None] = time.sleep) -> None:
        """Returns when the broker has confirmed it lately: one that was stopped for long does not know that it is out.

        Blocking. Raises Moved where it is over.
        """
        while not self.over:
            try:
                if self._lease.held():
                    return
            except Fenced:
                break
            wait(CONFIRM_S)
        raise Moved


class Share:
    """This process's partitions, from assignment to assignment. Used from the event loop.

    A partition is current when it was brought up, and nobody else can have had it since: it was in every assignment
    of every generation of the group. Of a generation that passed without us nobody tells who had what.
    """

    def __init__(self, lease: Lease, stopping: Callable[[], bool]) -> None:
        self._lease, self._stopping = lease, stopping
        self._epoch, self._generation = lease.epoch, 0
        self._current: frozenset[TP] = frozenset()
        self._stayed: frozenset[TP] = frozenset()  # of those that are being brought up
        self.assigned: frozenset[TP] = frozenset()
        self.tenure = Tenure(lease, stopping)
        self.tenure.end()

    def give(self, assigned: Set[TP], generation: int) -> None:
        """The group's newest word."""
        if self._lease.epoch != self._epoch or not 0 <= generation - self._generation <= 1:
            self._current = self._stayed = frozenset()
        self._epoch, self._generation = self._lease.epoch, generation
        self.assigned = frozenset(assigned)
        self._current &= self.assigned
        self._stayed &= self.assigned
        self.tenure = Tenure(self._lease, self._stopping)

    def take(self) -> None:
        """They are revoked: what is to be done for them ends before the next owner begins."""
        self.tenure.end()

    def begin(self) -> tuple[set[TP], set[TP]]:
        """All that are assigned, and those of them that are current. `done` says what became of the others."""
        kept, self._stayed, self._current = self._current, self.assigned, frozenset()
        return set(self.assigned), set(kept)

    def done(self, current: Set[TP]) -> None:
        """These are brought up. Those that went meanwhile, even if they came back, are not current."""
        self._current = self._stayed & current
