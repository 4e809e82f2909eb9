"""What each part of a run costs: seconds, and the most memory that the process held in it.
Linux tells the peak since it was last asked to forget it; elsewhere the peak of the whole process stands for all.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import TrainingError

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(slots=True)
class Parts:
    """`seconds` and `peak_mb` by part, in the order in which they were first entered. memory_mb: the most allowed."""

    memory_mb: float = float("inf")
    now: Callable[[], float] = time.perf_counter
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Raises TrainingError at its end, where the part held more than is allowed."""
        start = self.now()
        with suppress(OSError):
            FORGET.write_text("5")
        yield
        self.seconds[part] = round(self.seconds.get(part, 0.0) + self.now() - start, 3)
        self.check(part)

    def check(self, part: str) -> None:
        """Raises TrainingError where the process has held more than it may. Cheap: call it at each step."""
        peak = peak_mb()
        self.peak_mb[part] = round(max(self.peak_mb.get(part, 0.0), peak), 1)
        if peak > self.memory_mb:
            raise TrainingError(
                f"{peak:.0f} MB of memory",
                where=part,
                expected=f"at most {self.memory_mb:.0f} MB",
                todo="raise memory_mb, or hand over fewer examples or a smaller batch",
            )


def peak_mb() -> float:
    """Peak resident memory of this process in MB: since the current part began, where the system can tell."""
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    per = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per
