"""`python -m tests.fuzz.child TARGET SEED FIRST FOLDER SECONDS`: draws and looks, one input after the other.
Which one it is at stands in a shared page before it is looked at, so that also what kills the process is known.
"""

import json
import logging
import sys
import time
import traceback
from collections import Counter
from mmap import mmap
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from struct import Struct
from typing import NamedTuple

from tests.fuzz.target import Target, make, random_of

PROGRESS, FINDINGS, OUTCOMES = "progress", "findings.jsonl", "outcomes.json"
JUMP_MB = 300
"""What one input may not take: memory of which the process had never had as much."""
_PAGE = Struct("<qqdddq")
SIZE = 1 + _PAGE.size
TORN_S, TRIES = 0.001, 1_000
TELL_S = 1.0


class Now(NamedTuple):
    """number: of the input at hand; done: how many; cpu, wall: seconds when it began; slowest: CPU s, and of which."""

    number: int
    done: int = 0
    cpu: float = 0.0
    wall: float = 0.0
    slowest: tuple[float, int] = (0.0, 0)


class Progress:
    """A page in a file: one process writes, another reads. A byte says that it is being written, as `struct` blanks
    what it packs into.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / PROGRESS
        if not path.exists():
            path.write_bytes(bytes(SIZE))
        with path.open("r+b") as file:
            self._map = mmap(file.fileno(), SIZE)
        self._last = Now(0)

    def write(self, now: Now) -> None:
        self._map[0] = 1
        _PAGE.pack_into(self._map, 1, *now[:4], *now.slowest)
        self._map[0] = 0

    def read(self) -> Now:
        """As it was at one moment. The writer may be put aside in the middle, on a machine that does other things; of
        one that was killed there, what was read before.
        """
        for _ in range(TRIES):
            found = self._map[:]
            if not found[0] and found == self._map[:]:
                number, done, cpu, wall, *slowest = _PAGE.unpack_from(found, 1)
                self._last = Now(number, done, cpu, wall, (slowest[0], slowest[1]))
                break
            time.sleep(TORN_S)
        return self._last


def main(name: str, seed: int, first: int, folder: Path, seconds: float) -> None:
    logging.disable()
    progress, target = Progress(folder), make(name)
    outcomes: Counter[str] = Counter()
    until, told = time.monotonic() + seconds, 0.0
    number, slowest, most = first, (0.0, first), _peak_mb()
    try:
        while (now := time.monotonic()) < until:
            cpu = time.process_time()
            progress.write(Now(number, number - first, cpu, now, slowest))
            word, took = one(target, seed, number, folder)
            slowest = max(slowest, (took, number))
            outcomes[word] += 1
            if (peak := _peak_mb()) > most:
                if number > first + 100 and peak - most > JUMP_MB:
                    note(folder, number, f"memory: {peak - most:.0f} MB more", "")
                most = peak
            number += 1
            if now - told > TELL_S:
                told = now
                (folder / OUTCOMES).write_text(json.dumps(outcomes))
    finally:
        progress.write(Now(number, number - first, time.process_time(), time.monotonic(), slowest))
        (folder / OUTCOMES).write_text(json.dumps(outcomes))
        target.close()


def one(target: Target, seed: int, number: int, folder: Path) -> tuple[str, float]:
    """How it ended, and the CPU seconds of looking. Any exception but the process's own end is noted."""
    given: object = "not drawn"
    cpu = time.process_time()
    try:
        given = target.draw(random_of(seed, number))
        cpu = time.process_time()
        word = target.look(given)
    except Exception as error:  # noqa: BLE001  finding what comes out is the purpose
        word = "found"
        frames = traceback.extract_tb(error.__traceback__)
        place = next((frame for frame in reversed(frames) if "/tests/" not in frame.filename), frames[-1])
        what = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        text = "".join(traceback.format_exception(error))[-3_000:]
        note(folder, number, what, f"{text}of {repr(given)[:3_000]}")
    return word, time.process_time() - cpu


def note(folder: Path, number: int, what: str, text: str) -> None:
    with (folder / FINDINGS).open("a") as file:
        file.write(json.dumps({"number": number, "what": what, "text": text}) + "\n")


def repeat(name: str, seed: int, number: int) -> str:
    """One input in this process, with whatever it raises. A target that keeps state may need what came before it."""
    target = make(name)
    try:
        given = target.draw(random_of(seed, number))
        print(repr(given)[:20_000], file=sys.stderr)
        return target.look(given)
    finally:
        target.close()


def _peak_mb() -> float:
    return getrusage(RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), float(sys.argv[5]))
