"""`python -m bench.timed_worker FILE`: the worker, with the engine's own CPU time written to FILE as it goes.
It wraps each engine in the thread that calls it; what the engine's other threads use is not seen, so run it with one.
"""

import struct
import sys
import time
from mmap import mmap
from pathlib import Path

from engines.base import Arrays, Engine, Inference
from streams.config import Settings
from streams.worker import run

_SECONDS = struct.Struct("<d")


def read(path: Path) -> float:
    """CPU seconds that engines took so far."""
    return float(_SECONDS.unpack(path.read_bytes())[0]) if path.exists() else 0.0


def time_engines(path: Path) -> None:
    """From now on every `infer` of every backend adds its thread's CPU time."""
    path.write_bytes(bytes(_SECONDS.size))
    with path.open("r+b") as file:
        shared = mmap(file.fileno(), _SECONDS.size)
    plain, total = Engine.infer, 0.0

    def infer(engine: Engine, inputs: Arrays) -> Inference:
        nonlocal total
        started = time.thread_time()
        try:
            return plain(engine, inputs)
        finally:
            total += time.thread_time() - started
            _SECONDS.pack_into(shared, 0, total)

    Engine.infer = infer  # type: ignore[method-assign, assignment]  # to stand in for it is the purpose


if __name__ == "__main__":
    time_engines(Path(sys.argv[1]))
    run(Settings())
