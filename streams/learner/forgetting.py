"""The learner's part in forgetting a person: their examples leave the reservoir, and the files of ended fine-tunes go.
Between two fine-tunes: one that runs has its files open. What a release has learned by then stays learned.
"""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from finetune.examples import user_key
from finetune.reservoir import Reservoir
from schemas.errors import HeadraceError, StateError
from streams.config import Settings
from streams.notices import Notices
from streams.privacy.entries import LEARNER
from streams.privacy.ledger import Ledger
from streams.tasks import make_task

log = logging.getLogger(__name__)

RESERVOIR_BYTES = 64 << 20  # as a plan has it that does not say
FILES = ("training.avro", "holding.avro", "window.avro")


class Forgetting:
    """Used from the learner's thread."""

    def __init__(self, settings: Settings, ledger: Ledger, folder: Path) -> None:
        """folder: of the tasks' benches."""
        self._settings, self._ledger, self._folder = settings, ledger, folder
        self._answered: set[str] = set()
        self._notices = Notices(log)

    def deleted(self, user_id: str, stamped: int) -> bool:
        """Whether an example, which the broker got at UTC ms `stamped`, is of somebody who is forgotten."""
        return self._ledger.erasures.deleted(user_id, stamped)

    def look(self, now_ms: int) -> None:
        """While no fine-tune is under way. What cannot be done now is tried again."""
        erasures = self._ledger.erasures
        for request in erasures.open(LEARNER):
            if not request.until or request.receipt in self._answered:
                continue
            try:
                self._forget(erasures.user_of(request))
                self._ledger.put(request.answered(LEARNER, now_ms))
                self._answered.add(request.receipt)
            except (HeadraceError, OSError) as error:
                self._notices.say("forgetting waits", f"request {request.receipt}: {error}")

    def _forget(self, user_id: str) -> None:
        for task in self._settings.tasks:
            forget_examples(self._settings, task, self._folder / task, [user_id])


def forget_examples(settings: Settings, task: str, folder: Path, users: Iterable[str]) -> int:
    """Of one task's bench, that no fine-tune is at. How many rows of the reservoir that were."""
    for name in FILES:
        for path in folder.glob(f"*/{name}"):
            path.unlink(missing_ok=True)
    kept = folder / "reservoir"
    if not kept.exists():
        return 0
    try:
        reservoir = Reservoir(kept, make_task(task), rows=settings.learning.reservoir, bytes_=RESERVOIR_BYTES)
    except StateError as error:  # whoever is in it, is so no more
        log.warning("the reservoir of %s begins anew: %s", task, error)
        shutil.rmtree(kept)
        return 0
    return sum(reservoir.forget(user_key(user)) for user in users)
