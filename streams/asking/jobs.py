"""Events that were answered before they came, as jobs of the micro-batch that they come in.
Nothing of them is computed anew: results from the score that was said, rows from the features that it was made from.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streams.entities import EntityView
from streams.features import unpack
from streams.tasks.base import Task
from streams.work import Job, Said, Told, Work


def untold(task: Task, work: Work) -> NDArray[np.intp]:
    """The fresh events that a task is to score."""
    fresh = work.absorbed.fresh & (work.batch.topic == task.topic)
    if told := work.told.get(task.name):
        fresh[[each.number for each in told]] = False
    if work.history:
        fresh[list(work.history)] = False
    found: NDArray[np.intp] = fresh.nonzero()[0]
    return found


def told_jobs(tasks: Sequence[Task], work: Work, entities: EntityView, said: Said) -> list[Job]:
    """A job for each task and release: of one job, all is of one release."""
    jobs = []
    for task in tasks:
        by_release: dict[tuple[str, str], list[Told]] = {}
        for each in work.told.get(task.name, ()):
            by_release.setdefault((each.score["release"], each.score["engine"]), []).append(each)
        jobs += [_job(task, work, each, entities, said) for each in by_release.values()]
    return jobs


def _job(task: Task, work: Work, told: list[Told], entities: EntityView, said: Said) -> Job:
    index = np.array([each.number for each in told], np.intp)
    raw = [work.raw[each.number] for each in told]
    first = told[0].score
    return Job(
        task,
        index,
        [work.events[each.number] for each in told],
        unpack([each.answer.features for each in told], task.features),
        entities.lookup(work.batch.tokens[index]),
        late=np.array([each.score["late"] for each in told], np.bool_),
        fallback=np.array([each.score["fallback"] is not None for each in told], np.bool_),
        results=[task.said(each.score) for each in told],
        said=[said.get((task.topic, record.partition, record.offset)) for record in raw],
        release=first["release"],
        engine=first["engine"],
        infer_us=first["timings"]["infer_us"],
        buckets=[(each.answer.bucket, each.answer.row) for each in told],
        told=[each.score for each in told],
    )
