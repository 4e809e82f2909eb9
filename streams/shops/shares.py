"""Shares of the processor by shop, kept by the kernel: which of its means are there, and what each is told.
A share counts where shops want more than there is: one that is alone with its work has all cores.
"""

import errno
import math
import os
import time
from pathlib import Path
from typing import Protocol

from streams.shops.groups import ROOT, Delegated, own_group

STEP = 1.25
"""The kernel's weights of two niceness next to each other are so far apart."""
LEAST = 19
WEIGHT = 100  # cgroup v2: of a group that nobody has given another
AGAIN_S, TRIES = 0.1, 20  # the kernel takes one change of a session's niceness in so long


class Shares(Protocol):
    """A way to keep them. `by_shop`: whatever number of threads a shop has."""

    by_shop: bool
    words: str

    def keep(self, name: str, pid: int, share: float, most: float) -> str:
        """From now on; what was set, in words. `most`: the greatest share of all. OSError where the kernel refuses."""


def niceness(share: float, most: float, base: int = 0) -> int:
    """Of a shop, so that the one with the most has `base`. Nobody is made less nice: that takes a right."""
    return min(LEAST, base + max(0, round(math.log(most / share, STEP))))


class ByGroup:
    """cgroup v2."""

    by_shop, words = True, "cpu.weight of a control group for each shop"

    def __init__(self, groups: Delegated) -> None:
        self._groups = groups

    def keep(self, name: str, pid: int, share: float, most: float) -> str:
        weight = round(WEIGHT * share)
        self._groups.put(name, pid, weight)
        return f"cpu.weight {weight}"


class BySession:
    """Autogroups: the kernel shares cores between sessions, and each shop's process has a session of its own."""

    by_shop, words = True, "a session for each shop (autogroups of Linux)"

    def __init__(self, proc: Path = ROOT / "proc") -> None:
        self._proc = proc
        self.base = int((proc / "self/autogroup").read_text().rpartition(" ")[2])

    def keep(self, name: str, pid: int, share: float, most: float) -> str:
        nice = niceness(share, most, self.base)
        _write(self._proc / str(pid) / "autogroup", nice)  # a new session has 0, whatever its parent's has
        return f"niceness {nice} of its session"


class ByThread:
    """Plain niceness: a shop with two busy threads gets twice what one with one gets."""

    by_shop, words = False, "niceness alone"

    def __init__(self) -> None:
        self._base = os.getpriority(os.PRIO_PROCESS, 0)

    def keep(self, name: str, pid: int, share: float, most: float) -> str:
        nice = niceness(share, most, self._base)
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        return f"niceness {nice}"


def kept_by(root: Path = ROOT) -> Shares:
    """The best that is there. Our own control group may be divided by this."""
    if (groups := Delegated.found(own_group(root))) is not None:
        return ByGroup(groups)
    return BySession(root / "proc") if sessions_count(root) else ByThread()


def sessions_count(root: Path = ROOT) -> bool:
    """Whether the kernel has autogroups, they are on, and this process is in no control group that outranks them."""
    try:
        on = (root / "proc/sys/kernel/sched_autogroup_enabled").read_text().strip() == "1"
        known = (root / "proc/self/autogroup").read_text().startswith("/autogroup-")
    except OSError:
        return False
    group = own_group(root)
    return on and known and (group is None or group.with_all)


def _write(file: Path, nice: int) -> None:
    for left in reversed(range(TRIES)):
        try:
            file.write_text(str(nice))
        except OSError as error:
            if error.errno != errno.EAGAIN or not left:
                raise
        else:
            return
        time.sleep(AGAIN_S)
