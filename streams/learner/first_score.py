"""Which release has gone live and was not heard to score yet, by task; written down, as the learner may end in between.
What is lost with the file is one figure.
"""

import json
import logging
from pathlib import Path

from finetune.example_files import whole

log = logging.getLogger(__name__)

FILE = "awaited.json"


class Awaited:
    """Of one task, in its bench's folder. Used from one thread."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.release: tuple[str, int] | None = self._read()
        """The version, and when the newest example that it learned came to the broker, UTC ms."""

    def wait_for(self, version: str, newest_at: int) -> None:
        self.release = version, newest_at
        try:
            with whole(self._path) as partial:
                partial.write_text(json.dumps({"version": version, "newest_at": newest_at}))
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error)

    def heard(self) -> None:
        self.release = None
        self._path.unlink(missing_ok=True)

    def _read(self) -> tuple[str, int] | None:
        try:
            said = json.loads(self._path.read_text("utf-8"))
            return str(said["version"]), int(said["newest_at"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
