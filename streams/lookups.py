"""A release's vector table as a task's `inputs` use it in serving: rows are named, and the engine looks them up."""

import numpy as np
from numpy.typing import NDArray

from engines.base import Gather
from streams.features import known_rows, look_up_mean


class Lookups:
    """The look-ups are made in the engine's own memory."""

    def __init__(self, table: NDArray[np.float32]) -> None:
        self._table = table

    def look_up(self, rows: NDArray[np.int32]) -> Gather:
        return Gather(self._table, known_rows(self._table, rows))

    def look_up_mean(self, rows: NDArray[np.int32]) -> NDArray[np.float32]:
        return look_up_mean(self._table, rows)
