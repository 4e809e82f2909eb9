"""What each part of a run costs: seconds, and the most memory that the process held in it; and the end of a process
that holds too much. Linux tells the peak since it was last asked to forget it, and what is held now; elsewhere the peak
of the whole process stands for all.
"""

import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import TrainingError

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
STATM = Path("/proc/self/statm")
LOOK_S = 0.02  # a look takes 20 µs; what a process touches meanwhile was 1 to 11 MB


@dataclass(slots=True)
class Parts:
    """`seconds` and `peak_mb` by part, in the order in which they were first entered. memory_mb: the most allowed."""

    memory_mb: float = float("inf")
    now: Callable[[], float] = time.perf_counter
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    part: str = "start"
    """That the process is in."""

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Raises TrainingError at its end, where the part held more than is allowed."""
        start, self.part = self.now(), part
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
            raise self.too_much(peak, part)

    def too_much(self, held_mb: float, part: str) -> TrainingError:
        return TrainingError(
            f"{held_mb:.0f} MB of memory",
            where=part,
            expected=f"at most {self.memory_mb:.0f} MB",
            todo="raise memory_mb, or hand over fewer examples or a smaller batch",
        )

    def watch(self, end: Callable[[TrainingError], None]) -> None:
        """From now on a thread looks at what the process holds, and calls `end`, once, when that is too much.

        A limit of the operating system would be exact, and useless: what torch and OpenVINO reserve and never touch
        counts there too. What one call of Python copies without letting another thread in shows when it is done: no
        part copies more than a reservoir so.
        """

        def looks() -> None:
            while (held := resident_mb()) <= self.memory_mb:
                time.sleep(LOOK_S)
            end(self.too_much(held, self.part))

        threading.Thread(target=looks, name="memory", daemon=True).start()


def resident_mb() -> float:
    """Resident memory of this process in MB now; its peak where the system does not tell."""
    with suppress(OSError):
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return peak_mb()


def peak_mb() -> float:
    """Peak resident memory of this process in MB: since the current part began, where the system can tell."""
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    per = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per
