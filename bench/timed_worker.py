"""`python -m bench.timed_worker FILE`: the worker, with the engine's own CPU time written to FILE as it goes.
It wraps each engine in the thread that calls it; what the engine's other threads use is not seen, so run it with one.
"""

import struct
import sys
import time
from collections.abc import Callable, Iterable
from mmap import mmap
from pathlib import Path
from typing import Any

from engines.base import Array, Arrays, Engine
from engines.openvino import OpenVinoEngine
from streams.config import Settings
from streams.worker import run

Run = Callable[[Any, int, dict[str, Array]], Arrays]

_SECONDS = struct.Struct("<d")


def read(path: Path) -> float:
    """CPU seconds that engines took so far."""
    return float(_SECONDS.unpack(path.read_bytes())[0]) if path.exists() else 0.0


def time_engines(path: Path, kinds: Iterable[type[Engine]] = (OpenVinoEngine,)) -> None:
    """From now on every run of these engines' graphs adds its thread's CPU time. Making the inputs is not in it."""
    path.write_bytes(bytes(_SECONDS.size))
    with path.open("r+b") as file:
        shared = mmap(file.fileno(), _SECONDS.size)
    total = 0.0

    def timed(plain: Run) -> Run:
        def run(engine: Engine, bucket: int, arrays: dict[str, Array]) -> Arrays:
            nonlocal total
            started = time.thread_time()
            try:
                return plain(engine, bucket, arrays)
            finally:
                total += time.thread_time() - started
                _SECONDS.pack_into(shared, 0, total)

        return run

    for kind in kinds:
        kind._run = timed(kind._run)  # type: ignore[method-assign, assignment]  # a method for one of its kind


if __name__ == "__main__":
    time_engines(Path(sys.argv[1]))
    run(Settings())
