"""How a fine-tune starts: its files are written and its process runs, or it is given up and the loop goes on.
A full disk, or a machine that can start no more processes, ends no learner.
"""

import logging
from collections.abc import Callable

from schemas.registry import Registry
from streams.catalog import Catalogue
from streams.config import Settings
from streams.learner.child import Standby
from streams.learner.cycle import Bench
from streams.learner.feed import read_examples
from streams.learner.forgetting import Forgetting
from streams.learner.metrics import LearnerMetrics
from streams.learner.task import TaskLearning
from streams.notices import Notices

log = logging.getLogger(__name__)


class Starting:
    """Used from one thread. catalog: as it is now."""

    def __init__(
        self, settings: Settings, registry: Registry, metrics: LearnerMetrics, standby: Standby,
        forgetting: Forgetting, catalog: Callable[[], Catalogue],
    ) -> None:  # fmt: skip
        self._settings, self._registry, self._metrics, self._standby = settings, registry, metrics, standby
        self._forgetting, self._catalog, self._notices = forgetting, catalog, Notices(log)

    def stand_by(self) -> None:
        """Has a process load its libraries; where none can be started that is said, and tried again."""
        try:
            self._standby.prepare()
        except OSError as error:
            self._notices.say("no process", f"none can be started for the next fine-tune: {error}")

    def begin(self, task: TaskLearning, bench: Bench, reason: str, kind: str, now_ms: int) -> None:
        """Raises BrokerUnavailable, RegistryUnavailable."""
        log.info("a fine-tune of %s begins: %s", task.name, reason, extra={"task": task.name})
        self.stand_by()
        found, seed, catalog = task.split, task.seed(), self._catalog()
        cycle = task.cycle(reason, kind, now_ms)
        examples = read_examples(self._settings, self._registry, task.name, found.ranges, self._forgetting.deleted)
        fresh = (record for part, at, record in examples if not task.knows(part, at, record))
        try:
            bench.begin(cycle, found, catalog, fresh, seed=seed, delays=task.waits.estimated())
        except OSError as error:
            give_up(task, bench, f"the files could not be written: {error}")
            return
        if start(task, bench):
            task.save_waits(bench.folder)
            self._metrics.triggers.labels(task.name, kind).inc()


def start(task: TaskLearning, bench: Bench) -> bool:
    """Whether the process of the fine-tune that has begun runs now; if not, that is given up."""
    try:
        bench.start()
    except OSError as error:
        give_up(task, bench, f"no process can be started: {error}")
        return False
    return True


def give_up(task: TaskLearning, bench: Bench, why: str) -> None:
    bench.settle()
    task.attempts += 1
    task.last = {"result": "failed", "why": why}
    log.error("the fine-tune of %s did not begin: %s", task.name, why)
