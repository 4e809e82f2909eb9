"""The night's story: a line for each thing that happens, with the seconds since it began."""

import sys
import threading
import time


class Story:
    """On stderr, so that stdout keeps the line of JSON."""

    def __init__(self) -> None:
        self._began, self._lock = time.monotonic(), threading.Lock()

    def say(self, what: str) -> None:
        with self._lock:
            print(f"{time.monotonic() - self._began:7.1f} s  {what}", file=sys.stderr, flush=True)
