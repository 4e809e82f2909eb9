"""Segmented array operations: a batch in processing order is one run of events per user, side by side.
When no user occurs twice every operation is the identity or zero, which is what makes small batches cheap.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streams.batch import LIMIT

Scalar = TypeVar("Scalar", bound=np.generic)
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_NONE: NDArray[np.intp] = np.zeros(0, np.intp)


class Runs:
    """Where each run starts (`head`) and ends (`tail`), and the run of each event (`run`).

    `single` says that every run holds one event; then the three arrays are not made.
    """

    __slots__ = ("head", "run", "single", "tail")

    def __init__(self, keys: NDArray[Any] | None) -> None:
        """`keys`: one per event, equal keys side by side; None when no key occurs twice."""
        self.single = keys is None
        self.head = self.tail = self.run = _NONE
        if keys is not None:
            starts = np.empty(len(keys), np.bool_)
            starts[:1] = True
            np.not_equal(keys[1:], keys[:-1], out=starts[1:])
            self.head = starts.nonzero()[0]
            self.tail = np.append(self.head[1:], len(keys)) - 1
            self.run = starts.cumsum() - 1

    def heads(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """The first value of each run."""
        return values if self.single else values[self.head]

    def tails(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """The last value of each run."""
        return values if self.single else values[self.tail]

    def spread(self, per_run: NDArray[Scalar]) -> NDArray[Scalar]:
        """One value per run to one per event."""
        return per_run if self.single else per_run[self.run]

    def total(self, values: Ints) -> Ints:
        """The sum of each run."""
        return values if self.single else np.add.reduceat(values, self.head, axis=0)

    def every(self, flags: Flags) -> Flags:
        """Per run, whether all its flags are set."""
        return flags if self.single else np.logical_and.reduceat(flags, self.head)

    def earlier_sum(self, values: Ints) -> Ints:
        """Per event, the sum over the earlier events of its run. Shape (N,) or (N, K)."""
        if self.single:
            return np.zeros_like(values)
        before = values.cumsum(axis=0) - values
        return before - before[self.head][self.run]

    def previous(self, values: NDArray[Scalar], initial: NDArray[Scalar]) -> NDArray[Scalar]:
        """Per event, the value of the event before it in its run; its own `initial` where it is the first."""
        if self.single:
            return initial
        shifted = np.empty_like(values)
        shifted[1:] = values[:-1]
        shifted[self.head] = initial[self.head]
        return shifted

    def running_max(self, values: Ints) -> Ints:
        """Per event, the greatest value of its run so far, itself included. Values in [-1, LIMIT)."""
        if self.single:
            return values
        lift = self.run * LIMIT
        if values.ndim == 2:
            lift = lift[:, None]
        return np.maximum.accumulate(values + lift, axis=0) - lift


def merge_order(
    slot: Ints, topic: Ints, time: Ints, reached: Ints, order: NDArray[np.int64] | None
) -> NDArray[np.intp]:
    """Event indices, each slot's side by side, in the order in which they are absorbed.

    By default that is (greatest event_time so far in the user's topic, topic, offset): a topic keeps its
    offset order and topics merge by time. `reached`: that greatest time before the batch, per event's slot
    and topic. `order`: all event indices in another order, which then holds within each user.
    """
    if order is not None:
        return order[slot[order].argsort(kind="stable")]
    stream = slot * 4 + topic
    by_stream = stream.argsort(kind="stable")
    now_reached = Runs(stream[by_stream]).running_max(time[by_stream])
    np.maximum(now_reached, reached[by_stream], out=now_reached)
    users = Runs(slot[by_stream])
    return by_stream[(users.run * LIMIT + now_reached).argsort(kind="stable")]
