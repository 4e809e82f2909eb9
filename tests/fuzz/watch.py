"""Watches a fuzzing process from outside: that it lives, that each input ends in time, that its memory stays.
A process that dies or hangs is a finding with the input's number, and the next one goes on behind it.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.measure import cpu_seconds, rss_mb
from bench.slopes import theil_sen
from tests.fuzz.child import FINDINGS, OUTCOMES, Now, Progress

LIMIT_S = 5.0
"""CPU time that one input may take: this machine does other things, too, so that wall time says little."""
STUCK_S = 120.0
"""Wall time after which it waits for something that does not come."""
POLL_S = 0.5
START_S = 180.0
MOST_FINDINGS = 500


@dataclass(slots=True)
class Finding:
    """number: of the first input that showed it."""

    number: int
    what: str
    text: str
    count: int = 1


@dataclass(slots=True)
class Seen:
    inputs: int = 0
    slowest: tuple[float, int] = (0.0, 0)
    """CPU seconds, and the input's number."""
    findings: dict[str, Finding] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds and MB of the newest process."""

    def note(self, number: int, what: str, text: str) -> None:
        if what in self.findings:
            self.findings[what].count += 1
        else:
            self.findings[what] = Finding(number, what, text)

    def figures(self) -> dict[str, Any]:
        return {
            "inputs": self.inputs,
            "findings": sum(finding.count for finding in self.findings.values()),
            "grown_mb": grown(self.memory),
            "rss_mb": self.memory[-1][1] if self.memory else 0.0,
            "slowest_s": self.slowest[0],
        }


def watch(
    name: str, seed: int, folder: Path, seconds: float, *,
    first: int = 0, limit_s: float = LIMIT_S, most: int = MOST_FINDINGS,
    command: Sequence[str] = (sys.executable, "-m", "tests.fuzz.child"),
) -> Seen:  # fmt: skip
    """Inputs of a target for so many seconds, in as many processes as it takes, or until `most` kinds of findings are
    there. They are kept in the folder.
    """
    seen, until = Seen(), time.monotonic() + seconds
    turn = 0
    while (left := until - time.monotonic()) > 0 and len(seen.findings) < most:
        own = folder / f"{name}-{turn}"
        own.mkdir(parents=True)
        turn += 1
        first = _turn([*command, name, str(seed), str(first), str(own), str(left)], own, first, seen, limit_s)
    return seen


def _turn(command: Sequence[str], folder: Path, first: int, seen: Seen, limit_s: float) -> int:
    """One process to its end. The number of the next input."""
    progress = Progress(folder)
    progress.write(Now(first))
    seen.memory.clear()
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        why = _until_over(child, progress, seen, limit_s)
    finally:
        child.kill()
        child.wait()
    now = progress.read()
    seen.inputs += now.done
    seen.slowest = max(seen.slowest, now.slowest)
    if (folder / OUTCOMES).exists():
        seen.outcomes.update(json.loads((folder / OUTCOMES).read_text()))
    if (folder / FINDINGS).exists():
        for line in (folder / FINDINGS).read_text().splitlines():
            seen.note(**json.loads(line))
    if why:
        seen.note(now.number, why, (folder / "log").read_text(errors="replace")[-3_000:])
        seen.outcomes["died"] += 1
    return now.number + 1


def _until_over(child: "subprocess.Popen[bytes]", progress: Progress, seen: Seen, limit_s: float) -> str:
    """Why it is over, if not in order."""
    started = time.monotonic()
    while child.poll() is None:
        time.sleep(POLL_S)
        try:
            cpu, memory = cpu_seconds(child.pid), rss_mb(child.pid)
        except (OSError, IndexError):
            continue  # it has just ended
        at, now = progress.read(), time.monotonic()
        if not at.wall:
            if now - started > START_S:
                return f"it did not begin in {START_S:.0f} s"
            continue
        if memory:  # none of one that is just ending
            seen.memory.append((now - started, memory))
        if cpu - at.cpu > limit_s + POLL_S:
            return f"an input took more than {limit_s:g} s of CPU"
        if now - at.wall > STUCK_S:
            return f"an input took more than {STUCK_S:.0f} s"
    return f"the process ended with {child.returncode}" if child.returncode else ""


def grown(memory: Sequence[tuple[float, float]]) -> float:
    """MB over the second half, by the robust slope there; 0 of fewer than four samples."""
    half = memory[len(memory) // 2 :]
    if len(half) < 4:
        return 0.0
    seconds = [at for at, _ in half]
    return theil_sen(seconds, [mb for _, mb in half]) * (seconds[-1] - seconds[0])
