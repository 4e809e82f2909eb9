"""Threads that give way: what is built beside serving runs when serving does not want the processor."""

import os
import threading

NICENESS = 10


def step_back() -> None:
    """Lowers the calling thread's priority, for good, and so that of threads that it starts: Linux has one for each.

    Only where engines run on one thread: the pool that a build starts would run later inferences as low (measured:
    with two threads, half of the work of each call).
    """
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
