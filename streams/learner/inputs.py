"""The scalars of served feature rows, by name, for whoever watches whether inputs drift."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streams.features import SEQUENCE_FIELDS, unpack
from streams.tasks.base import Task

OF_THE_EVENT = frozenset({"now_value", "now_quantity"})
_SEQUENCE = frozenset(field[0] for field in SEQUENCE_FIELDS) - OF_THE_EVENT | {"attribute_value"}


def scalars(task: Task, features: Sequence[bytes]) -> tuple[NDArray[np.float32], list[str]]:
    """(N, F) numbers of N rows and their F names: amounts, counts, shares, positions; no ids, and no history."""
    rows, names, columns = unpack(list(features), task.features), [], []
    for name in task.features.names or ():
        if name in _SEQUENCE or task.features[name].base.kind not in "fu":
            continue
        values = np.asarray(rows[name], np.float32).reshape(len(rows), -1)
        columns.append(values)
        names += [name] if values.shape[1] == 1 else [f"{name}[{number}]" for number in range(values.shape[1])]
    return np.concatenate(columns, axis=1), names
