"""Log lines about what may come in floods: a line a second for each subject, and how many were left out.
Subjects must be few (a dead letter's code, a topic): each is remembered."""

import logging
import time
from collections.abc import Callable


class Notices:
    """Used from one thread."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._said: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def say(self, subject: str, text: str) -> None:
        """Warns now, or counts it if the subject had its line within a second."""
        now = self._clock()
        if subject in self._said and now - self._said[subject] < 1.0:
            self._unsaid[subject] = self._unsaid.get(subject, 0) + 1
            return
        self._said[subject] = now
        more = self._unsaid.pop(subject, 0)
        self._log.warning("%s: %s%s", subject, text, f"; and {more} more since" if more else "")

    def flush(self) -> None:
        """Says how many are left unsaid: now and then, and at the end."""
        for subject, count in self._unsaid.items():
            self._log.warning("%s: %d more", subject, count)
        self._unsaid.clear()
