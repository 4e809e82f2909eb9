"""From feature rows to results: the live release or a canary, the fallback, and why an alert is raised.
It crosses no network. One call at a time, in a turn of the engines'.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engines.slot import Canary, Loaded, Slot
from schemas.errors import EngineError
from streams.alerts import explain, raised
from streams.catalog import Catalogue
from streams.events import Record
from streams.features import Rows
from streams.lookups import Lookups
from streams.outputs import Outputs
from streams.policy.standing import Standing
from streams.tasks.base import Result, Serving, Task
from streams.tasks.selection import PLAIN, Selection
from streams.work import Failure, Job, Work

log = logging.getLogger(__name__)

Share = tuple[Task, NDArray[np.intp], Canary | None]
"""A task, numbers of events of a micro-batch, and what serves their users if it is not the live release."""


class Answering:
    """Fills a micro-batch's jobs. `slots` may be replaced between two micro-batches."""

    def __init__(
        self,
        slots: Mapping[str, Slot],
        catalog: Catalogue,
        policies: Standing,
        outputs: Outputs,
        selections: Mapping[str, Selection],
    ) -> None:
        """selections: what is chosen of a task's rankings, where a setting says so."""
        self.slots, self._catalog, self._policies, self._outputs = slots, catalog, policies, outputs
        self._selections = selections

    def shares(self, task: Task, index: NDArray[np.intp], events: Sequence[Record]) -> Iterator[Share]:
        """The events by who serves them; nothing of those that there are none of."""
        canary = self.slots[task.name].canary if task.name in self.slots else None
        if canary is None:
            yield from [(task, index, None)] if len(index) else []
            return
        chosen = np.array([canary.serves(events[at]["user_id"]) for at in index.tolist()], np.bool_)
        for part, served_by in ((index[~chosen], None), (index[chosen], canary)):
            if len(part):
                yield task, part, served_by

    def infer(self, work: Work) -> None:
        """Runs each job's model over the rows that need it, and the fallback over the rest.

        Where the live release fails, the one before it answers, and serves from now on; raises EngineError if there
        is none.
        """
        for job in [job for job in work.jobs if not job.told]:
            slot = self.slots[job.task.name]
            job.buckets = [(0, 0)] * len(job.events)
            started = time.perf_counter()
            fallback = job.fallback.tolist()
            todo = [number for number, result in enumerate(job.results) if result is None]
            index = [number for number in todo if not fallback[number]]
            while True:
                canary = job.canary if job.canary is slot.canary else None
                live = canary.loaded if canary else slot.live
                job.release, job.engine = f"{job.task.name}/{live.release}", live.engine_name
                policy = self._policies.live if job.task.raises_alerts else None
                selection = self._selections.get(job.task.name, PLAIN)
                serving = Serving(self._catalog, live.calibration, live.settings, policy, selection)
                try:
                    self._model(job, live, serving, index)
                    break
                except EngineError as error:
                    if canary is None and len(slot.kept) == 1:
                        raise
                    self._step_back(job, slot, index, str(error), canary)
            self._fallback(job, serving, [number for number in todo if fallback[number]])
            job.infer_us = round((time.perf_counter() - started) * 1e6)

    def explanations(self, work: Work) -> Iterator[Callable[[], None]]:
        """A call for each alert of the micro-batch, that finds out why it is raised; where the engine cannot say, none.

        Each is to have a turn of its own: in a burst of fraud, whoever is to be scored waits for one of them at most.
        """
        for job in work.jobs:
            for number in raised(job):
                yield partial(self._explain, job, number)

    def _explain(self, job: Job, number: int) -> None:
        ready = self.slots[job.task.name].ready
        loaded = next((each for each in ready if f"{job.task.name}/{each.release}" == job.release), None)
        try:
            found = explain(job, loaded, number) if loaded else None
        except EngineError as error:
            self._outputs.notices.say(f"alerts of {job.release} are not explained", str(error))
        else:
            if found is not None:
                job.explained[number] = found

    def compare(self, work: Work) -> None:
        """Counts what the shadow policy decides, beside what was decided."""
        shadow = self._policies.shadow
        for job in work.jobs if shadow is not None else ():
            if job.task.raises_alerts:
                for event, row, result in zip(job.events, job.rows["fields"], job.results, strict=True):
                    if shadow is not None and result is not None and result.decision is not None:
                        would = shadow.decide(event, result.prediction[0], row).decision
                        self._outputs.counts.policies[result.decision, would] += 1

    def _step_back(self, job: Job, slot: Slot, events: Sequence[int], reason: str, canary: Canary | None) -> None:
        """In a turn of the engines', as every flip."""
        job.failures = (*job.failures, Failure(job.release, reason, events))
        if canary is not None:
            slot.canary = None
            log.error("canary %s failed while it served; its users are served as the others: %s", job.release, reason)
            return
        name = f"{job.task.name}/{slot.roll_back().release}"
        log.error("release %s failed while it served; %s is live again: %s", job.release, name, reason)

    def _model(self, job: Job, live: Loaded, serving: Serving, index: Sequence[int]) -> None:
        table, step = Lookups(live.table), live.max_batch
        for start in range(0, len(index), step):
            chunk = index[start : start + step]
            whole = len(chunk) == len(job.events)
            rows = job.rows if whole else job.rows[chunk]
            events = job.events if whole else [job.events[number] for number in chunk]
            results, bucket = answered(job.task, live, rows, events, serving, table)
            for number, (position, result) in enumerate(zip(chunk, results, strict=True)):
                job.results[position] = result
                job.buckets[position] = (bucket, number)

    def _fallback(self, job: Job, serving: Serving, index: Sequence[int]) -> None:
        if index:
            results = job.task.fallback([job.events[number] for number in index], job.rows[index], serving)
            for position, result in zip(index, results, strict=True):
                job.results[position] = result


def answered(
    task: Task, loaded: Loaded, rows: Rows, events: Sequence[Record], serving: Serving, table: Lookups
) -> tuple[list[Result], int]:
    """A release's results of at most `max_batch` rows, and the bucket they ran in.

    Raises EngineError if it fails, or if a score of it is not a number: that would be served as one.
    """
    inference = loaded.answer(len(rows), partial(task.inputs_served, rows, table, serving))
    for name, array in inference.outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise EngineError(
                f"output {name!r} of {len(rows)} rows is not finite",
                where=f"{task.name}/{loaded.release}, engine {loaded.engine_name}",
                expected="numbers",
                todo="look at the release: it is not served",
            )
    return task.results(inference.outputs, events, rows, serving), inference.bucket
