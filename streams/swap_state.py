"""A release on its way to be live, and how far it is."""

import logging
from dataclasses import dataclass
from typing import Literal

from engines.slot import Loaded
from streams.shadow import Pairing

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Swap:
    """A release on its way, and how far it is. `due`: when it begins, `since`: when it began to shadow, or to serve
    some users; monotonic s."""

    task: str
    version: str
    due: float
    state: Literal["waiting", "under way", "shadowing", "canary"] = "waiting"
    loaded: Loaded | None = None
    catalog_version: int = -1
    pair: Pairing | None = None
    before: Pairing | None = None
    since: float = 0.0

    def unbroken(self) -> Loaded:
        """What it loaded. Raises what it failed with while it shadowed."""
        assert self.loaded is not None
        if self.pair is not None and self.pair.shadow is self.loaded and self.pair.failed is not None:
            raise self.pair.failed
        return self.loaded

    def say_live(self) -> None:
        log.info("release %s/%s is live", self.task, self.version, extra={"task": self.task, "release": self.version})
