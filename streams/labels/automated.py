"""Examples of what looks automated: marked, and with less weight, so that bots do not teach what people click on.
Nothing is left out; a weight of 1 for them leaves all as it is.
"""

from collections.abc import Iterable
from typing import Any

from streams.events import Record
from streams.features import unpack
from streams.labels.joined import Joined
from streams.tasks.automation import Look, Signs, look, signs_of
from streams.tasks.base import Task

FORMATS = frozenset({1, 2})
"""Values of `features_format` that are looked at."""


class Discount:
    """For the tasks whose rule says so, and of those the outcome that is learned."""

    def __init__(self, tasks: Iterable[Task], weight: float) -> None:
        """weight: of an example that looks automated, over that of another; above 0, up to 1."""
        self._tasks = {task.name: task for task in tasks if task.labels.discounted}
        self._weight = weight

    def example(self, joined: Joined, served: Record, known: dict[int, Signs]) -> dict[str, Any]:
        """The TrainingExample of a label or of silence. known: signs by offset, of one task, for this to keep."""
        example = joined.example(served)
        task = self._tasks.get(joined.task)
        if task is None or joined.name != task.labels.name or not _readable(task, served):
            return example
        if joined.offset not in known:
            [known[joined.offset]] = signs_of(unpack([served["features"]], task.features))
        found = self.look(joined, known[joined.offset])
        if found.automated:
            example |= {"weight": joined.weight * self._weight, "automation": list(found.reasons)}
        return example

    def look(self, joined: Joined, found: Signs) -> Look:
        said = joined.source != "" and joined.label > 0
        return look(found, joined.observed_at - joined.event_time if said else None)


def _readable(task: Task, served: Record) -> bool:
    return served["features_format"] in FORMATS and len(served["features"]) == task.features.itemsize
