"""Runs `headrace` with a wall clock that can be made to jump from outside: Python's `time.time` and `time.time_ns`.
Not the machine's clock, which nobody here may set: what C++ asks the time of day (librdkafka, RocksDB) is not moved.

The time since the start (`time.monotonic`, CLOCK_BOOTTIME), which leases and timers go by, does not jump, and neither
does it where an operator sets a clock.
"""

import mmap
import os
import runpy
import struct
import time
from pathlib import Path

VARIABLE = "CHAOS_CLOCK"
MS = struct.Struct("<q")


def make(path: Path) -> None:
    """A clock that is right."""
    path.write_bytes(MS.pack(0))


def jump(path: Path, seconds: float) -> None:
    """From now on, every process on that clock is so many seconds ahead; 0: right again."""
    with path.open("r+b") as file:
        file.write(MS.pack(int(seconds * 1000)))


def move(path: Path) -> None:
    """This process goes by that clock."""
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), MS.size)
    true_s, true_ns = time.time, time.time_ns

    def ahead_ms() -> int:
        ahead: int = MS.unpack_from(shared)[0]
        return ahead

    vars(time).update(
        time=lambda: true_s() + ahead_ms() / 1000,
        time_ns=lambda: true_ns() + ahead_ms() * 1_000_000,
    )


if __name__ == "__main__":
    move(Path(os.environ[VARIABLE]))
    runpy.run_module("streams", run_name="__main__", alter_sys=True)
